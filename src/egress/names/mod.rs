//! A stub resolver. `getaddrinfo` would have the static program load libraries of the host.
//!
//! `/etc/hosts` comes first, then the name servers of `/etc/resolv.conf`. Both are read anew for each look-up. Nothing is
//! cached, because a look-up is followed by an exchange that takes longer.

mod ask;
mod hosts;
mod message;
mod resolv_conf;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::ask::{Answer, Failure, ask};
use self::resolv_conf::ResolvConf;
use super::EgressError;
use super::destination::HostAndPort;
use crate::sys::input;

/// The most names that are looked up at once. Others wait.
const LOOK_UPS: usize = 8;
/// How long a look-up may take once it has its place.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest of the two files, in bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The most addresses that a look-up returns.
const MAX_ADDRESSES: usize = 16;

/// Resolves names.
pub(super) struct Resolver {
    system: Arc<System>,
    /// The look-ups that run, by name. Whoever asks for the same name waits for the same look-up, so that a zone whose
    /// servers are silent holds one place, however many ask for it.
    running: Mutex<HashMap<String, WeakShared<LookUp>>>,
}

/// A look-up. It ends when nobody waits for it any more.
type LookUp = BoxFuture<'static, Result<Vec<IpAddr>, Arc<Failure>>>;

/// What the system says about names.
struct System {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// The port of name servers.
    port: u16,
    places: Semaphore,
}

impl Resolver {
    pub(super) fn of_system() -> Self {
        Self::new("/etc/hosts".into(), RESOLV_CONF.into(), 53)
    }

    pub(super) fn new(hosts: PathBuf, resolv_conf: PathBuf, port: u16) -> Self {
        let system = System { hosts, resolv_conf, port, places: Semaphore::new(LOOK_UPS) };
        Self { system: Arc::new(system), running: Mutex::default() }
    }

    /// The addresses of a name in lower case: one of IPv6, one of IPv4 and so on, at most 16. Never empty. It takes at most
    /// 2 seconds once a place is free; how long it waits for the place is up to the caller.
    ///
    /// # Errors
    /// If it has none, or no name server answers.
    pub(super) async fn look_up(
        &self,
        name: &str,
        at: &HostAndPort,
    ) -> Result<Vec<IpAddr>, EgressError> {
        // RFC 6761: such a name never leaves the host.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let unavailable = |fault: &str| EgressError::unavailable(at, fault);
        self.join(name).await.map_err(|failure| match &*failure {
            Failure::NoAddress => unavailable("the name has no address"),
            Failure::Refused => unavailable("the name servers fail to resolve the name"),
            Failure::System(error) => EgressError::of_system(at, error),
            Failure::Silent => {
                unavailable("no name server of /etc/resolv.conf answers about the name")
            }
        })
    }

    /// The look-up of a name: the one that runs, else a new one.
    fn join(&self, name: &str) -> Shared<LookUp> {
        let mut running = self.running.lock();
        if let Some(found) = running.get(name).and_then(WeakShared::upgrade) {
            return found;
        }
        running.retain(|_, one| one.upgrade().is_some());
        let (system, asked) = (Arc::clone(&self.system), name.to_owned());
        let look_up = async move { system.look_up(&asked).await.map_err(Arc::new) };
        let look_up = look_up.boxed().shared();
        running.extend(look_up.downgrade().map(|weak| (name.to_owned(), weak)));
        look_up
    }
}

impl System {
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        // The places are never closed.
        let _place = self.places.acquire().await.map_err(|_| Failure::Silent)?;
        let in_time = tokio::time::timeout(LOOK_UP_TIMEOUT, self.ask(name)).await;
        in_time.unwrap_or(Err(Failure::Silent))
    }

    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let listed = hosts::addresses(&read(&self.hosts), name);
        if !listed.is_empty() {
            return Ok(alternating(listed));
        }
        let config = ResolvConf::parse(&read(&self.resolv_conf));
        let mut failure = None;
        for name in config.names(name) {
            match ask(&config, &name, self.port).await {
                Ok(Answer::Addresses(found)) if !found.is_empty() => return Ok(alternating(found)),
                Ok(_) => {}
                Err(other) => failure = failure.or(Some(other)),
            }
        }
        Err(failure.unwrap_or(Failure::NoAddress))
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The addresses of this system's name servers.
pub fn name_servers() -> Vec<IpAddr> {
    ResolvConf::parse(&read(Path::new(RESOLV_CONF))).servers
}

/// The text of a file; empty if it cannot be read, as the C library has it.
fn read(path: &Path) -> String {
    let text = input::file(path, MAX_FILE_BYTES);
    text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// IPv6 and IPv4 in turn, so that one that leads nowhere delays the other little.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let longest = six.len().max(four.len());
    let pairs = (0..longest).flat_map(|n| [six.get(n), four.get(n)]);
    pairs.flatten().copied().take(MAX_ADDRESSES).collect()
}
