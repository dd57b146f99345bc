//! A socket that listens, of this host or of a network, and who connects to it.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UnixListener};

use super::refused::ConnectionRefusal;
use crate::identity::socket::{Origin, Socket};

/// A socket that listens.
pub enum Listener {
    /// Of this host.
    Unix(UnixListener),
    /// Of a network.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    /// Accepts the next connection. Over TCP the small frames of HTTP/2 are sent at once.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Without it, frames are sent later and nothing else is wrong.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(address)))
            }
        }
    }
}

/// Who connects, as far as the kernel knows before the handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Newcomer {
    /// A process of this host.
    Process(PeerProcess),
    /// An address of a network.
    Address(SocketAddr),
}

/// The process behind a connection, as the kernel recorded it at connect time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerProcess {
    /// The Unix user.
    pub(crate) uid: u32,
    /// The process id; 0 for every process outside of the daemon's PID namespace.
    pub(crate) process: i32,
}

impl Newcomer {
    /// Who is at the other end of a socket. `uid` is the only Unix user that may be; `None` for any user.
    ///
    /// # Errors
    /// The refusal, and the origin if it is known: the system gives no credentials, or the user is another.
    pub(super) fn of(
        socket: &Socket,
        address: Option<SocketAddr>,
        uid: Option<u32>,
    ) -> Result<Self, (ConnectionRefusal, Option<Origin>)> {
        let unknown = (ConnectionRefusal::NoCredentials, None);
        let stream = match (socket, address) {
            (Socket::Unix(stream), _) => stream,
            (Socket::Tcp(_), Some(address)) => return Ok(Self::Address(address)),
            (Socket::Tcp(_), None) => return Err(unknown),
        };
        let credentials = stream.peer_cred().map_err(|_| unknown)?;
        let (found, process) = (credentials.uid(), credentials.pid().unwrap_or_default());
        match uid {
            Some(uid) if uid != found => {
                Err((ConnectionRefusal::OtherUser, Some(Origin::Unix(found))))
            }
            _ => Ok(Self::Process(PeerProcess { uid: found, process })),
        }
    }

    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Process(PeerProcess { uid, .. }) => Origin::Unix(uid),
            Self::Address(address) => Origin::Tcp(address),
        }
    }
}
