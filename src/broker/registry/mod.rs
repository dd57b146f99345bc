//! Operators and executors: registered with a certificate for their own key, removed with immediate effect.

pub(super) mod budgets;
pub(super) mod offline;
pub(super) mod operators;
pub(super) mod rates;
pub(super) mod tcp;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::changes::checks::change_note;
use super::changes::documents::{WriteOptions, WriteRequest};
use super::changes::draft::Draft;
use super::error::Error;
use crate::access::{Principal, Role, Scope};
use crate::catalog::{Catalog, Registered, Registration, Resource};
use crate::identity::{Issued, RequestError, Svid, requested_key};
use crate::journal::{ChangeNote, CloseReason};
use crate::model::limits::{CLIENT_CERTIFICATE_LIFE, MAX_CLIENT_CERTIFICATES};
use crate::model::{
    ExecutorName, OperatorName, PinnedCertificate, ResourceName, SpiffeId, Timestamp,
};
use crate::seal::random_id;
use operators::{require_operator, require_role};

/// The shortest time between two certificates of one registration.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// The name of the executor that is accepted from this host only.
pub const LOCAL_EXECUTOR: &str = "local";

/// Whom to register, and as what.
#[derive(Clone)]
pub enum NewRegistration {
    /// An executor.
    Executor(ExecutorName, Scope),
    /// An operator, and whether it may connect over TCP.
    Operator {
        /// Its name.
        name: OperatorName,
        /// Its role.
        role: Role,
        /// True if it may connect over TCP.
        remote: bool,
    },
}

impl NewRegistration {
    fn who(&self) -> Registered {
        match self {
            Self::Executor(name, _) => Registered::Executor(name.clone()),
            Self::Operator { name, .. } => Registered::Operator(name.clone()),
        }
    }
}

/// The certificates of a local executor. The new one is pinned only if the one in its files is not valid any more.
#[derive(Clone)]
pub struct LocalExecutor {
    /// SHA-256 of the certificate in its files, if there is one.
    pub in_files: Option<[u8; 32]>,
    /// The certificate to pin.
    pub new: PinnedCertificate,
}

/// A new registration, with its certificate.
pub struct Enrolled {
    /// The registration.
    pub registration: Registration,
    /// The certificate and its issuer, PEM.
    pub certificate_chain: String,
}

impl Registered {
    /// The name of the registration as a resource.
    pub fn resource(&self) -> ResourceName {
        match self {
            Self::Executor(name) => ResourceName::Executor(name.clone()),
            Self::Operator(name) => ResourceName::Operator(name.clone()),
        }
    }

    fn spiffe_id(&self) -> SpiffeId {
        match self {
            Self::Executor(name) => SpiffeId::Executor(name.clone()),
            Self::Operator(name) => SpiffeId::Operator(name.clone()),
        }
    }
}

impl Broker {
    /// Registers an operator or executor, and issues a certificate for the key of a request.
    ///
    /// # Errors
    /// See `OperatorService.CreateOperator` and `ExecutorRegistryService.CreateExecutor`.
    pub async fn enroll(
        &self,
        caller: Principal,
        new: NewRegistration,
        request: &[u8],
        options: WriteOptions,
    ) -> Result<Enrolled, Error> {
        require_role(&caller, Role::Administrator)?;
        if matches!(&new, NewRegistration::Operator { remote: true, .. }) {
            self.require_tcp_door()?;
        }
        let key = requested_key(request)?;
        let now = self.now();
        let who = new.who();
        let end = now.after(CLIENT_CERTIFICATE_LIFE);
        let issued = match options.validate_only {
            // A trial signs nothing: others may trust our CA, too.
            true => Issued {
                chain_pem: String::new(),
                pinned: PinnedCertificate { sha256: [0; 32], not_before: now, not_after: end },
            },
            false => self.authority.issue_client(&who.spiffe_id(), &key, random_id()?, now, end)?,
        };
        let pinned = issued.pinned.clone();
        let request = WriteRequest::new(&caller, options);
        let enrolled = who.clone();
        let change = move |draft: &mut Draft| {
            if draft.catalog().registration(&who).is_some() {
                return Err(Error::AlreadyExists(who.resource()));
            }
            register(draft, &caller.to_string(), new.clone(), pinned.clone())
        };
        let answer = move |catalog: &Catalog| find(catalog, &enrolled);
        let registration = self.writer.write(request, change, answer).await?;
        Ok(Enrolled { registration, certificate_chain: issued.chain_pem })
    }

