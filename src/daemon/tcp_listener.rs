//! The TCP listener for operators, if the configuration asks for it.

use std::net::TcpListener as StdTcpListener;

use rustix::io::Errno;
use tokio::net::TcpListener;

use super::DaemonError;
use crate::broker::TcpDoor;
use crate::config::AdminListen;
use crate::model::{BrokerId, HostPort};

/// How many connections wait in the kernel, if the system allows as many.
const BACKLOG: i32 = 4096;

/// An address where operators may connect, and none is served yet.
pub(super) struct OperatorListener {
    listener: StdTcpListener,
    door: TcpDoor,
}

impl OperatorListener {
    /// Listens at an address of this host; port 0 is any that is free.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub(super) fn bind(config: &AdminListen, broker: BrokerId) -> Result<Self, DaemonError> {
        let AdminListen { address, hosts } = config;
        let failed = |source| DaemonError::AdminListener { address: *address, source };
        let listener = StdTcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        rustix::net::listen(&listener, BACKLOG).map_err(|error| failed(error.into()))?;
        let listens = listener.local_addr().map_err(failed)?;
        let host = hosts.first().cloned().ok_or_else(|| failed(Errno::INVAL.into()))?;
        let address = HostPort { host, port: listens.port() };
        let door = TcpDoor { listens, hosts: hosts.clone(), address, broker };
        Ok(Self { listener, door })
    }

    pub(super) fn door(&self) -> &TcpDoor {
        &self.door
    }

    /// The listener, on the runtime that this is called on.
    ///
    /// # Errors
    /// If the runtime cannot take it.
    pub(super) fn listen(self) -> Result<TcpListener, DaemonError> {
        let listener = TcpListener::from_std(self.listener).map_err(DaemonError::Threads)?;
        tracing::info!(
            address = %self.door.listens, operators = %self.door.address, "operators are served over TCP"
        );
        Ok(listener)
    }
}
