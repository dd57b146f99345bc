//! The only way out of the daemon: one bounded HTTP exchange with an upstream, one for a step that is streamed, or a connection to a server of another protocol.
//!
//! Names are resolved here, every address is checked, and a checked address is dialled. No redirect is followed.
//!
//! | file | holds |
//! |---|---|
//! | `rules` | where to: the configuration's rules, the ranges that are denied, the decision (pure) |
//! | `destination` | the public part of a URL |
//! | `names` | a stub resolver: `/etc/hosts`, `/etc/resolv.conf`, DNS |
//! | `own` | which addresses are this host's |
//! | `dial` | a connection to a checked address, or through the proxy |
//! | `tls` | TLS 1.2 and 1.3 with the system's roots or a connection's own |
//! | `exchange` | one request, one reply, within bounds |
//! | `call` | one exchange for a step, streamed both ways |

mod call;
mod destination;
mod dial;
mod error;
mod exchange;
mod names;
mod own;
mod rules;
#[cfg(test)]
mod tests;
mod tls;

pub use call::{
    Address, AnswerPiece, Answered, Call, Method, Outgoing, Pieces, StepGone, StepHeaders, SubPath,
    named_by_connection,
};
pub use destination::{Destination, Host, HostAndPort};
pub use error::EgressError;
pub use hyper::body::Bytes;

pub use exchange::{Headers, MAX_REPLY_BYTES, Reply, Request};
pub use names::name_servers;
pub use rules::{Denial, EgressTable, InvalidRule, Rules, decide, readings};
pub use tls::{ClientIdentity, Handshake, SecureStream, system_roots};

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::model::Value;

use self::call::Pool;
use self::dial::Dialler;
use self::names::Resolver;
use self::tls::Tls;

/// How long a connection to an upstream may take once its name is looked up: dial and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a whole exchange may take.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(7);

/// The way out, with its rules. The daemon has one.
pub struct Egress {
    dialler: Dialler,
    tls: Tls,
    pool: Arc<Pool>,
}

impl Egress {
    /// The way out by these rules. Nothing is read or opened before the first exchange.
    pub fn new(rules: Rules) -> Self {
        let dialler = Dialler::new(rules, Resolver::of_system());
        Self { dialler, tls: Tls::default(), pool: Arc::default() }
    }

    /// True if an entry of `egress.allow` names the host of this URL, or `http://HOST:PORT` of it. A range names no host.
    pub fn is_named(&self, url: &Value) -> bool {
        let destination = Destination::parse(url);
        destination.is_ok_and(|(destination, _)| self.dialler.is_named(&destination))
    }

    /// Sends one request and returns the reply, whatever its status is. Nothing is sent again.
    ///
    /// # Errors
    /// If the rules deny the destination, or the upstream does not answer in time and within bounds.
    pub async fn exchange(&self, request: Request) -> Result<Reply, EgressError> {
        let Request { method, url, headers, body, ca_certificate, is_private_denied, .. } = request;
        let most = request.max_reply_bytes;
        let (destination, path) = Destination::parse(&url)?;
        let message = exchange::message(method, &destination, path, headers, body)?;
        let at = &destination.at;
        let exchange = async {
            let addresses = self.dialler.look_up(&destination).await?;
            let connecting = async {
                let stream = self.dialler.dial(&destination, addresses, is_private_denied).await?;
                let ca_certificate = ca_certificate.as_deref();
                let protocol = b"http/1.1";
                let how =
                    Handshake { protocol, ca_certificate, is_any_name: false, identity: None };
                Ok(match destination.is_plain {
                    true => Connected::Plain(stream),
                    false => Connected::Secure(self.tls.connect(stream, at, &how).await?),
                })
            };
            match in_time(at, connecting).await? {
                Connected::Plain(stream) => exchange::send(stream, message, at, most).await,
                Connected::Secure(stream) => exchange::send(stream, message, at, most).await,
            }
        };
        let late = |_| EgressError::unavailable(at, "no reply within 7 seconds");
        tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await.map_err(late)?
    }
    /// Connects to a server of another protocol than HTTP. Nothing is sent. It takes at most 2 seconds once the name is looked
    /// up. Without TLS to come, the rules must permit the place as `http://HOST:PORT`.
    ///
    /// # Errors
    /// If the rules deny the destination, or it cannot be reached in time.
    pub async fn connect(&self, destination: &Destination) -> Result<TcpStream, EgressError> {
        let addresses = self.dialler.look_up(destination).await?;
        in_time(&destination.at, self.dialler.dial(destination, addresses, false)).await
    }

    /// Begins TLS on such a connection, when the server's protocol says so. It takes at most 2 seconds.
    ///
    /// # Errors
    /// If the server's certificate or TLS cannot be accepted, or it does not answer in time.
    pub async fn secure(
        &self,
        stream: TcpStream,
        at: &HostAndPort,
        how: &Handshake<'_>,
    ) -> Result<SecureStream, EgressError> {
        in_time(at, self.tls.connect(stream, at, how)).await
    }
}

/// A connection to an upstream of HTTP.
enum Connected {
    Plain(TcpStream),
    Secure(SecureStream),
}

/// Waits for a connection, or for TLS.
async fn in_time<T>(
    at: &HostAndPort,
    connecting: impl Future<Output = Result<T, EgressError>>,
) -> Result<T, EgressError> {
    let late = |_| EgressError::unavailable(at, "no connection within 2 seconds");
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?
}
