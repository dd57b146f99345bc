//! `exec --serve`: one HTTP address on this machine, for the life of one command.
//!
//! Other users of the machine can reach the address. So a connection must come from this user, and every request must
//! carry a token that only the command has. A request must also name this address as its host, which a web page cannot
//! do. At an address for containers, whose users the kernel does not report, the token alone protects.

mod answer;
mod aws;
mod broker;
mod handler;
mod outputs;
mod peer;
mod relay;
mod relay_api;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use relay::RelayInput;

use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::mask::Masks;
use crate::model::Reference;
use crate::sys::local_http::{HttpLimits, accept, serve_connection};
use aws::AwsEndpoint;
use broker::MaskedBroker;
use handler::ListenerState;
use relay::Relay;

/// The most open connections. More connections wait.
const MAX_CONNECTIONS: usize = 64;
const LIMITS: HttpLimits = HttpLimits {
    head_timeout: Duration::from_secs(5),
    timeout: Duration::from_secs(20),
    max_head_bytes: 64 * 1024,
    max_headers: 100,
};
/// The length of a token, in random bytes.
const TOKEN_BYTES: usize = 32;

/// What is served at the address.
#[derive(Debug, PartialEq, Eq)]
pub enum HttpServed {
    /// The container credentials endpoint of AWS, for this connection.
    Aws(Reference),
    /// Puppet Relay's metadata API.
    Relay,
}

/// An address that is served until this is dropped.
pub struct Listener {
    shared: Arc<ListenerState>,
    serving: JoinHandle<()>,
}

impl Listener {
    /// Opens an address, for one user or for the user of this process. Resolves the connection of `--serve aws` once,
    /// so that a refusal shows before the command runs.
    pub async fn start(
        served: Vec<HttpServed>,
        relay: Option<RelayInput>,
        session: Arc<Session>,
        masks: Option<Arc<Masks>>,
        (address, uid): (SocketAddrV4, Option<u32>),
    ) -> Result<Self, Failure> {
        let broker = Arc::new(MaskedBroker { session, masks: masks.clone() });
        let mut aws = None;
        for served in served {
            match served {
                HttpServed::Aws(_) if aws.is_some() => {
                    return Err(Failure::usage(
                        "--serve aws is given twice; a command has one account",
                    ));
                }
                HttpServed::Aws(reference) => {
                    aws = Some(AwsEndpoint::open(reference, Arc::clone(&broker)).await?);
                }
                HttpServed::Relay => {}
            }
        }
        let relay = match relay {
            Some(input) => Some(Relay::open(input, broker).await?),
            None => None,
        };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let text = format!(
                "nothing can be served at {address} ({error}); name an address of this machine"
            );
            Failure::new("ADDRESS", text, exit::FAILED)
        })?;
        let address = SocketAddrV4::new(*address.ip(), listener.local_addr()?.port());
        let token = token()?;
        if let Some(masks) = masks {
            masks.add(token.as_bytes())?;
        }
        let shared = Arc::new(ListenerState { token, address, aws, relay });
        let uid = uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let serving = tokio::spawn(serve(listener, uid, Arc::clone(&shared)));
        Ok(Self { shared, serving })
    }

    /// The variables by which tools find the address.
    pub fn variables(&self) -> Vec<(String, String)> {
        let ListenerState { token, address, aws, relay } = self.shared.as_ref();
        let mut variables = Vec::new();
        if let Some(aws) = aws {
            variables.extend(aws.variables(*address, token));
        }
        if relay.is_some() {
            let url = format!("http://:{}@{address}", token.as_str());
            variables.push(("METADATA_API_URL".to_owned(), url));
        }
        variables
    }

    /// The IP address alone.
    pub fn host(&self) -> String {
        self.shared.address.ip().to_string()
    }

    /// Variables that tools would prefer to those of [`Listener::variables`].
    pub fn shadowing(&self) -> Vec<String> {
        self.shared.aws.as_ref().map(|_| aws::shadowing()).unwrap_or_default()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Parses `IP` or `IP:PORT`, where IP is one address. The port is 0 if it is missing.
pub fn parse_address(text: &str) -> Result<SocketAddrV4, String> {
    let port_0 = |ip: Ipv4Addr| SocketAddrV4::new(ip, 0);
    match text.parse().or_else(|_| text.parse().map(port_0)) {
        Ok(address) if !address.ip().is_unspecified() => Ok(address),
        _ => Err("write one IPv4 address of this machine, such as 172.17.0.1 or 172.17.0.1:8080"
            .to_owned()),
    }
}

fn token() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| Failure::new("INTERNAL", "no random numbers", exit::FAILED))?;
    Ok(Zeroizing::new(hex::encode(bytes.as_slice())))
}

async fn serve(listener: TcpListener, uid: u32, shared: Arc<ListenerState>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, peer) = accept(&listener).await;
        // Connections of other users must not take a slot.
        if !peer::is_of(uid, peer, shared.address) {
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve_connection(stream, LIMITS, |request| handler::answer(&shared, request)).await;
            drop(slot);
        });
    }
}
