//! Addresses that answers are for, compared by RFC 3986, section 6.2.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The default protocol of an answer.
pub const HTTPS: &str = "https";

/// `[PROTOCOL://][USER@]HOST[:PORT][/PATH]`
pub struct Address<'a> {
    protocol: Option<&'a str>,
    user: Option<Cow<'a, str>>,
    host: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    /// Splits any text.
    pub fn parse(text: &'a str) -> Self {
        let (protocol, rest) = match text.split_once("://") {
            Some((protocol, rest)) => (Some(protocol), rest),
            None => (None, text),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(percent_decode_str(user).decode_utf8_lossy()), host),
            None => (None, authority),
        };
        Self { protocol, user, host, path: path.trim_end_matches('/') }
    }

    /// The part before `://`.
    pub fn protocol(&self) -> Option<&'a str> {
        self.protocol
    }

    /// The part before `@`, decoded.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host, with the port if there is one.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The path, without slashes at its beginning and end.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Whether an answer for this address is for a protocol. Only an explicit `http://HOST` is for connections without
    /// encryption.
    pub fn is_of(&self, protocol: &str) -> bool {
        self.protocol.unwrap_or(HTTPS).eq_ignore_ascii_case(protocol)
    }
}

/// Whether two hosts with ports are the same server of a protocol.
pub fn is_same_host(one: &str, other: &str, protocol: &str) -> bool {
    let own_port = match protocol.to_ascii_lowercase().as_str() {
        "http" => ":80",
        HTTPS => ":443",
        _ => "",
    };
    let [one, other] = [one, other].map(|host| host.strip_suffix(own_port).unwrap_or(host));
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

/// Whether two addresses are of the same server.
pub fn is_same_server(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(Address::parse);
    let protocol = one.protocol.unwrap_or(HTTPS);
    other.is_of(protocol)
        && is_same_host(one.host, other.host, protocol)
        && one.user == other.user
        && one.path == other.path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_server_however_it_is_written() {
        for (one, other, is_same) in [
            ("https://K.example:6443", "HTTPS://k.example:6443/", true),
            ("https://k.example", "https://k.example:443", true),
            ("http://k.example:80", "http://k.example", true),
            ("k.example", "https://k.example", true),
            ("https://[FD00::1]:443", "https://[fd00::1]", true),
            ("https://k.example/a/", "https://k.example/a", true),
            ("https://k.example/a", "https://k.example/A", false),
            ("https://k.example:80", "https://k.example", false),
            ("https://k.example", "http://k.example", false),
            ("https://k.example", "https://u@k.example", false),
            ("https://k.example", "https://k.example.", false),
            ("", "", false),
        ] {
            assert_eq!(is_same_server(one, other), is_same, "{one} {other}");
            assert_eq!(is_same_server(other, one), is_same, "{other} {one}");
        }
        let address = Address::parse("http://a%40b@h:1/p/q/");
        assert_eq!((address.user(), address.host(), address.path()), (Some("a@b"), "h:1", "p/q"));
    }
}
