//! Who is behind a certificate on the admin door, and what its role lets it do.

use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::catalog::Registered;
use crate::identity::{CertificateRefusal, Svid};
use crate::journal::{LiveOpening, NotAccepted};
use crate::model::limits::Allowance;
use crate::model::{ExecutorName, Id, SpiffeId, Timestamp};

impl Broker {
    /// The principal behind a certificate on the admin door. It is asked at every request: removal and
    /// replacement count at once, on open connections too.
    ///
    /// # Errors
    /// If the certificate is not pinned, is over, or is a local executor's used by somebody else.
    pub fn admin_principal(&self, svid: &Svid, uid: u32) -> Result<Principal, Error> {
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
        let is_local = || uid == 0 || uid == rustix::process::geteuid().as_raw();
        if registration.local_only && !is_local() {
            return Err(Error::Unregistered);
        }
        let uid = registration.uid;
        Ok(match (&registration.who, registration.role) {
            (Registered::Executor(name), _) => Principal::Executor(name.clone(), uid),
            (Registered::Operator(name), role) => {
                Principal::Operator(name.clone(), role.unwrap_or(Role::Viewer), uid)
            }
        })
    }

    /// Takes one request of the rate of an operator or executor: of all who have a certificate with this name.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] if there is none left.
    pub fn take_admin_request(&self, who: &SpiffeId) -> Result<(), Error> {
        let (now, Allowance { per_second, burst }) =
            (self.now().millis(), self.limits.admin_requests());
        let taken = self.requests.ask(who, now, |rate| rate.take(now, per_second, burst));
        taken.map_err(Error::TooManyRequests)
    }

    /// Whether somebody with this certificate, of this Unix user, is let in at the admin door.
    ///
    /// # Errors
    /// Why not.
    pub fn let_in_admin(&self, svid: &Svid, uid: u32) -> Result<(), CertificateRefusal> {
        self.admin_principal(svid, uid).map(drop).map_err(|error| match error {
            Error::NotAccepted(NotAccepted::CertificateExpired) => CertificateRefusal::Expired,
            _ => CertificateRefusal::Unknown,
        })
    }

    /// Whether somebody with this certificate is let in at the socket of an opening.
    ///
    /// # Errors
    /// Why not.
    pub fn let_in_step(
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

    /// Whether requests with this certificate are taken at the socket of an opening.
    ///
    /// # Errors
    /// Why not.
    pub fn check_step(&self, opening: &LiveOpening, svid: &Svid) -> Result<(), Error> {
        Ok(check_step(opening, svid, self.now())?)
    }
}

/// An opening is open, the certificate is one of its own, and so is the name in it.
fn check_step(opening: &LiveOpening, svid: &Svid, now: Timestamp) -> Result<(), NotAccepted> {
    opening.accepts(&svid.sha256, now)?;
    match opening.record().key.is_of(&svid.id) {
        true => Ok(()),
        false => Err(NotAccepted::CertificateUnknown),
    }
}

/// Any operator.
pub(crate) fn require_operator(caller: &Principal) -> Result<(), Error> {
    match caller {
        Principal::Operator(..) => Ok(()),
        _ => Err(Error::OperatorRequired),
    }
}

/// An operator with at least this role.
pub(crate) fn require_role(caller: &Principal, needed: Role) -> Result<(), Error> {
    match caller {
        Principal::Operator(_, role, _) if *role >= needed => Ok(()),
        Principal::Operator(..) => Err(Error::RoleRequired(needed)),
        _ => Err(Error::OperatorRequired),
    }
}

/// An executor, by its registration: another of the same name is another.
pub(crate) struct Executor {
    pub(crate) name: ExecutorName,
    pub(crate) uid: Id,
}

/// The executor that calls.
pub(crate) fn require_executor(caller: &Principal) -> Result<Executor, Error> {
    match caller {
        Principal::Executor(name, uid) => Ok(Executor { name: name.clone(), uid: *uid }),
        _ => Err(Error::ExecutorRequired),
    }
}

/// Whose steps and runs a caller sees: an executor its own, an operator everybody's.
pub(crate) fn seen_by(caller: &Principal) -> Result<Option<Executor>, Error> {
    match caller {
        Principal::Operator(..) => Ok(None),
        _ => require_executor(caller).map(Some),
    }
}
