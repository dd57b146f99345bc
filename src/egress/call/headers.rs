//! The headers of a request that a step has made, and those of its answer.

use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};

use super::super::{Destination, EgressError, Headers};
use crate::model::Value;

/// The most headers of a step, and their most bytes.
const MAX_HEADERS: usize = 100;
const MAX_BYTES: usize = 32 * 1024;

/// The headers that belong to a connection and not to a message, or that change where or how a message is read: some servers
/// take another address, or another client, from them. Names are compared as [`plain`] has them.
const REFUSED: [&str; 20] = [
    "connection",
    "content-length",
    "destination",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "request-uri",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forward-for",
    "x-host",
    "x-host-override",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-override-url",
    "x-real-ip",
];
const REFUSED_PREFIXES: [&str; 5] =
    ["proxy-", "x-envoy-", "x-forwarded-", "x-original-", "x-rewrite-"];
/// The headers that name another method.
const METHODS: [&str; 4] =
    ["x-http-method", "x-http-method-override", "x-method", "x-method-override"];
/// The headers of which a message has one at most.
const SINGLE: [&str; 19] = [
    "accept-encoding",
    "age",
    "authorization",
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "from",
    "if-modified-since",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "range",
    "referer",
    "user-agent",
];
/// The headers of an answer that belong to its connection.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The headers of an answer that tell of its body before it is masked: its length, and sums over it. ETag is none of them,
/// because many upstreams take an update only with the ETag of what is updated.
const OF_PLAIN_BODY: [&str; 5] =
    ["content-digest", "content-length", "content-md5", "digest", "repr-digest"];
/// The headers of an answer that give whoever has them the session of the credential.
const COOKIES: [&str; 2] = ["set-cookie", "set-cookie2"];

/// The headers of a step's request: well formed, none of the connection's, and none twice that there is once.
pub struct StepHeaders(HeaderMap);

