//! Connects to an address that the rules allow, or to the proxy.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::EgressError;
use super::destination::{Destination, Host, HostAndPort};
use super::names::Resolver;
use super::own::is_own;
use super::rules::{Denial, Rules, decide, readings};

/// How long an address has before the next is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// The longest answer of a proxy, in bytes.
const MAX_PROXY_HEAD_BYTES: usize = 8192;

/// Dials by the rules.
pub(super) struct Dialler {
    rules: Rules,
    resolver: Resolver,
}

impl Dialler {
    pub(super) fn new(rules: Rules, resolver: Resolver) -> Self {
        Self { rules, resolver }
    }

    /// True if the configuration names this destination.
    pub(super) fn is_named(&self, destination: &Destination) -> bool {
        self.rules.is_named(destination)
    }

    /// The addresses to dial for a destination: its own, or the proxy's. None of them is checked yet.
    ///
    /// # Errors
    /// If the rules deny its name, or the name has no address.
    pub(super) async fn look_up(
        &self,
        destination: &Destination,
    ) -> Result<Vec<IpAddr>, EgressError> {
        self.rules.check_name(destination).map_err(|denial| denied(&destination.at, denial))?;
        let at = self.rules.proxy_for(destination).unwrap_or(&destination.at);
        match &at.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => self.resolver.look_up(name, at).await,
        }
    }

    /// Connects to a destination at one of the addresses that were looked up for it.
    ///
    /// # Errors
    /// If the rules deny the addresses, or none can be reached.
    pub(super) async fn dial(
        &self,
        destination: &Destination,
        addresses: Vec<IpAddr>,
        is_private_denied: bool,
    ) -> Result<TcpStream, EgressError> {
        let at = &destination.at;
        if let Some(proxy) = self.rules.proxy_for(destination) {
            let stream = connect_first(addresses, proxy, |_| Ok(())).await?;
            return through_proxy(stream, proxy, at).await;
        }
        let check = |address| self.check(destination, address, is_private_denied);
        connect_first(addresses, at, check).await
    }

    /// Decides about an address, with the addresses that this host has now.
    fn check(
        &self,
        destination: &Destination,
        address: IpAddr,
        is_private_denied: bool,
    ) -> Result<(), EgressError> {
        let mut own = Vec::new();
        for reading in readings(address) {
            match is_own(reading) {
                Ok(true) => own.push(reading),
                Ok(false) => {}
                Err(error) => return Err(EgressError::of_system(&destination.at, &error)),
            }
        }
        decide(&self.rules, destination, address, &own, is_private_denied)
            .map_err(|denial| denied(&destination.at, denial))
    }
}

fn denied(at: &HostAndPort, denial: Denial) -> EgressError {
    EgressError::Denied(format!("{at}: {denial}"))
}

/// Checks each address and connects to it. An address that is slow gets a rival. The first connection wins.
async fn connect_first(
    addresses: Vec<IpAddr>,
    at: &HostAndPort,
    check: impl Fn(IpAddr) -> Result<(), EgressError>,
) -> Result<TcpStream, EgressError> {
    let connect = async |address: IpAddr| {
        check(address)?;
        let stream = TcpStream::connect(SocketAddr::new(address, at.port)).await;
        let stream = stream.map_err(|error| EgressError::of_system(at, &error))?;
        stream.set_nodelay(true).map_err(|error| EgressError::of_system(at, &error))?;
        Ok(stream)
    };
    let (mut waiting, mut running) = (addresses.into_iter(), FuturesUnordered::new());
    let mut faults = Vec::new();
    loop {
        running.extend(waiting.next().map(&connect));
        match tokio::time::timeout(HEAD_START, running.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(fault))) => faults.push(fault),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    // An address that could not be reached says more than another that was denied.
    let reached = faults.iter().position(|fault| !matches!(fault, EgressError::Denied(_)));
    let fault = faults.into_iter().nth(reached.unwrap_or(0));
    Err(fault.unwrap_or_else(|| EgressError::unavailable(at, "the name has no address")))
}

/// Asks a proxy for a connection (RFC 9110, CONNECT).
async fn through_proxy(
    mut stream: TcpStream,
    proxy: &HostAndPort,
    at: &HostAndPort,
) -> Result<TcpStream, EgressError> {
    let failed = |error: std::io::Error| EgressError::of_system(proxy, &error);
    let asked = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.map_err(failed)?;
    let no_proxy = || EgressError::Unavailable(format!("{proxy}: it is no HTTP proxy"));
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read_buf(&mut answer).await.map_err(failed)?;
        if read == 0 || answer.len() > MAX_PROXY_HEAD_BYTES {
            return Err(no_proxy());
        }
    };
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match std::str::from_utf8(line).unwrap_or_default().split(' ').nth(1) {
        // The upstream speaks after us, so that nothing follows the head.
        Some(status) if is_status(status) && status.starts_with('2') => match answer.len() == end {
            true => Ok(stream),
            false => Err(no_proxy()),
        },
        Some(status) if is_status(status) => Err(EgressError::Unavailable(format!(
            "{proxy}: the proxy does not connect to {at}: status {status}"
        ))),
        _ => Err(no_proxy()),
    }
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && word.bytes().all(|c| c.is_ascii_digit())
}