    /// Issues another certificate to the operator or executor that calls with this one, for the same key.
    ///
    /// # Errors
    /// See `SystemService.RenewCertificate`.
    pub async fn renew_certificate(
        &self,
        caller: &Principal,
        presented: &Svid,
        request: &[u8],
    ) -> Result<Issued, Error> {
        let who = match caller {
            Principal::Operator(name, ..) => Registered::Operator(name.clone()),
            Principal::Executor(name, _) => Registered::Executor(name.clone()),
            Principal::Step { .. } => return Err(Error::OperatorRequired),
        };
        let key = requested_key(request)?;
        // A caller who only borrowed an identity must not keep it under another key.
        if !presented.is_for_key(&key) {
            return Err(RequestError::OtherKey.into());
        }
        let now = self.now();
        let found = self.snapshot().catalog.registration(&who).cloned();
        check_renewal(found.as_deref().ok_or(Error::Unregistered)?, &presented.sha256, now)?;
        let end = now.after(CLIENT_CERTIFICATE_LIFE);
        let issued = self.authority.issue_client(&who.spiffe_id(), &key, random_id()?, now, end)?;
        let (by, pinned, presented) = (caller.to_string(), issued.pinned.clone(), presented.sha256);
        let change = move |draft: &mut Draft| {
            // The registration may be gone, and its name given to another.
            let found = draft.catalog().registration(&who).cloned().ok_or(Error::Unregistered)?;
            check_renewal(&found, &presented, draft.now)?;
            pin(draft, (&by, "renew"), &found, Some(presented), pinned.clone());
            Ok(())
        };
        self.writer.submit(change).await?;
        Ok(issued)
    }

    /// The registration of an operator or executor.
    ///
    /// # Errors
    /// If no registration has this name, or the caller is not an operator.
    pub fn registration(
        &self,
        caller: &Principal,
        who: &Registered,
    ) -> Result<Registration, Error> {
        require_operator(caller)?;
        find(&self.snapshot().catalog, who)
    }

    /// All operators, or all executors, by name.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn registrations(
        &self,
        caller: &Principal,
        is_wanted: fn(&Registered) -> bool,
    ) -> Result<Vec<Registration>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let all = snapshot.catalog.registrations().filter(|one| is_wanted(&one.who));
        Ok(all.map(|one| one.as_ref().clone()).collect())
    }

    /// Removes an operator or executor. Its certificates are refused from then on, and an executor's open steps are
    /// closed.
    ///
    /// # Errors
    /// See `OperatorService.DeleteOperator` and `ExecutorRegistryService.DeleteExecutor`.
    pub async fn remove_registration(
        &self,
        caller: Principal,
        who: Registered,
        allow_missing: bool,
        options: WriteOptions,
    ) -> Result<(), Error> {
        require_role(&caller, Role::Administrator)?;
        let validate_only = options.validate_only;
        let request = WriteRequest::new(&caller, options);
        let gone = who.clone();
        let change = move |draft: &mut Draft| remove(draft, &caller, &who, allow_missing);
        self.writer.write(request, change, |_| Ok(())).await?;
        if validate_only {
            return Ok(());
        }
        self.close_all_of(&gone).await
    }

    /// Closes every open step of a removed executor. The steps resolve nothing since the removal, and the executor
    /// opens no more. If the caller does not wait, the rest is left to [`Broker::run_maintenance`].
    async fn close_all_of(&self, who: &Registered) -> Result<(), Error> {
        let Registered::Executor(name) = who else { return Ok(()) };
        // Another executor may have the name by now.
        let snapshot = self.snapshot();
        let present = snapshot.catalog.executor(name).map(|executor| executor.uid);
        let theirs = self.journal.with_live(|live| {
            let all = live.openings().map(|opening| opening.record());
            let gone = all
                .filter(|one| one.key.executor == *name && Some(one.key.executor_uid) != present);
            gone.map(|one| one.id).collect::<Vec<_>>()
        })?;
        for id in theirs {
            self.close_opening(id, CloseReason::ExecutorRemoved).await?;
        }
        Ok(())
    }
}

/// Registers the first operator and the first executor of a new broker.
pub(super) fn register_first(
    draft: &mut Draft,
    (operator, operator_certificate): (OperatorName, PinnedCertificate),
    (executor, executor_certificate): (ExecutorName, PinnedCertificate),
) -> Result<(), Error> {
    let operator = administrator(operator);
    register(draft, "init", operator, operator_certificate)?;
    let executor = NewRegistration::Executor(executor, Scope::all());
    register(draft, "init", executor, executor_certificate)
}

/// Makes an operator an administrator with this certificate only. Gives the local executor another certificate if the
/// one in its files is not valid any more, and returns whether it did.
pub(super) fn reissue(
    draft: &mut Draft,
    operator: OperatorName,
    certificate: PinnedCertificate,
    local: LocalExecutor,
) -> Result<bool, Error> {
    match draft.catalog().operator(&operator).cloned() {
        None => {
            register(draft, "init", administrator(operator), certificate)?;
        }
        Some(found) => {
            let role = Some(Role::Administrator);
            let (remote, certificates) = (false, Vec::new());
            let found = Registration { role, remote, certificates, ..found.as_ref().clone() };
            pin(draft, ("init", "reissue"), &found, None, certificate);
        }
    }
    let executor = draft.catalog().registrations().find(|one| one.local_only).cloned();
    let Some(executor) = executor else { return Ok(false) };
    let is_valid = |pinned: &&PinnedCertificate| {
        local.in_files == Some(pinned.sha256) && draft.now < pinned.not_after
    };
    if executor.certificates.iter().find(is_valid).is_some() {
        return Ok(false);
    }
    pin(draft, ("init", "reissue"), &executor, None, local.new);
    Ok(true)
}

