//! Names of hosts, as clients reach and verify them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use super::name::Invalid;
use crate::model::text::read_from_text;

/// RFC 1035, 2.3.4: the longest name and the longest label, in bytes.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// A DNS name in lower case, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// A DNS name, without a dot at its end.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl HostName {
    /// The name of every Unix socket.
    pub fn localhost() -> Self {
        Self::Dns("localhost".to_owned())
    }

    /// Parses a DNS name in any case, or an IP address without brackets.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let is_label = |label: &str| {
            let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(is_of_it)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name whose last label is a number would be taken for an address.
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() > MAX_NAME_BYTES || is_number || !text.split('.').all(is_label) {
            let rule = "a DNS name such as broker.example.com, or an IP address, without a port";
            return Err(Invalid::new("host name", text, rule));
        }
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }

    /// The host of an `:authority`, which may have a port; `None` if it is not well formed.
    pub fn of_authority(text: &str) -> Option<Self> {
        let (host, port) = split(text)?;
        port.is_none_or(|port| port.parse::<u16>().is_ok()).then_some(host)
    }
}

/// The host and the text of the port, if there is one.
fn split(text: &str) -> Option<(HostName, Option<&str>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (HostName::Ip(IpAddr::V6(address.parse().ok()?)), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (HostName::parse(host).ok()?, port)
        }
    };
    Some((host, port))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for HostName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

/// A host and a port: `broker.example.com:7443`, `192.0.2.1:7443`, `[2001:db8::1]:7443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct HostPort {
    /// The host.
    pub host: HostName,
    /// The port; not 0.
    pub port: u16,
}

impl HostPort {
    /// Parses a host and a port.
    ///
    /// # Errors
    /// If it is not well formed.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let parsed = split(text).and_then(|(host, port)| {
            let port = port?.parse().ok().filter(|port| *port != 0)?;
            Some(Self { host, port })
        });
        let rule = "a host and a port, such as broker.example.com:7443 or [2001:db8::1]:7443";
        parsed.ok_or_else(|| Invalid::new("address", text, rule))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostName::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

read_from_text!(HostPort, Self::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_with_or_without_a_port() {
        let host = |text| HostName::of_authority(text).map(|host| host.to_string());
        for (authority, expected) in [
            ("localhost", "localhost"),
            ("LOCALHOST:443", "localhost"),
            ("Broker.Example.com:7443", "broker.example.com"),
            ("192.0.2.1:7443", "192.0.2.1"),
            ("[2001:DB8::1]:7443", "2001:db8::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(host(authority).as_deref(), Some(expected), "{authority}");
        }
        for authority in [
            "",
            "localhost.",
            "x@localhost",
            "localhost@x",
            "localhost:",
            "localhost:x",
            "localhost:65536",
            "a..b",
            "-a.example",
            "1.2.3",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
        ] {
            assert_eq!(host(authority), None, "{authority}");
        }
    }

    #[test]
    fn an_address_has_a_port_and_one_text() {
        for text in ["broker.example.com:7443", "192.0.2.1:1", "[2001:db8::1]:7443"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
        for text in ["broker.example.com", "broker.example.com:0", ":7443", "a b:1", "::1:7443"] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }
}
