//! Where a request goes, read from its URL.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

use super::EgressError;
use crate::model::Value;

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 8192;
/// The longest name of a host, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;

/// A host: a name in lower case without a final dot, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// The public part of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The host and the port.
    pub at: HostAndPort,
    /// True for `http`, false for `https`.
    pub is_plain: bool,
}

impl Destination {
    /// Reads a URL. Returns its secret part, too: path and query.
    ///
    /// # Errors
    /// [`EgressError::Malformed`], without the URL.
    pub(super) fn parse(url: &Value) -> Result<(Self, PathAndQuery), EgressError> {
        let malformed = |fault: &str| EgressError::Malformed(format!("the URL {fault}"));
        if url.len() > MAX_URL_BYTES {
            return Err(malformed("is longer than 8192 bytes"));
        }
        let uri = Uri::try_from(url.expose()).map_err(|_| malformed("cannot be read as a URL"))?;
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(malformed("must begin with https://")),
        };
        let authority = uri.authority().ok_or_else(|| malformed("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(malformed("contains a user or a password; remove them"));
        }
        let host = authority.host().parse().map_err(|fault: String| malformed(&fault))?;
        // The library takes a port that is too large for none.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(if is_plain { 80 } else { 443 }),
            _ => authority.port_u16().filter(|port| *port > 0),
        };
        let port = port.ok_or_else(|| malformed("has a port that is no number from 1 to 65535"))?;
        let path = uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok((Self { at: HostAndPort { host, port }, is_plain }, path))
    }

    /// The header `Host`.
    pub(super) fn host_header(&self) -> String {
        match (self.is_plain, self.at.port) {
            (true, 80) | (false, 443) => self.at.host.to_string(),
            _ => self.at.to_string(),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    /// Reads the host of a URL. An address has one form: other forms, such as `127.1`, name nobody.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Result<Ipv6Addr, _> = address.parse();
            return address
                .map(|address| Self::Address(address.into()))
                .map_err(|_| "has brackets around something that is no IPv6 address".to_owned());
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|c| c.is_ascii_digit()) || is_hexadecimal(last);
        if name.len() > MAX_NAME_BYTES || !name.split('.').all(is_label) || is_number {
            return Err("has a host that is neither an address nor a name of letters, digits and hyphens; write \
                        other letters in the form xn--"
                .to_owned());
        }
        Ok(Self::Name(name))
    }
}

/// A part of a host's name. Names of services have underscores.
fn is_label(label: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
}

/// Some programs read such a label as a number, and the name as an address.
fn is_hexadecimal(label: &str) -> bool {
    label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|c| c.is_ascii_hexdigit()))
}

impl FromStr for HostAndPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "a host and a port are needed: HOST:PORT".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let is_plain = port.bytes().all(|c| c.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && is_plain).ok_or_else(form)?;
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        let host = host.parse().ok().filter(|_| !is_bare_v6).ok_or_else(form)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<(String, bool, String)> {
        let (destination, path) = Destination::parse(&Value::new(url.into())).ok()?;
        Some((destination.host_header(), destination.is_plain, path.to_string()))
    }

    #[test]
    fn a_url_is_read_into_host_scheme_and_path() {
        for (url, host, is_plain, path) in [
            ("https://STS.eu-west-1.Amazonaws.com", "sts.eu-west-1.amazonaws.com", false, "/"),
            ("https://a.example.:443/t?x=%20y#part", "a.example", false, "/t?x=%20y"),
            ("https://a.example?x", "a.example", false, "/?x"),
            ("http://127.0.0.1:5912/", "127.0.0.1:5912", true, "/"),
            ("https://[2001:db8::1]:8443/a", "[2001:db8::1]:8443", false, "/a"),
            ("http://[::1]", "[::1]", true, "/"),
            ("https://_a.xn--bcher-kva.example", "_a.xn--bcher-kva.example", false, "/"),
        ] {
            let expected = (host.to_owned(), is_plain, path.to_owned());
            assert_eq!(parsed(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn a_url_of_another_form_is_refused_without_its_text() {
        for bad in [
            "",
            "a.example/t",
            "//a.example/t",
            "ftp://a.example/t",
            "https:///t",
            "https://user@a.example/t",
            "https://user:secret@a.example/t",
            "https://a.example:/t",
            "https://a.example:0/t",
            "https://a.example:65536/t",
            "https://a.example/t u",
            "https://a.example/t\r\nX: y",
            "https://a..example/t",
            "https://bücher.example/t",
            // An address in disguise.
            "https://127.1/t",
            "https://2130706433/t",
            "https://0177.0.0.1/t",
            "https://0x7f.0.0.1/t",
            "https://1.2.3.0x4/t",
            "https://127.0.0.1.0/t",
            "https://[127.0.0.1]/t",
            "https://[::1%25lo]/t",
            "https://[fe80::1%lo]/t",
            "https://::1/t",
        ] {
            let Err(error) = Destination::parse(&Value::new(bad.into())) else {
                panic!("{bad:?} was read")
            };
            let told = error.to_string();
            assert!(!told.contains("secret") && !told.contains("/t"), "{bad:?}: {told}");
        }
        let long = format!("https://a.example/{}", "x".repeat(8200));
        assert_eq!(parsed(&long), None);
    }

    #[test]
    fn a_host_and_a_port_are_read_from_a_rule() {
        for good in ["a.example:80", "127.0.0.1:5912", "[::1]:3128"] {
            assert_eq!(good.parse::<HostAndPort>().unwrap().to_string(), good);
        }
        for bad in ["", "a.example", "a.example:", "a.example:0", ":80", "::1:80", "a:+1", "a:80/"]
        {
            assert!(bad.parse::<HostAndPort>().is_err(), "{bad}");
        }
    }
}
