//! What `exec --serve` opens: one address on this machine, for the life of one command.
//!
//! Other users of the machine can reach it, too. So a connection must be of this user's, every request carries a
//! token that only the command has, and it names this address as its host: a page in a browser can be sent here, but
//! cannot say that. At an address that containers reach, whose users the kernel does not tell, the token has to do.

mod answer;
mod aws;
mod door;
mod outputs;
mod peer;
mod relay;
mod relay_api;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use relay::RelayInput;

use super::exec::{Masks, Served, mask_values};
use super::get::within;
use crate::cli::identity::session::Session;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use aws::Aws;
use relay::Relay;

/// How many connections there are at a time; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long all of it may take, with the broker's part.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the broker may take: AWS SDKs wait for one second or two.
const BROKER_PATIENCE: Duration = Duration::from_millis(1900);
/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How random a token is, in bytes.
const TOKEN_BYTES: usize = 32;

/// What the requests are answered from.
struct Shared {
    token: Zeroizing<String>,
    address: SocketAddrV4,
    aws: Option<Aws>,
    relay: Option<Relay>,
}

/// An address that is served until this is dropped.
pub struct Listener {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Listener {
    /// Opens it at an address, for one user or this process's own. What cannot be resolved at all fails here, before
    /// the command is run.
    ///
    /// # Errors
    /// As the broker's, or if there is no address to be had.
    pub async fn start(
        served: Vec<Served>,
        relay: Option<RelayInput>,
        session: Arc<Session>,
        masks: Option<Arc<Masks>>,
        (address, uid): (SocketAddrV4, Option<u32>),
    ) -> Result<Self, Failure> {
        let broker = Arc::new(Broker { session, masks: masks.clone() });
        let mut aws = None;
        for served in served {
            match served {
                Served::Aws(_) if aws.is_some() => {
                    return Err(Failure::usage(
                        "--serve aws is given twice; a command has one account",
                    ));
                }
                Served::Aws(reference) => {
                    aws = Some(Aws::open(reference, Arc::clone(&broker)).await?);
                }
                Served::Relay => {}
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
        let shared = Arc::new(Shared { token, address, aws, relay });
        let uid = uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let serving = tokio::spawn(serve(listener, uid, Arc::clone(&shared)));
        Ok(Self { shared, serving })
    }

    /// The variables by which tools find it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let Shared { token, address, aws, relay } = self.shared.as_ref();
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

    /// The host of its address.
    pub fn host(&self) -> String {
        self.shared.address.ip().to_string()
    }

    /// The variables that tools prefer to those.
    pub fn shadowing(&self) -> Vec<String> {
        self.shared.aws.as_ref().map(|_| aws::shadowing()).unwrap_or_default()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The broker, and the masks of what it has given.
struct Broker {
    session: Arc<Session>,
    masks: Option<Arc<Masks>>,
}

impl Broker {
    async fn resolve(
        &self,
        reference: &crate::model::Reference,
        fields: Vec<String>,
    ) -> Result<super::credential::Credential, Failure> {
        let credential = within(BROKER_PATIENCE, self.session.resolve(reference, fields)).await?;
        // Before the command can print it.
        mask_values(self.masks.as_deref(), &credential)?;
        Ok(credential)
    }

    /// Says something that may name what a value was part of.
    fn say(&self, text: &str) {
        match &self.masks {
            Some(masks) => say(&masks.masked(text)),
            None => say(text),
        }
    }
}

/// `IP` or `IP:PORT`, of one address.
pub fn parse_place(text: &str) -> Result<SocketAddrV4, String> {
    let place = text.parse().or_else(|_| text.parse().map(|ip: Ipv4Addr| SocketAddrV4::new(ip, 0)));
    match place {
        Ok(place) if !place.ip().is_unspecified() => Ok(place),
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

async fn serve(listener: TcpListener, uid: u32, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors: one that is closed makes room.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Before a place is taken: nobody else can take them all.
        if !peer::is_of(uid, peer, shared.address) {
            continue;
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = service_fn(|request| door::answer(&shared, request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .keep_alive(false)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            // Who does not read or write in time has gone.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}
