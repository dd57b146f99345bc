//! What a connection admits of the requests that the broker sends with it.

use serde::{Deserialize, Serialize};

use super::Invalid;

/// The most methods, and the most path prefixes.
const MAX_ENTRIES: usize = 32;
/// The longest method and the longest prefix, in bytes.
const MAX_METHOD_BYTES: usize = 20;
const MAX_PREFIX_BYTES: usize = 256;

/// The methods and paths that a connection admits. An empty list admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendLimits {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
}

impl SendLimits {
    /// Reads limits. A path is a prefix that ends where a segment ends, relative to the connection's address.
    ///
    /// # Errors
    /// The first entry that is malformed.
    pub fn parse(methods: Vec<String>, paths: &[String]) -> Result<Self, Invalid> {
        let is_method = |text: &String| {
            let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
            (1..=MAX_METHOD_BYTES).contains(&text.len()) && text.bytes().all(is_letter)
        };
        if let Some(bad) = methods.iter().find(|method| !is_method(method)) {
            return Err(Invalid::new("send method", bad, "a word of capital letters, such as GET"));
        }
        if let Some(bad) = paths.iter().find(|path| !is_prefix(path)) {
            let rule = "a path such as /repos/acme: visible ASCII, without a query, empty segments, . and ..";
            return Err(Invalid::new("send path", bad, rule));
        }
        if let Some(entry) = methods.get(MAX_ENTRIES).or_else(|| paths.get(MAX_ENTRIES)) {
            return Err(Invalid::new("send limits", entry, "at most 32 methods and 32 paths"));
        }
        let sorted = |mut entries: Vec<String>| {
            entries.sort_unstable();
            entries.dedup();
            entries
        };
        let paths = paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect();
        Ok(Self { methods: sorted(methods), paths: sorted(paths) })
    }

    /// True if all is admitted.
    pub fn is_open(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    /// The methods; all if empty.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// The prefixes of paths; all paths if empty. The prefix of all paths is empty.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// True if a method is admitted.
    pub fn admits_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|one| one == method)
    }

    /// True if these limits admit nothing that `other` does not.
    pub fn is_within(&self, other: &Self) -> bool {
        let are_methods_within = other.methods.is_empty()
            || (!self.methods.is_empty()
                && self.methods.iter().all(|one| other.admits_method(one)));
        let is_below = |path: &String| {
            let rests = other.paths.iter().filter_map(|prefix| path.strip_prefix(prefix.as_str()));
            rests.into_iter().any(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let are_paths_within =
            other.paths.is_empty() || (!self.paths.is_empty() && self.paths.iter().all(is_below));
        are_methods_within && are_paths_within
    }
}

/// True for a path that can be read in one way only.
fn is_prefix(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\\;\"<>".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let are_segments =
        |rest: &str| rest.strip_suffix('/').unwrap_or(rest).split('/').all(is_segment);
    path.len() <= MAX_PREFIX_BYTES
        && path.bytes().all(is_plain)
        && path.strip_prefix('/').is_some_and(|rest| rest.is_empty() || are_segments(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(methods: &[&str], paths: &[&str]) -> SendLimits {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        SendLimits::parse(owned(methods), &owned(paths)).unwrap()
    }

    #[test]
    fn limits_are_methods_and_prefixes_of_paths() {
        let all = limits(&[], &[]);
        assert!(all.is_open() && all.admits_method("PUT"));
        let some = limits(&["GET", "POST"], &["/repos/acme/", "/"]);
        assert!(some.admits_method("GET") && !some.admits_method("PUT"));
        assert_eq!(some.paths(), ["", "/repos/acme"]);
        for bad in ["", "a", "/..", "/a/../b", "//", "/a//b", "/a?b", "/a b", "/\\a", "/a;b"] {
            assert!(SendLimits::parse(vec![], &[bad.to_owned()]).is_err(), "{bad}");
        }
        for bad in ["", "get", "GET ", "G\r\n"] {
            assert!(SendLimits::parse(vec![bad.to_owned()], &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn narrower_limits_are_within_wider_ones() {
        let (all, gets) = (limits(&[], &[]), limits(&["GET"], &[]));
        let (acme, site) = (limits(&[], &["/repos/acme"]), limits(&["GET"], &["/repos/acme/site"]));
        for (narrow, wide) in
            [(&gets, &all), (&acme, &all), (&site, &acme), (&site, &gets), (&all, &all)]
        {
            assert!(narrow.is_within(wide), "{narrow:?} {wide:?}");
        }
        let other = limits(&[], &["/repos/acmeother"]);
        for (wide, narrow) in
            [(&all, &gets), (&all, &acme), (&acme, &site), (&gets, &site), (&other, &acme)]
        {
            assert!(!wide.is_within(narrow), "{wide:?} {narrow:?}");
        }
    }
}
