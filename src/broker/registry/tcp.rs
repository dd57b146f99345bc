//! Operators over TCP: the door for them, and who may use it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{find, note};
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::changes::documents::{WriteOptions, WriteRequest};
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::catalog::{Catalog, Registered, Registration, Resource};
use crate::model::{BrokerId, HostName, HostPort, OperatorName};

/// The door for operators over TCP.
#[derive(Clone, Debug)]
pub struct TcpDoor {
    /// The address that it listens at.
    pub listens: SocketAddr,
    /// The hosts as which it is served; at least one.
    pub hosts: Vec<HostName>,
    /// Where operators find it: the first of the hosts, and the port.
    pub address: HostPort,
    /// The broker, as its certificate names it.
    pub broker: BrokerId,
}

impl Broker {
    /// The door for operators over TCP; `None` if there is none.
    pub fn tcp_door(&self) -> Option<&TcpDoor> {
        self.tcp_door.as_ref()
    }

    pub(super) fn require_tcp_door(&self) -> Result<&TcpDoor, Error> {
        self.tcp_door().ok_or(Error::NoTcpDoor)
    }

    /// Lets an operator connect over TCP, or no longer. If no longer, its connections over TCP end at once.
    ///
    /// # Errors
    /// See `OperatorService.UpdateOperator`.
    pub async fn set_remote(
        &self,
        caller: Principal,
        name: OperatorName,
        remote: bool,
        options: WriteOptions,
    ) -> Result<Registration, Error> {
        require_role(&caller, Role::Administrator)?;
        if remote {
            self.require_tcp_door()?;
        }
        let request = WriteRequest::new(&caller, options);
        let who = Registered::Operator(name);
        let changed = who.clone();
        let change = move |draft: &mut Draft| {
            let found = find(draft.catalog(), &who)?;
            if found.remote == remote {
                return Ok(());
            }
            let revision = found.revision + 1;
            let changed = Registration { remote, revision, ..found };
            let mut note = note(&caller.to_string(), "update", &changed);
            note.settings = vec![format!("remote={remote}")];
            draft.note(note);
            draft.put(Resource::Registration(Arc::new(changed)));
            Ok(())
        };
        self.writer.write(request, change, move |catalog: &Catalog| find(catalog, &changed)).await
    }
}