impl StepHeaders {
    /// Reads headers.
    ///
    /// # Errors
    /// What is wrong, with the header's name if that is well formed. It shows no value.
    pub fn parse(pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, String> {
        let (mut headers, mut bytes) = (HeaderMap::new(), 0);
        for (name, value) in pairs {
            bytes += name.len() + value.len();
            if headers.len() == MAX_HEADERS || bytes > MAX_BYTES {
                return Err(format!(
                    "at most {MAX_HEADERS} headers, and {MAX_BYTES} bytes of them"
                ));
            }
            let Ok(parsed) = HeaderName::try_from(name.as_str()) else {
                return Err("a header has a name that HTTP does not allow".to_owned());
            };
            let name = plain(&parsed);
            if is_refused(&name) {
                return Err(format!("the header {parsed} is the broker's own, or is not sent on"));
            }
            if value.trim_ascii().len() != value.len() {
                return Err(format!("the header {parsed} has a space at the end of its value"));
            }
            let Ok(mut value) = HeaderValue::from_bytes(&value) else {
                return Err(format!("the header {parsed} has a control character in its value"));
            };
            let has_name = |other: &HeaderName| plain(other) == name;
            if SINGLE.contains(&name.as_str()) && headers.keys().any(has_name) {
                return Err(format!("the header {parsed} is given twice"));
            }
            value.set_sensitive(true);
            headers.append(parsed, value);
        }
        Ok(Self(headers))
    }

    /// The name of a header by which a server may read another method than the request's.
    pub fn other_method(&self) -> Option<&str> {
        let found = self.0.keys().find(|name| METHODS.contains(&plain(name).as_str()));
        found.map(HeaderName::as_str)
    }

    /// The type of the body, if it is text; `None` if there is no such header.
    pub fn content_type(&self) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| plain(name) == CONTENT_TYPE.as_str());
        found.and_then(|(_, value)| value.to_str().ok())
    }

    /// The headers to send to a destination: the broker's own, then `rendered`, then those of the step that have no other
    /// name.
    ///
    /// # Errors
    /// If a rendered header cannot be sent.
    pub(super) fn with(
        self,
        rendered: Headers,
        destination: &Destination,
    ) -> Result<HeaderMap, EgressError> {
        let malformed = |fault: String| EgressError::Malformed(fault);
        let mut headers = HeaderMap::new();
        let host = HeaderValue::try_from(destination.host_header());
        let host = host.map_err(|_| malformed("the address cannot be sent".to_owned()))?;
        headers.insert(HOST, host);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in rendered {
            let Ok(parsed) = HeaderName::try_from(name.as_str()) else {
                return Err(malformed(format!("the connection's header {name} has no HTTP name")));
            };
            if is_refused(&plain(&parsed)) || parsed == ACCEPT_ENCODING {
                return Err(malformed(format!("the connection's header {parsed} is not sent on")));
            }
            let value = value.expose().trim_ascii();
            let Ok(mut value) = HeaderValue::from_bytes(value) else {
                let fault = "has a value with a line end or another control character";
                return Err(malformed(format!("the connection's header {parsed} {fault}")));
            };
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        let taken: Vec<String> = headers.keys().map(plain).collect();
        for (name, value) in self.0.iter().filter(|(name, _)| !taken.contains(&plain(name))) {
            headers.append(name.clone(), value.clone());
        }
        let agent = HeaderValue::from_static(concat!("keyhatch/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        Ok(headers)
    }
}

/// A name as servers may read it: some take any sign in it for the same one.
fn plain(name: &HeaderName) -> String {
    name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn is_refused(name: &str) -> bool {
    REFUSED.contains(&name) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The names, in lower case, of the headers that belong to the connection because its header `Connection` lists them.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(','));
    names.map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// What is left out of an answer's headers and trailers.
#[derive(Clone, Copy)]
pub(super) struct LeftOut {
    /// What tells of the plain body: the step gets a masked one.
    pub(super) of_plain_body: bool,
    /// Cookies: the session is the credential's.
    pub(super) cookies: bool,
}

/// The headers of an answer, without those of the connection, and without what is left out.
pub(super) fn of_answer(headers: &HeaderMap, left_out: LeftOut) -> Headers {
    let named = named_by_connection(headers);
    let is_left_out = |name: &HeaderName| {
        let name = name.as_str();
        OF_CONNECTION.contains(&name)
            || named.iter().any(|one| one == name)
            || (left_out.of_plain_body && OF_PLAIN_BODY.contains(&name))
            || (left_out.cookies && COOKIES.contains(&name))
    };
    let own = headers.iter().filter(|(name, _)| !is_left_out(name));
    own.map(|(name, value)| (name.as_str().to_owned(), Value::new(value.as_bytes().to_vec())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers that frame or route a request, and malformed ones.
    const REFUSED: &[(&str, &str)] = &[
        ("Host", "evil.example"),
        ("Content-Length", "5"),
        ("Content_Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("transfer_encoding", "chunked"),
        ("Connection", "close, authorization"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "x"),
        ("Proxy-Authorization", "x"),
        ("TE", "trailers"),
        ("Trailer", "X"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("Expect", "100-continue"),
        ("Forwarded", "for=1"),
        ("X-Forwarded-For", "1"),
        ("X_Forwarded_Host", "x"),
        ("X-Original-URL", "/x"),
        ("X-Original-URI", "/x"),
        ("X-Original-Host", "x"),
        ("X-Rewrite-URL", "/x"),
        ("X.Rewrite~URL", "/x"),
        ("X-Envoy-Original-Path", "/x"),
        ("X-Host", "x"),
        ("x*host", "x"),
        ("X-HTTP-Host-Override", "x"),
        ("X-Real-IP", "1"),
        ("Destination", "https://a.example/other"),
        ("Transfer.Encoding", "chunked"),
        ("", "x"),
        (":authority", "x"),
        ("A B", "x"),
        ("A:", "x"),
        ("A\r\nB", "x"),
        ("\u{e9}", "x"),
        ("A", " x"),
        ("A", "x\t"),
        ("A", "x\r\nB: y"),
        ("A", "x\n y"),
        ("A", "x\0"),
        ("A", "x\x7f"),
    ];

    fn parse(pairs: &[(&str, &str)]) -> Result<StepHeaders, String> {
        StepHeaders::parse(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())))
    }

    fn sent(pairs: &[(&str, &str)], rendered: &[(&str, &str)]) -> Vec<(String, String)> {
        let url = Value::new(b"https://a.example:8443/x".to_vec());
        let (destination, _) = Destination::parse(&url).unwrap();
        let rendered = rendered.iter().map(|(k, v)| ((*k).to_owned(), Value::new((*v).into())));
        let headers = parse(pairs).unwrap().with(rendered.collect(), &destination).unwrap();
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn no_header_of_a_step_frames_or_routes_a_request() {
        for (name, value) in REFUSED {
            assert!(parse(&[(*name, *value)]).is_err(), "{name:?}: {value:?}");
        }
        for name in ["Authorization", "Content-Type", "User-Agent", "Cookie"] {
            for sign in ["_", ".", "~"] {
                let other = name.replace('-', sign).to_ascii_lowercase();
                assert!(parse(&[(name, "a"), (&other, "b")]).is_err(), "{name}");
            }
        }
        let many: Vec<_> = (0..101).map(|_| ("Accept", "x")).collect();
        assert!(parse(&many).is_err());
        assert!(parse(&[("A", &"x".repeat(33_000))]).is_err());
        assert!(parse(&[("Accept", "a"), ("Accept", "b"), ("X-Empty", "")]).is_ok());
        for name in ["X_HTTP_Method_Override", "X.Method", "x-http-method"] {
            assert!(parse(&[(name, "PUT")]).unwrap().other_method().is_some(), "{name}");
        }
    }

    #[test]
    fn rendered_headers_win_however_the_step_writes_them() {
        let step = [
            ("AUTHORIZATION", "Bearer own"),
            ("x_api_key", "own"),
            ("x.api~key", "own"),
            ("Accept", "a"),
            ("Accept-Encoding", "gzip"),
            ("User-Agent", "curl/8"),
            ("Accept", "b"),
        ];
        let found = sent(&step, &[("Authorization", "Bearer theirs\n"), ("X-Api-Key", "theirs")]);
        let mut found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("accept", "a"),
                ("accept", "b"),
                ("accept-encoding", "identity"),
                ("authorization", "Bearer theirs"),
                ("host", "a.example:8443"),
                ("user-agent", "curl/8"),
                ("x-api-key", "theirs"),
            ]
        );
        assert!(
            sent(&[], &[])
                .iter()
                .any(|(name, value)| { name == "user-agent" && value.starts_with("keyhatch/") })
        );
    }

    #[test]
    fn an_answer_has_no_header_that_is_not_the_steps() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-Hop, close"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("location", "https://a.example/"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("set-cookie2", "c=3"),
            ("etag", "\"sum\""),
            ("digest", "sum"),
            ("content-digest", "sum"),
            ("repr-digest", "sum"),
            ("content-md5", "sum"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |of_plain_body, cookies| {
            let found = of_answer(&headers, LeftOut { of_plain_body, cookies });
            found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(true, true), ["location", "etag"]);
        assert_eq!(
            names(true, false),
            ["location", "set-cookie", "set-cookie", "set-cookie2", "etag"]
        );
        let sums = ["digest", "content-digest", "repr-digest", "content-md5"];
        assert_eq!(
            names(false, true),
            [["content-length", "location", "etag"].as_slice(), &sums].concat()
        );
    }
}
