//! `exec --serve`: one HTTP address on this machine, for the life of one command.
//!
//! Other users of the machine can reach the address. So a connection must come from this user, and every request must
//! carry a token that only the command has: in a header, or in the path below which requests are forwarded. A request must also name this address as its host, which a web page cannot
//! do. At an address for containers, whose users the kernel does not report, the token alone protects.

mod answer;
mod aws;
mod broker;
mod forward;
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

pub use forward::{GitAddress, HttpAddress, inherited_entries};
pub use relay::RelayInput;

use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::step::send::SendTarget;
use crate::mask::Masks;
use crate::model::Reference;
use crate::sys::local_http::{HttpLimits, accept, serve_connection};
use aws::AwsEndpoint;
use broker::MaskedBroker;
use forward::{Forward, git_variables, http_variables};
use handler::ListenerState;
use relay::Relay;

/// The most open connections. More connections wait.
const MAX_CONNECTIONS: usize = 128;
const LIMITS: HttpLimits = HttpLimits {
    head_timeout: Duration::from_secs(5),
    timeout: Some(Duration::from_secs(20)),
    max_head_bytes: 64 * 1024,
    max_headers: 100,
};
/// Clients keep a connection for their next request. The broker bounds how long an answer takes.
const FORWARDING: HttpLimits =
    HttpLimits { head_timeout: Duration::from_secs(60), timeout: None, ..LIMITS };
/// The length of a token, in random bytes.
const TOKEN_BYTES: usize = 32;

/// What is served at the address.
#[derive(Debug, PartialEq, Eq)]
pub enum HttpServed {
    /// An upstream's API, with a credential that the command does not get.
    Api(HttpAddress),
    /// The container credentials endpoint of AWS, for this connection.
    Aws(Reference),
    /// Repositories of a host, with a credential that git does not get.
    Git(GitAddress),
    /// Puppet Relay's metadata API.
    Relay,
}

/// Where to serve, and for whom.
#[derive(Clone, Copy)]
pub struct Place {
    pub address: SocketAddrV4,
    /// The user that the command runs as. `None` for the user of this process.
    pub uid: Option<u32>,
    /// The number of entries of git's configuration that the command inherits by its environment.
    pub git_entries: usize,
}

/// An address that is served until this is dropped.
pub struct Listener {
    shared: Arc<ListenerState>,
    /// The variables of the forwards.
    forwarding: Vec<(String, String)>,
    serving: JoinHandle<()>,
}

impl Listener {
    /// Opens an address. Resolves the connection of `--serve aws` once, so that a refusal shows before the command runs.
    pub async fn start(
        served: Vec<HttpServed>,
        relay: Option<RelayInput>,
        session: Arc<Session>,
        masks: Option<Arc<Masks>>,
        place: Place,
    ) -> Result<Self, Failure> {
        let Sorted { aws, git, apis } = Sorted::of(served)?;
        let broker = Arc::new(MaskedBroker { session: Arc::clone(&session), masks });
        let aws = match aws {
            Some(reference) => Some(AwsEndpoint::open(reference, Arc::clone(&broker)).await?),
            None => None,
        };
        let relay = match relay {
            Some(input) => Some(Relay::open(input, Arc::clone(&broker)).await?),
            None => None,
        };
        let (listener, address) = bind(place.address).await?;
        let mut forwards = Vec::new();
        let mut forward = |target: SendTarget| {
            let forward = Forward::new(token(&broker)?, target, Arc::clone(&session));
            let url = format!("http://{address}{}", forward.path());
            forwards.push(forward);
            Ok::<_, Failure>(url)
        };
        let git = git.into_iter().map(|address| {
            let target = SendTarget::new(&address.reference, address.service())?;
            Ok::<_, Failure>((address, forward(target)?))
        });
        let git = git_variables(&git.collect::<Result<Vec<_>, _>>()?, place.git_entries);
        let apis = apis.into_iter().map(|address| {
            let target = SendTarget::new(&address.reference, "")?;
            Ok::<_, Failure>((address, forward(target)?))
        });
        let apis = http_variables(&apis.collect::<Result<Vec<_>, _>>()?)?;
        let token = token(&broker)?;
        let shared = Arc::new(ListenerState { token, address, aws, relay, forwards });
        let uid = place.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let serving = tokio::spawn(serve(listener, uid, Arc::clone(&shared)));
        Ok(Self { shared, forwarding: [git, apis].concat(), serving })
    }

    /// The variables by which tools find the address. Two of a name have two values.
    pub fn variables(&self) -> Vec<(String, String)> {
        let ListenerState { token, address, aws, relay, .. } = self.shared.as_ref();
        let mut variables = self.forwarding.clone();
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

/// The addresses of a command, by what they serve.
#[derive(Default)]
struct Sorted {
    aws: Option<Reference>,
    git: Vec<GitAddress>,
    apis: Vec<HttpAddress>,
}

impl Sorted {
    fn of(all: Vec<HttpServed>) -> Result<Self, Failure> {
        let mut sorted = Self::default();
        for served in all {
            match served {
                HttpServed::Aws(_) if sorted.aws.is_some() => {
                    return Err(Failure::usage(
                        "--serve aws is given twice; a command has one account",
                    ));
                }
                HttpServed::Api(address) => sorted.apis.push(address),
                HttpServed::Aws(reference) => sorted.aws = Some(reference),
                HttpServed::Git(address) => sorted.git.push(address),
                HttpServed::Relay => {}
            }
        }
        Ok(sorted)
    }
}

async fn bind(address: SocketAddrV4) -> Result<(TcpListener, SocketAddrV4), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let text = format!(
            "nothing can be served at {address} ({error}); name an address of this machine"
        );
        Failure::new("ADDRESS", text, exit::FAILED)
    })?;
    let port = listener.local_addr()?.port();
    Ok((listener, SocketAddrV4::new(*address.ip(), port)))
}

/// A new token. It is masked in what the command prints.
fn token(broker: &MaskedBroker) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| Failure::new("INTERNAL", "no random numbers", exit::FAILED))?;
    let token = Zeroizing::new(hex::encode(bytes.as_slice()));
    if let Some(masks) = &broker.masks {
        masks.add(token.as_bytes())?;
    }
    Ok(token)
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
            // Without it, the head of a request waits for the acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            let limits = if shared.forwards.is_empty() { LIMITS } else { FORWARDING };
            serve_connection(stream, limits, |request| handler::answer(&shared, request)).await;
            drop(slot);
        });
    }
}
