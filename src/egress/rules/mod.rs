//! Where the daemon may connect to: the rules of the configuration, and what is denied without them.

mod cidr;
mod ranges;
mod reading;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::cidr::Cidr;
use self::ranges::{PRIVATE, RESERVED};
pub use self::reading::readings;
use super::destination::{Destination, Host, HostAndPort};

/// The table `egress` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressTable {
    /// Destinations that are allowed although they are denied by default: a CIDR, a host, or `http://HOST:PORT`, which alone
    /// permits plain HTTP.
    pub allow: Vec<String>,
    /// Destinations that are denied whatever else is allowed: a CIDR or a host.
    pub deny: Vec<String>,
    /// The proxy, `http://HOST:PORT`. Only hosts that `allow` names are reached through it, because it resolves by itself.
    pub proxy: Option<String>,
}

/// An entry of the table that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {entry:?}: {fault}")]
pub struct InvalidRule {
    /// The key: `allow`, `deny` or `proxy`.
    pub key: &'static str,
    /// The entry.
    pub entry: String,
    /// What is wrong with it.
    pub fault: String,
}

/// The checked rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    allowed: Vec<Rule>,
    denied: Vec<Rule>,
    proxy: Option<HostAndPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Addresses(Cidr),
    Host(Host),
    Plain(HostAndPort),
}

impl EgressTable {
    /// Checks each entry.
    ///
    /// # Errors
    /// The first entry that is not well formed.
    pub fn rules(&self) -> Result<Rules, InvalidRule> {
        Ok(Rules {
            allowed: parse_all("allow", &self.allow, str::parse)?,
            denied: parse_all("deny", &self.deny, |entry| match entry.parse()? {
                Rule::Plain(_) => {
                    Err("a denial takes a CIDR or a host, and denies every port".to_owned())
                }
                rule => Ok(rule),
            })?,
            proxy: parse_all("proxy", self.proxy.as_slice(), |entry| {
                let rest = entry.strip_prefix("http://").ok_or(PROXY_FORM)?;
                rest.parse().map_err(|fault| format!("{fault}; {PROXY_FORM}"))
            })?
            .pop(),
        })
    }
}

const PROXY_FORM: &str = "a proxy is http://HOST:PORT, without a user, a password or a path";

fn parse_all<T>(
    key: &'static str,
    entries: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, InvalidRule> {
    let parsed = entries.iter().map(|entry| {
        parse(entry).map_err(|fault| InvalidRule { key, entry: entry.clone(), fault })
    });
    parsed.collect()
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("http://") {
            return rest.parse().map(Self::Plain);
        }
        if text.contains("://") {
            return Err("https needs no rule of its own: name the host".to_owned());
        }
        if text.contains('/') {
            return text.parse().map(Self::Addresses);
        }
        Ok(match text.parse()? {
            Host::Address(address) => Self::Addresses(address.into()),
            host @ Host::Name(_) => Self::Host(host),
        })
    }
}

impl Rule {
    fn names(&self, destination: &Destination) -> bool {
        match self {
            Self::Addresses(_) => false,
            Self::Host(host) => *host == destination.at.host,
            Self::Plain(at) => destination.is_plain && *at == destination.at,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        matches!(self, Self::Addresses(range) if range.contains(address))
    }
}

impl Rules {
    /// True if a destination may be asked by its name and scheme. Its addresses are decided by [`decide`].
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_name(&self, destination: &Destination) -> Result<(), Denial> {
        let is_named = |rules: &[Rule]| rules.iter().any(|rule| rule.names(destination));
        let is_plain_allowed = || {
            let mut plain = self.allowed.iter().filter(|rule| matches!(rule, Rule::Plain(_)));
            plain.any(|rule| rule.names(destination))
        };
        match () {
            () if is_named(&self.denied) => Err(Denial::Configured),
            () if destination.is_plain && !is_plain_allowed() => Err(Denial::Plain),
            () => Ok(()),
        }
    }

    /// True if `allow` names this destination itself: its name, its one address, or `http://HOST:PORT`.
    pub(super) fn is_named(&self, destination: &Destination) -> bool {
        let address = match &destination.at.host {
            Host::Address(address) if !destination.is_plain => {
                Some(Rule::Addresses((*address).into()))
            }
            _ => None,
        };
        let mut allowed = self.allowed.iter();
        allowed.any(|rule| rule.names(destination) || Some(rule) == address.as_ref())
    }

    /// The proxy, if this destination is reached through it: an allowed name, with TLS.
    pub(super) fn proxy_for(&self, destination: &Destination) -> Option<&HostAndPort> {
        let is_name = matches!(destination.at.host, Host::Name(_)) && !destination.is_plain;
        let is_through = is_name && self.allowed.iter().any(|rule| rule.names(destination));
        self.proxy.as_ref().filter(|_| is_through)
    }

    /// The number of entries of `allow` and `deny`, and the proxy: for reports.
    pub fn summary(&self) -> (usize, usize, Option<String>) {
        (self.allowed.len(), self.denied.len(), self.proxy.as_ref().map(ToString::to_string))
    }
}

/// Why a destination is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The configuration denies it.
    Configured,
    /// It is an address of this host.
    Own,
    /// It takes plain HTTP, or another protocol without TLS.
    Plain,
    /// It is a private address, and a step sees the reply.
    Private,
    /// It is in a range that is for no upstream: loopback, link-local, metadata, multicast.
    Reserved,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "the configuration denies it (egress.deny)",
            Self::Own => "it is an address of this host; egress.allow can allow it",
            Self::Plain => {
                "plain HTTP is denied, as is every connection without TLS; use TLS, or add http://HOST:PORT to egress.allow"
            }
            Self::Private => {
                "it is a private address, and a step would see the reply; egress.allow can allow it"
            }
            Self::Reserved => {
                "it is a loopback, link-local, metadata or multicast address; egress.allow can allow it"
            }
        })
    }
}

/// Decides whether an address of a destination may be dialled. `own` are addresses of this host, among the
/// [`readings`] of the address. `is_private_denied` is true if a step sees the reply.
///
/// # Errors
/// Why not.
pub fn decide(
    rules: &Rules,
    destination: &Destination,
    address: IpAddr,
    own: &[IpAddr],
    is_private_denied: bool,
) -> Result<(), Denial> {
    let readings = readings(address);
    let is_denied = |reading: &IpAddr| rules.denied.iter().any(|rule| rule.contains(*reading));
    rules.check_name(destination)?;
    if readings.iter().any(is_denied) {
        return Err(Denial::Configured);
    }
    if rules.allowed.iter().any(|rule| rule.names(destination) || rule.contains(address)) {
        return Ok(());
    }
    let is_allowed = |reading: &IpAddr| rules.allowed.iter().any(|rule| rule.contains(*reading));
    let is_in = |ranges: &[Cidr], reading: &IpAddr| ranges.iter().any(|one| one.contains(*reading));
    for reading in readings.iter().filter(|reading| !is_allowed(reading)) {
        if is_in(&RESERVED, reading) {
            return Err(Denial::Reserved);
        }
        if own.contains(reading) {
            return Err(Denial::Own);
        }
        if is_private_denied && is_in(&PRIVATE, reading) {
            return Err(Denial::Private);
        }
    }
    Ok(())
}
