//! The address that paths are below.

use super::super::{Destination, EgressError};
use super::path::SubPath;
use crate::model::Value;

/// The address that paths are below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    destination: Destination,
    /// Without a slash at its end.
    path: String,
}

impl Address {
    /// Reads an address: a URL without a query.
    ///
    /// # Errors
    /// What is wrong with it, without the URL.
    pub fn parse(url: &str) -> Result<Self, EgressError> {
        let (destination, path) = Destination::parse(&Value::new(url.as_bytes().to_vec()))?;
        let malformed = |fault: &str| EgressError::Malformed(format!("the address {fault}"));
        if path.query().is_some() {
            return Err(malformed("has a query; give it as url_parameters"));
        }
        let path = path.path().trim_end_matches('/').to_owned();
        SubPath::parse(&path)
            .map_err(|_| malformed("has a path that could be read in two ways"))?;
        Ok(Self { destination, path })
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The host, with its port if that is not the scheme's own.
    pub fn host(&self) -> String {
        self.destination.host_header()
    }

    /// A path below the address, without a query.
    pub fn path_of(&self, path: &SubPath) -> String {
        format!("{}{}", self.path, path.path())
    }

    /// The path, with its query, that leads from this address to a `Location` with a host or a path from the root. `None` if
    /// the location is elsewhere, relative to the request's own path, or no path that a request can have. Fragments are left
    /// out.
    pub fn path_to(&self, location: &str) -> Option<String> {
        let location = location.split('#').next().unwrap_or_default();
        let is_path = location.starts_with('/') && !location.starts_with("//");
        let url = match location.strip_prefix("//") {
            Some(_) if self.destination.is_plain => format!("http:{location}"),
            Some(_) => format!("https:{location}"),
            None if is_path => return self.below(location),
            None => location.to_owned(),
        };
        let (destination, path) = Destination::parse(&Value::new(url.into_bytes())).ok()?;
        if destination == self.destination { self.below(path.as_str()) } else { None }
    }

    fn below(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.path.as_str())?;
        let is_below = rest.is_empty() || rest.starts_with(['/', '?']);
        (is_below && SubPath::parse(rest).is_ok()).then(|| rest.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_below_the_address_has_its_path_from_there() {
        let address = Address::parse("https://api.example/v1/").unwrap();
        for (location, path) in [
            ("https://api.example/v1/a?b=c#d", "/a?b=c"),
            ("https://API.example:443/v1/a", "/a"),
            ("//api.example/v1/a", "/a"),
            ("/v1/a/", "/a/"),
            ("/v1?page=2", "?page=2"),
            ("https://api.example/v1", ""),
        ] {
            assert_eq!(address.path_to(location).as_deref(), Some(path), "{location}");
        }
        for elsewhere in [
            "",
            "a",
            "../a",
            "?page=2",
            "/",
            "/v2/a",
            "/v11/a",
            "/v1/../v2",
            "/v1/%2e%2e/v2",
            "/v1//a",
            "http://api.example/v1/a",
            "https://api.example:8443/v1/a",
            "https://user@api.example/v1/a",
            "https://api.example.evil/v1/a",
            "https://evil.example/v1/a",
            "//evil.example/v1/a",
            "///v1/a",
            "/\\evil.example/v1/a",
            "ftp://api.example/v1/a",
        ] {
            assert_eq!(address.path_to(elsewhere), None, "{elsewhere}");
        }
        let root = Address::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(root.path_to("/a").as_deref(), Some("/a"));
        assert_eq!(root.path_to("http://127.0.0.1:8080").as_deref(), Some("/"));
        assert_eq!(root.path_to("//127.0.0.1:8080/a").as_deref(), Some("/a"));
    }
}
