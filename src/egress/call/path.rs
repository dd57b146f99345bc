//! Paths below an address. A path of this type cannot leave the address: not as it is, and not for a server that decodes it
//! once or twice, cuts parameters off its segments, reads a query after it has decoded, or takes a backslash for a slash.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The longest path with its query, in bytes.
const MAX_BYTES: usize = 8192;
/// How often a server may decode a path.
const DECODINGS: usize = 3;

/// A path with its query, relative to an address. The path is empty or begins with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    path: String,
    query: Option<String>,
}

impl SubPath {
    /// Reads a path with its query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let said = |fault: &str| format!("the path {fault}");
        let fault = |fault: &str| Err(said(fault));
        if text.len() > MAX_BYTES {
            return fault("is longer than 8192 bytes");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fault(
                "has a space, a control character or a letter outside of ASCII; encode it as %XX",
            );
        }
        if text.contains(['#', '"', '<', '>']) {
            return fault("has one of # \" < >; encode it as %XX");
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (text, None),
        };
        if !(path.is_empty() || path.starts_with('/')) {
            return fault("does not begin with a slash");
        }
        check_encoding(path).map_err(said)?;
        check_encoding(query.as_deref().unwrap_or_default()).map_err(said)?;
        check_segments(path.as_bytes()).map_err(said)?;
        Ok(Self { path: path.to_owned(), query })
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its question mark; `None` if there is none.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// True if the query has a parameter of this name, however it is encoded. Some servers also part parameters by `;`.
    pub fn has_parameter(&self, name: &str) -> bool {
        let pairs = self.query.iter().flat_map(|query| query.split(['&', ';']));
        let mut names = pairs.map(|pair| pair.split('=').next().unwrap_or_default());
        names.any(|found| {
            let found = found.replace('+', " ");
            let decoded = percent_decode(found.as_bytes()).decode_utf8_lossy();
            decoded.trim().eq_ignore_ascii_case(name)
        })
    }

    /// True if the path is `prefix` or below it: the prefix ends where a segment ends. Both are compared as they are written.
    pub fn is_below(&self, prefix: &str) -> bool {
        let rest = self.path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Checks that each `%` is part of an encoded byte.
fn check_encoding(text: &str) -> Result<(), &'static str> {
    let mut parts = text.split('%').skip(1);
    let is_encoded = |part: &str| {
        part.get(..2).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match parts.all(is_encoded) {
        true => Ok(()),
        false => Err("has a % without two hexadecimal digits"),
    }
}

/// Checks the segments of a path, as it is written and each time that it is decoded.
fn check_segments(path: &[u8]) -> Result<(), &'static str> {
    let mut text = Cow::Borrowed(path);
    for _ in 0..=DECODINGS {
        if text.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\') {
            return Err("has a backslash or a control character, perhaps an encoded one");
        }
        if std::str::from_utf8(&text).is_err() {
            return Err("has encoded bytes that are no UTF-8");
        }
        let segments: Vec<&[u8]> = text.split(|byte| *byte == b'/').skip(1).collect();
        let is_dots = |segment: &&[u8]| {
            let plain = segment.split(|byte| b";?#".contains(byte)).next().unwrap_or_default();
            matches!(plain.trim_ascii(), b"." | b"..")
        };
        if segments.iter().any(is_dots) {
            return Err("has a segment . or .., perhaps an encoded one");
        }
        let is_last = |at: usize| at + 1 == segments.len();
        if segments.iter().enumerate().any(|(at, segment)| segment.is_empty() && !is_last(at)) {
            return Err("has an empty segment, perhaps by an encoded slash");
        }
        let decoded: Vec<u8> = percent_decode(&text).collect();
        if decoded == *text {
            return Ok(());
        }
        text = Cow::Owned(decoded);
    }
    Err("is encoded too many times")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that climb, that name another host, or that servers read in more than one way.
    const BAD: &[&str] = &[
        "a",
        "@evil.example/",
        ":80/",
        "https://evil.example/",
        "//evil.example/",
        "/a//b",
        "/..",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/.",
        "/%2e%2e/b",
        "/%2E./b",
        "/.%2e",
        "/a/%2e%2e%2fb",
        "/a%2f..%2f..%2fb",
        "/a%2F%2e%2e",
        "/%252e%252e/b",
        "/%25252e%25252e/b",
        "/%2525252525252e",
        "/%2f/evil.example",
        "/%2fevil.example",
        "/..;/b",
        "/..;x=1/b",
        "/.;/b",
        "/%2e%2e%3bx/b",
        "/..%3f",
        "/a/..%3fx=1",
        "/..%3Fx/b",
        "/..%23",
        "/.%23x",
        "/%2e%2e%23/b",
        "/..%253fx",
        "/..%2523",
        "/..%25253fx",
        "/..%20/b",
        "/a\\..\\b",
        "/a%5c..%5cb",
        "/%5cevil.example",
        "/a b",
        "/a\tb",
        "/a\r\nX: y",
        "/a%0d%0aX:%20y",
        "/a%00",
        "/a%7f",
        "/a%c0%ae",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a?%",
        "/a#b",
        "/\u{fffd}",
        "/<b>",
    ];

    #[test]
    fn a_path_stays_below_its_address() {
        for good in [
            "",
            "/",
            "/?x",
            "?state=open",
            "/repos/acme/site/issues?state=open&q=a%20b",
            "/projects/group%2Fproject/issues",
            "/a/...",
            "/a/..b/.c/d..",
            "/a;v=1/b",
            "/a%3f/b%23",
            "/a/b/",
            "/a:b@c/d",
            "/q?next=https://x.example/../y",
            "/100%25",
            "/caf%C3%A9",
        ] {
            let parsed = SubPath::parse(good).unwrap_or_else(|fault| panic!("{good}: {fault}"));
            let again = match parsed.query() {
                Some(query) => format!("{}?{query}", parsed.path()),
                None => parsed.path().to_owned(),
            };
            assert_eq!(again, good);
        }
        for bad in BAD {
            assert!(SubPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SubPath::parse(&format!("/{}", "x".repeat(8192))).is_err());
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let is_below = |path: &str, prefix: &str| SubPath::parse(path).unwrap().is_below(prefix);
        for (path, prefix) in
            [("/a", "/a"), ("/a/b?x", "/a"), ("/a/b", "/a/"), ("/a/", "/a"), ("/x", "/"), ("", "/")]
        {
            assert!(is_below(path, prefix), "{path} {prefix}");
        }
        for (path, prefix) in [
            ("/ab", "/a"),
            ("/a", "/a/b"),
            ("/a%2Fb", "/a"),
            ("/%61/b", "/a"),
            ("", "/a"),
            ("/A/b", "/a"),
        ] {
            assert!(!is_below(path, prefix), "{path} {prefix}");
        }
    }

    #[test]
    fn a_parameter_is_found_however_it_is_written() {
        let has =
            |query: &str| SubPath::parse(&format!("/a?{query}")).unwrap().has_parameter("key");
        for query in ["key=1", "a=1&key", "a;key=2", "%6Bey=1", "KEY=1", "+key=1", "key%20=1"] {
            assert!(has(query), "{query}");
        }
        for query in ["", "keys=1", "a=key", "a=key=1"] {
            assert!(!has(query), "{query}");
        }
    }
}
