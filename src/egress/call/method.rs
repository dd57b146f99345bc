//! Methods of requests.

/// The longest method, in bytes.
const MAX_BYTES: usize = 20;
/// Methods that make a connection something else, or send a request's headers back.
const REFUSED: [&str; 2] = ["CONNECT", "TRACE"];

/// The method of a request: a word of capital letters and hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(hyper::Method);

impl Method {
    /// Reads a method.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(is_letter) {
            return Err(format!("a method has 1 to {MAX_BYTES} capital letters and hyphens"));
        }
        if REFUSED.contains(&text) {
            return Err(format!("the method {text} is not sent"));
        }
        let method = hyper::Method::from_bytes(text.as_bytes());
        method.map(Self).map_err(|_| "the method cannot be sent".to_owned())
    }

    /// The method as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// True if a request without a body does the same when it is sent twice.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    /// True if servers expect a body in its requests. Some leave the body of another request unread, and take its bytes for
    /// the next request on the connection.
    pub(super) fn expects_body(&self) -> bool {
        matches!(self.as_str(), "PATCH" | "POST" | "PUT")
    }

    /// True if the HTTP library sends a body with it only if its length is known.
    pub(super) fn needs_length(&self) -> bool {
        matches!(self.as_str(), "GET" | "HEAD")
    }

    pub(super) fn of_http(&self) -> hyper::Method {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_leave_the_connection_alone_are_methods() {
        for good in ["GET", "POST", "PATCH", "DELETE", "M-SEARCH", "VERSION-CONTROL", "PROPFIND"] {
            assert_eq!(Method::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "get",
            "CONNECT",
            "TRACE",
            "GET ",
            "GET\r\nX: y",
            "G\0T",
            "GÉT",
            "GET/1",
            "A_B",
            "AAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(Method::parse(bad).is_err(), "{bad:?}");
        }
    }
}
