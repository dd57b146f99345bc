# A new broker:  docker run --rm -v STATE:/var/lib/keyhatch IMAGE init
# Serve it:      docker run -v STATE:/var/lib/keyhatch -v RUNTIME:/run/keyhatch-broker IMAGE
# Find faults:   docker exec CONTAINER keyhatch doctor
#
# Operators on other machines need a port: add  -p 7443:7443 … serve --admin-listen [::]:7443 --admin-name HOST  to the
# second line, where HOST is the name of the container's host.
#
# The container may not change owners, so it opens steps for its own uid, 10001. It writes only to its two volumes
# (--read-only). It needs a network only to mint credentials upstream; else give it none (--network none).
#
# The program is static, so it runs in any image, which needs only these lines. The second is for minted credentials:
#   COPY --from=IMAGE /usr/local/bin/keyhatch /usr/local/bin/keyhatch
#   COPY --from=IMAGE /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Only the sources of the program, so that other changes build nothing again. .dockerignore has the same list.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
RUN cargo build-static

# The program needs nothing of this image; a KEK command does.
FROM debian:bookworm-slim
COPY --from=build /src/target/release/keyhatch /usr/local/bin/keyhatch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/keyhatch \
    && install -d -o 10001 -g 10001 -m 0755 /run/keyhatch-broker
USER 10001:10001
# The defaults of root; other users have theirs under their home.
ENV KEYHATCH_STATE=/var/lib/keyhatch KEYHATCH_RUNTIME=/run/keyhatch-broker
VOLUME /var/lib/keyhatch /run/keyhatch-broker
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["keyhatch", "healthcheck"]
ENTRYPOINT ["keyhatch"]
CMD ["serve"]
