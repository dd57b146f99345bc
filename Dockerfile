# A new broker:  docker run --rm -v STATE:/var/lib/keyhatch IMAGE init
# Serve it:      docker run -v STATE:/var/lib/keyhatch -v RUNTIME:/run/keyhatch-broker IMAGE
#
# It may not change owners, so it opens steps for its own uid, 10001.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

# The same Debian as above, for its libc.
FROM debian:bookworm-slim
COPY --from=build /src/target/release/keyhatch /usr/local/bin/keyhatch
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/keyhatch \
    && install -d -o 10001 -g 10001 -m 0755 /run/keyhatch-broker
USER 10001:10001
# The defaults of root; another user's are under its home.
ENV KEYHATCH_STATE=/var/lib/keyhatch KEYHATCH_RUNTIME=/run/keyhatch-broker
VOLUME /var/lib/keyhatch /run/keyhatch-broker
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["keyhatch", "status", "-o", "name"]
ENTRYPOINT ["keyhatch"]
CMD ["serve"]