/// The first operator works on the broker's own host.
fn administrator(name: OperatorName) -> NewRegistration {
    NewRegistration::Operator { name, role: Role::Administrator, remote: false }
}

fn register(
    draft: &mut Draft,
    by: &str,
    new: NewRegistration,
    certificate: PinnedCertificate,
) -> Result<(), Error> {
    let who = new.who();
    let (role, scope, remote) = match new {
        NewRegistration::Executor(_, scope) => (None, scope, false),
        NewRegistration::Operator { role, remote, .. } => (Some(role), Scope::default(), remote),
    };
    let local_only = matches!(&who, Registered::Executor(name) if name.as_str() == LOCAL_EXECUTOR);
    let certificates = vec![certificate];
    let uid = random_id()?;
    let registration =
        Registration { uid, who, role, scope, local_only, remote, certificates, revision: 1 };
    draft.note(note(by, "create", &registration));
    draft.put(Resource::Registration(Arc::new(registration)));
    Ok(())
}

/// Checks that a registration may get another certificate now, for a caller who presents this one.
fn check_renewal(found: &Registration, presented: &[u8; 32], now: Timestamp) -> Result<(), Error> {
    if !found.certificates.iter().any(|pinned| pinned.sha256 == *presented) {
        return Err(Error::Unregistered);
    }
    let newest = found.certificates.iter().map(|pinned| pinned.not_before).max();
    let next = newest.map_or(now, |newest| newest.after(RENEW_AGAIN));
    match next.since(now) {
        Duration::ZERO => Ok(()),
        wait => Err(Error::RenewedLately(wait)),
    }
}

/// Adds a certificate to a registration. Expired certificates go, and beyond the limit the oldest. The presented one
/// stays: the caller may lose the reply.
fn pin(
    draft: &mut Draft,
    (by, action): (&str, &str),
    found: &Registration,
    presented: Option<[u8; 32]>,
    certificate: PinnedCertificate,
) {
    let mut renewed = found.clone();
    let kept = &mut renewed.certificates;
    kept.retain(|pinned| draft.now < pinned.not_after);
    while kept.len() >= MAX_CLIENT_CERTIFICATES {
        let oldest = kept.iter().position(|pinned| Some(pinned.sha256) != presented);
        kept.remove(oldest.unwrap_or(0));
    }
    let mut note = note(by, action, found);
    note.settings = vec![format!("certificate={}", hex::encode(certificate.sha256))];
    note.settings.extend(presented.map(|sha256| format!("presented={}", hex::encode(sha256))));
    let was_remote = draft.catalog().registration(&found.who).is_some_and(|one| one.remote);
    note.settings.extend((was_remote && !found.remote).then(|| "remote=false".to_owned()));
    kept.push(certificate);
    renewed.revision += 1;
    note.version = renewed.revision;
    draft.note(note);
    draft.put(Resource::Registration(Arc::new(renewed)));
}

fn remove(
    draft: &mut Draft,
    caller: &Principal,
    who: &Registered,
    allow_missing: bool,
) -> Result<(), Error> {
    // This keeps one administrator.
    if matches!((caller, who), (Principal::Operator(own, ..), Registered::Operator(name)) if own == name)
    {
        return Err(Error::OwnRegistration);
    }
    let registration = match draft.catalog().registration(who).cloned() {
        Some(registration) => registration,
        None if allow_missing && !draft.catalog().is_newer(&who.resource()) => return Ok(()),
        None => return Err(Error::NotFound(who.resource())),
    };
    // The steps that an executor has opened hold leases on anything.
    draft.note_for_all(note(&caller.to_string(), "delete", &registration));
    draft.remove(Resource::Registration(registration));
    Ok(())
}

fn find(catalog: &Catalog, who: &Registered) -> Result<Registration, Error> {
    let found = catalog.registration(who).map(|found| Registration::clone(found));
    found.ok_or_else(|| Error::NotFound(who.resource()).or_newer(catalog))
}

fn note(by: &str, action: &str, registration: &Registration) -> ChangeNote {
    let (kind, role) = match (&registration.who, registration.role) {
        (Registered::Executor(_), _) => ("executor", None),
        (Registered::Operator(_), role) => ("operator", role),
    };
    let scope = &registration.scope;
    let role = role.map(|role| format!("role={role}")).into_iter();
    let workflows = scope.workflows.iter().map(|glob| format!("workflow={glob}"));
    let run_as = scope.run_as.iter().map(|pattern| format!("run_as={pattern}"));
    let remote = registration.remote.then(|| "remote=true".to_owned());
    let settings = role.chain(workflows).chain(run_as).chain(remote).collect();
    let resource = registration.who.resource();
    let action = format!("{kind}.{action}");
    let note = change_note(by, action, resource, registration.uid, registration.revision);
    ChangeNote { settings, ..note }
}
