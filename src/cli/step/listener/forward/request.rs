//! The command's requests: which are forwarded, and what of them.

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    ORIGIN, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Uri};

use crate::egress::named_by_connection;
use crate::grpc::pb;

/// Headers of the connection between the command and this address, and of proxies.
static NOT_FORWARDED: [HeaderName; 10] = [
    // SDKs insist on one. The broker sends the connection's.
    AUTHORIZATION,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Refuses requests that no tool sends to a base URL.
///
/// # Errors
/// The reason, for the command.
pub fn check<B>(request: &Request<B>) -> Result<(), String> {
    let headers = request.headers();
    if is_absolute(request.uri()) {
        return Err("this is no proxy: send the path alone".to_owned());
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err("the request has more than one Host".to_owned());
    }
    // A browser says from where a page asks.
    if headers.contains_key(ORIGIN) || headers.get("sec-fetch-site").is_some_and(|s| s != "none") {
        return Err("requests of web pages are refused".to_owned());
    }
    if headers.contains_key(UPGRADE) {
        return Err("a connection cannot be upgraded here: send plain HTTP/1.1".to_owned());
    }
    let is_usual = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().any(|value| !is_usual(value.as_bytes())) {
        return Err("only Expect: 100-continue is understood".to_owned());
    }
    Ok(())
}

fn is_absolute(uri: &Uri) -> bool {
    uri.scheme().is_some() || uri.authority().is_some()
}

/// The headers that go to the upstream.
pub fn headers(headers: &HeaderMap) -> Vec<pb::HttpHeader> {
    let named = named_by_connection(headers);
    let is_forwarded = |name: &HeaderName| {
        let text = name.as_str();
        !NOT_FORWARDED.contains(name)
            && text != "keep-alive"
            && !text.starts_with("proxy-")
            && !text.starts_with("x-forwarded-")
            && !named.iter().any(|named| named == text)
    };
    let forwarded = headers.iter().filter(|(name, _)| is_forwarded(name));
    forwarded
        .map(|(name, value)| pb::HttpHeader {
            name: name.to_string(),
            value: value.as_bytes().into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = headers.iter().fold(Request::builder().uri(uri), |builder, (name, value)| {
            builder.header(*name, *value)
        });
        builder.body(()).unwrap()
    }

    #[test]
    fn requests_of_proxies_pages_and_upgrades_are_refused() {
        for (uri, headers) in [
            ("http://127.0.0.1/a", &[][..]),
            ("127.0.0.1:80", &[]),
            ("/a", &[("host", "a"), ("host", "a")]),
            ("/a", &[("origin", "http://evil.example")]),
            ("/a", &[("sec-fetch-site", "cross-site")]),
            ("/a", &[("upgrade", "h2c")]),
            ("/a", &[("expect", "200-ok")]),
        ] {
            assert!(check(&request(uri, headers)).is_err(), "{uri} {headers:?}");
        }
        let usual = [("host", "a"), ("expect", "100-continue"), ("sec-fetch-mode", "cors")];
        assert_eq!(check(&request("/a?b", &usual)), Ok(()));
    }

    #[test]
    fn only_headers_of_the_request_itself_are_forwarded() {
        let asked = request(
            "/",
            &[
                ("Host", "127.0.0.1"),
                ("Authorization", "Bearer placeholder"),
                ("Connection", "keep-alive, X-Hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "1"),
                ("Proxy-Authorization", "Basic eA=="),
                ("X-Forwarded-For", "127.0.0.1"),
                ("Transfer-Encoding", "chunked"),
                ("Content-Type", "text/plain"),
                ("Accept", "a"),
                ("Accept", "b"),
            ],
        );
        let forwarded = headers(asked.headers());
        let forwarded: Vec<_> = forwarded.iter().map(|one| (&*one.name, &*one.value)).collect();
        let expected: [(&str, &[u8]); 3] =
            [("content-type", b"text/plain"), ("accept", b"a"), ("accept", b"b")];
        assert_eq!(forwarded, expected);
    }
}
