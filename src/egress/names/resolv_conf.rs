//! The file `/etc/resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Limits of the C library.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;
const MAX_NDOTS: usize = 15;
const MAX_ATTEMPTS: u32 = 5;
/// The longest that one server is waited for. A look-up has two seconds altogether, so that the file's five seconds would
/// never leave a second server any.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// The name servers, in order.
    pub(super) servers: Vec<IpAddr>,
    /// The domains to search.
    pub(super) search: Vec<String>,
    /// How many dots make a name one that is tried as it is first.
    pub(super) ndots: usize,
    /// How often all servers are asked.
    pub(super) attempts: u32,
    /// How long one server is waited for.
    pub(super) wait: Duration,
    /// True if servers are asked over TCP only.
    pub(super) is_tcp_only: bool,
}

impl ResolvConf {
    /// Reads the file's text. Lines that are not understood are left out, as the C library does.
    pub(super) fn parse(text: &str) -> Self {
        let mut read = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            attempts: 2,
            wait: MAX_WAIT,
            is_tcp_only: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    read.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                // The last line counts.
                Some("domain") => read.search = words.take(1).map(domain).collect(),
                Some("search") => read.search = words.take(MAX_SEARCH).map(domain).collect(),
                Some("options") => words.for_each(|word| read.set(word)),
                _ => {}
            }
        }
        read.servers.truncate(MAX_SERVERS);
        read.search.retain(|domain| !domain.is_empty());
        if read.servers.is_empty() {
            read.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        read
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u32>()) {
            ("ndots", Ok(dots)) => {
                self.ndots = usize::try_from(dots).unwrap_or(MAX_NDOTS).min(MAX_NDOTS);
            }
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, MAX_ATTEMPTS),
            ("timeout", Ok(seconds)) => {
                self.wait = Duration::from_secs(seconds.max(1).into()).min(MAX_WAIT);
            }
            ("use-vc", _) => self.is_tcp_only = true,
            _ => {}
        }
    }

    /// The full names that a name may stand for, in the order in which they are asked.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut names: Vec<_> = searched.collect();
        let is_full = name.bytes().filter(|c| *c == b'.').count() >= self.ndots;
        names.insert(if is_full { 0 } else { names.len() }, name.to_owned());
        names
    }
}

fn domain(word: &str) -> String {
    word.trim_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_whom_to_ask_and_how() {
        let read = ResolvConf::parse(
            "# nameserver 10.0.0.9\n;nameserver 10.0.0.9\ndomain old.example\nnameserver 10.0.0.1 # first\n\
             nameserver ::1\nnameserver nonsense\nsearch Svc.Cluster.Local. example\nnameserver 10.0.0.3\n\
             nameserver 10.0.0.4\noptions ndots:5 attempts:3 timeout:1 use-vc edns0\n",
        );
        let servers: Vec<_> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "::1", "10.0.0.3"]);
        assert_eq!(read.search, ["svc.cluster.local", "example"]);
        assert_eq!((read.ndots, read.attempts, read.is_tcp_only), (5, 3, true));
        assert_eq!(read.wait, MAX_WAIT);
        let empty = ResolvConf::parse("options ndots:99 attempts:0 timeout:0");
        assert_eq!(empty.servers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        assert_eq!((empty.ndots, empty.attempts), (15, 1));
    }

    #[test]
    fn a_name_with_few_dots_is_searched_first() {
        let read = ResolvConf::parse("search a.example b.example\noptions ndots:2\n");
        assert_eq!(read.names("vault"), ["vault.a.example", "vault.b.example", "vault"]);
        assert_eq!(read.names("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]);
        assert_eq!(ResolvConf::parse("").names("vault"), ["vault"]);
    }
}
