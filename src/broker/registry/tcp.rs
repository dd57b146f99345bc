//! Operators over TCP: the door for them, and who may use it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{find, note};
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::changes::documents::{WriteOptions, WriteRequest};
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_role;
use crate::catalog::{Catalog, Registered, Registration, Resource};
use crate::identity::{Origin, Svid};
use crate::journal::{Event, LoginLine};
use crate::model::{BrokerId, HostName, HostPort, Id, LogLimit, OperatorName, Recent};

/// The logins that are remembered, and how long a further one from the same address has no line.
const MAX_LOGINS: usize = 1024;
const ONE_LINE_FOR: Duration = Duration::from_secs(60);

/// The operators that have a line about their login, each with its address.
pub(crate) struct Logins(Mutex<Recent<(Id, IpAddr)>>);

impl Default for Logins {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MAX_LOGINS, ONE_LINE_FOR)))
    }
}

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

    /// Notes in the journal that an operator has connected over TCP: a line for each operator and address, at most once a
    /// minute, of the operator's budget of lines. A journal that takes no line keeps no operator out.
    ///
    /// # Errors
    /// If this certificate is not accepted over TCP any more, or its operator has no line left.
    pub fn note_login(&self, svid: &Svid, origin: Origin) -> Result<(), Error> {
        static LIMIT: LogLimit = LogLimit::new(1);
        let Some(address) = origin.address().map(|address| address.ip().to_canonical()) else {
            return Ok(());
        };
        let caller = self.admin_principal(svid, origin)?;
        let Principal::Operator(_, _, uid) = &caller else { return Err(Error::OperatorRequired) };
        let (now, login) = (self.now(), (*uid, address));
        if self.logins.0.lock().has(now.millis(), &login) {
            return Ok(());
        }
        self.writer.budgets.take(&caller, "login", now)?;
        let principal = caller.to_string();
        match self.journal.append(now, &Event::LoggedIn(LoginLine { principal, address })) {
            Ok(_) => self.logins.0.lock().note(now.millis(), login),
            Err(error) => {
                if let Some(suppressed) = LIMIT.allow() {
                    tracing::error!(principal = %caller, %address, %error, suppressed, "a login could not be journaled");
                }
            }
        }
        Ok(())
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
