//! The principal behind a certificate, and the roles that requests need.

use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::catalog::Registered;
use crate::identity::{CertificateRefusal, Origin, Svid};
use crate::journal::{LiveOpening, NotAccepted};
use crate::model::{ExecutorName, Id, SpiffeId, Timestamp};

impl Broker {
    /// The principal behind a certificate on the admin door. Checked at every request: removal and replacement count
    /// at once, on open connections too.
    ///
    /// # Errors
    /// If the certificate is not pinned, has expired, or is a local executor's and this user is neither root nor the
    /// daemon's own; over TCP, if it is not that of an operator who may connect so.
    pub fn admin_principal(&self, svid: &Svid, origin: Origin) -> Result<Principal, Error> {
        let snapshot = self.snapshot();
        let registration = match &svid.id {
            SpiffeId::Executor(name) => snapshot.catalog.executor(name),
            SpiffeId::Operator(name) => snapshot.catalog.operator(name),
            SpiffeId::Broker(_) | SpiffeId::Step { .. } => None,
        };
        let registration = registration.ok_or(Error::Unregistered)?;
        let mut pinned = registration.certificates.iter();
        let pinned =
            pinned.find(|pinned| pinned.sha256 == svid.sha256).ok_or(Error::Unregistered)?;
        if self.now() >= pinned.not_after {
            return Err(Error::NotAccepted(NotAccepted::CertificateExpired));
        }
        match origin {
            Origin::Tcp(_) if !registration.remote => return Err(Error::NotRemote),
            Origin::Tcp(_) => {}
            Origin::Unix(uid) => {
                let is_local = uid == 0 || uid == rustix::process::geteuid().as_raw();
                if registration.local_only && !is_local {
                    return Err(Error::Unregistered);
                }
            }
        }
        let uid = registration.uid;
        Ok(match (&registration.who, registration.role) {
            (Registered::Executor(name), _) => Principal::Executor(name.clone(), uid),
            (Registered::Operator(name), role) => {
                Principal::Operator(name.clone(), role.unwrap_or(Role::Viewer), uid)
            }
        })
    }

    /// Takes one request from the rate of an operator or executor. All certificates of a name share one rate.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] if none is left.
    pub fn take_admin_request(&self, who: &SpiffeId) -> Result<(), Error> {
        let (now, limit) = (self.now().millis(), self.limits.admin_requests());
        let taken = self.requests.ask(who, now, |rate| rate.take(now, limit));
        taken.map_err(Error::TooManyRequests)
    }

    /// Checks that a peer with this certificate may connect to the admin door from this origin.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn check_admin_certificate(
        &self,
        svid: &Svid,
        origin: Origin,
    ) -> Result<(), CertificateRefusal> {
        self.admin_principal(svid, origin).map(drop).map_err(|error| match error {
            Error::NotRemote => CertificateRefusal::WrongSocket,
            Error::NotAccepted(NotAccepted::CertificateExpired) => CertificateRefusal::Expired,
            _ => CertificateRefusal::Unknown,
        })
    }

    /// Checks that a peer with this certificate may connect to the socket of an opening.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn check_step_certificate(
        &self,
        opening: &LiveOpening,
        svid: &Svid,
    ) -> Result<(), CertificateRefusal> {
        check_step(opening, svid, self.now()).map_err(|refusal| match refusal {
            NotAccepted::CertificateExpired => CertificateRefusal::Expired,
            NotAccepted::CertificateUnknown => CertificateRefusal::WrongSocket,
            NotAccepted::NotOpen => CertificateRefusal::Unknown,
        })
    }

    /// Checks that a request with this certificate is accepted on the socket of an opening.
    ///
    /// # Errors
    /// [`Error::NotAccepted`] with the reason.
    pub fn check_step(&self, opening: &LiveOpening, svid: &Svid) -> Result<(), Error> {
        Ok(check_step(opening, svid, self.now())?)
    }
}

/// Checks that the opening is open, that the certificate is pinned for it, and that it names the opening's step.
fn check_step(opening: &LiveOpening, svid: &Svid, now: Timestamp) -> Result<(), NotAccepted> {
    opening.accepts(&svid.sha256, now)?;
    match opening.record().key.is_of(&svid.id) {
        true => Ok(()),
        false => Err(NotAccepted::CertificateUnknown),
    }
}

/// Refuses callers that are no operators.
pub(crate) fn require_operator(caller: &Principal) -> Result<(), Error> {
    match caller {
        Principal::Operator(..) => Ok(()),
        _ => Err(Error::OperatorRequired),
    }
}

/// Refuses callers that are no operators with at least this role.
pub(crate) fn require_role(caller: &Principal, needed: Role) -> Result<(), Error> {
    match caller {
        Principal::Operator(_, role, _) if *role >= needed => Ok(()),
        Principal::Operator(..) => Err(Error::RoleRequired(needed)),
        _ => Err(Error::OperatorRequired),
    }
}

/// An executor, by its registration: a later registration of the same name has another uid.
pub(crate) struct Executor {
    pub(crate) name: ExecutorName,
    pub(crate) uid: Id,
}

/// The calling executor, or a refusal.
pub(crate) fn require_executor(caller: &Principal) -> Result<Executor, Error> {
    match caller {
        Principal::Executor(name, uid) => Ok(Executor { name: name.clone(), uid: *uid }),
        _ => Err(Error::ExecutorRequired),
    }
}

/// The executor whose steps and runs the caller sees; `None` for all, which operators see.
pub(crate) fn seen_by(caller: &Principal) -> Result<Option<Executor>, Error> {
    match caller {
        Principal::Operator(..) => Ok(None),
        _ => require_executor(caller).map(Some),
    }
}
