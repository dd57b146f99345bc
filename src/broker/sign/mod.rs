//! Sign: the broker signs a login by ssh for a step that does not get the key.
//!
//! ```text
//! a turn → authorize(user) → the connection's user and known_hosts → journal.commit_sign → permit → open → sign
//! ```

pub(super) mod refusal;

use std::sync::Arc;

pub use refusal::SignRefusal;

use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use super::Broker;
use super::error::Error;
use super::resolve::authorize::{Grant, Refusal, authorize_step, is_executors};
use super::resolve::lines_of;
use super::steps::session::StepSession;
use crate::access::Purpose;
use crate::catalog::{Catalog, ConnectionMetadata};
use crate::journal::{CommitError, LiveOpening, NotAccepted, SignLine, SshLogin, UseOutcome};
use crate::lease::LeaseTarget;
use crate::model::{Reference, ResourceName, Timestamp, Value};
use crate::ssh::{HostKeys, LoginRequest, SigningKey, fingerprint};

/// The one kind that signs.
const INTEGRATION: &str = "ssh";
const KIND: &str = "private_key";
/// Its fields.
const PRIVATE_KEY: &str = "private_key";
const USER: &str = "user";
const KNOWN_HOSTS: &str = "known_hosts";

/// A request of a step for the signature of a login.
pub struct SignRequest {
    /// The connection.
    pub target: Reference,
    /// The login.
    pub login: LoginRequest,
}

/// The public half of what logins are signed with.
pub struct PublicSigningKey {
    /// The connection.
    pub name: ResourceName,
    /// Its version.
    pub version: u64,
    /// The public key, as SSH writes it.
    pub public_key: Vec<u8>,
    /// The only user to log in as; empty if there may be others.
    pub user: String,
    /// The host keys to accept, as in a `known_hosts` file; empty if it has none.
    pub known_hosts: Vec<u8>,
}

/// What a connection says of its key, without the key.
struct Profile {
    user: Vec<u8>,
    known_hosts: Vec<u8>,
}

/// A decision that is not an allowance.
enum Refused {
    /// By access, or by what the target names.
    Access(Refusal),
    /// By what is to be signed.
    Login(ResourceName, SignRefusal),
}

/// The right to work with a key: parsing and signing take the processor.
struct SigningTurn {
    _of_step: OwnedSemaphorePermit,
    _of_broker: OwnedSemaphorePermit,
}

/// A key that a decision allows to use.
struct OpenedKey {
    name: ResourceName,
    version: u64,
    profile: Profile,
    private_key: Value,
}

impl Broker {
    /// Signs a login. Returns the signature, as SSH writes it.
    ///
    /// # Errors
    /// See `StepService.Sign` in `proto/keyhatch/v1/step.proto`.
    pub async fn sign(
        &self,
        session: &StepSession,
        request: SignRequest,
    ) -> Result<Vec<u8>, Error> {
        let SignRequest { target, login } = request;
        let turn = self.signing_turn(session).await?;
        let opened = self.open_key(session, &target, Some(&login))?;
        let (signature, _) = opened
            .work(turn, move |key| {
                if key.public_key()? != login.public_key() {
                    return Err(SignRefusal::OtherKey);
                }
                Ok(key.sign(login.algorithm(), login.data())?)
            })
            .await?;
        check_open(session)?;
        Ok(signature)
    }

    /// The public key by which logins are signed.
    ///
    /// # Errors
    /// See `StepService.GetSigningKey`.
    pub async fn signing_key(
        &self,
        session: &StepSession,
        target: &Reference,
    ) -> Result<PublicSigningKey, Error> {
        let turn = self.signing_turn(session).await?;
        let opened = self.open_key(session, target, None)?;
        let (name, version) = (opened.name.clone(), opened.version);
        let (public_key, Profile { user, known_hosts }) =
            opened.work(turn, |key| Ok(key.public_key()?)).await?;
        check_open(session)?;
        let user = String::from_utf8_lossy(&user).into_owned();
        Ok(PublicSigningKey { name, version, public_key, user, known_hosts })
    }

    /// Waits until the step may work with a key. The turns of a step come first, so that no step takes all of the broker's.
    async fn signing_turn(&self, session: &StepSession) -> Result<SigningTurn, Error> {
        let gone = |error: AcquireError| Error::Internal(error.to_string());
        let of_step = session.signing_turn().await.map_err(gone)?;
        let of_broker = Arc::clone(&self.signatures).acquire_owned().await.map_err(gone)?;
        Ok(SigningTurn { _of_step: of_step, _of_broker: of_broker })
    }

    /// Decides, writes the line, and opens the key.
    fn open_key(
        &self,
        session: &StepSession,
        target: &Reference,
        login: Option<&LoginRequest>,
    ) -> Result<OpenedKey, Error> {
        let now = self.now();
        session.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let (opening, record) = (&session.opening, session.opening.record());
        let users: Vec<_> = login.iter().map(|login| login.user().to_owned()).collect();
        let lines = lines_of(record, &users);
        let mut is_paid = false;
        // The loop ends: each turn needs another published change.
        loop {
            let snapshot = self.snapshot();
            if !is_executors(&snapshot.catalog, record) {
                return Err(Error::NotAccepted(NotAccepted::NotOpen));
            }
            let decided = decide(&snapshot.catalog, opening, target, login);
            if !std::mem::replace(&mut is_paid, true) {
                self.pay(session, decided.is_ok(), lines, now)?;
            }
            let line = sign_line(opening, target, login, &decided);
            let key = decided.as_ref().ok().map(|(grant, _)| grant.values.key);
            let committed = self.journal.commit_sign(now, snapshot.epoch, opening, key, line);
            let (decision, permit) = match committed {
                Err(CommitError::Stale) => continue,
                committed => committed.map_err(|error| self.not_committed(error))?,
            };
            return match (decided, permit) {
                (Ok((grant, profile)), Some(permit)) => {
                    let opened = permit.open(&grant.values.sealed, &self.keyring);
                    let opened = opened.map_err(|error| super::resolve::corrupt(&grant, &error))?;
                    let mut fields = opened.into_iter();
                    let found = fields.find(|(name, _)| name.as_str() == PRIVATE_KEY);
                    let (_, private_key) = found.ok_or(Error::Corrupt)?;
                    Ok(OpenedKey { name: grant.name, version: grant.version, profile, private_key })
                }
                (Err(Refused::Login(name, refusal)), _) => {
                    session.count_refusal(now, &self.limits, lines);
                    Err(Error::NotSigned(name, refusal))
                }
                (Err(Refused::Access(refusal)), _) => {
                    session.count_refusal(now, &self.limits, lines);
                    Err(refusal.into_error(decision.to_opaque(&self.keyring)))
                }
                (Ok(_), None) => Err(Error::Corrupt),
            };
        }
    }

    /// Takes the line of a decision from the step's share.
    fn pay(
        &self,
        session: &StepSession,
        is_allowed: bool,
        lines: u32,
        now: Timestamp,
    ) -> Result<(), Error> {
        let taken = match is_allowed {
            true => session.take_decision(now, &self.limits, lines),
            false => session.check_executor_refusals(now, &self.limits),
        };
        taken.map_err(Error::TooManyRequests)
    }
}

impl OpenedKey {
    /// Works with the key on a thread of its own: a long RSA key takes milliseconds, and other steps would wait for them.
    async fn work<T: Send + 'static>(
        self,
        turn: SigningTurn,
        work: impl FnOnce(&SigningKey) -> Result<T, SignRefusal> + Send + 'static,
    ) -> Result<(T, Profile), Error> {
        let Self { name, profile, private_key, .. } = self;
        let done = tokio::task::spawn_blocking(move || {
            // A request that is given up does not end the work, so the work has the turn.
            let _turn = turn;
            let key = SigningKey::parse(private_key.expose())?;
            work(&key)
        });
        let done = done.await.map_err(|error| Error::Internal(error.to_string()))?;
        Ok((done.map_err(|refusal| Error::NotSigned(name, refusal))?, profile))
    }
}

/// Checks that nothing is handed out to a step that was closed during the work.
fn check_open(session: &StepSession) -> Result<(), Error> {
    match session.opening.is_closed() {
        true => Err(Error::NotAccepted(NotAccepted::NotOpen)),
        false => Ok(()),
    }
}

/// The number of keys that are worked with at once: half of the processors, at least one.
pub(super) fn signatures_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// Decides by one snapshot whether a step may use a key, for this login if there is one.
fn decide(
    catalog: &Catalog,
    opening: &LiveOpening,
    target: &Reference,
    login: Option<&LoginRequest>,
) -> Result<(Grant, Profile), Refused> {
    let grant = authorize_step(catalog, opening.record(), target, Purpose::Use, None)
        .map_err(Refused::Access)?;
    let refuse = |refusal| Err(Refused::Login(grant.name.clone(), refusal));
    let ResourceName::Connection(name) = &grant.name else { return refuse(SignRefusal::NoKey) };
    let found = catalog.connection(name).map(|connection| &connection.metadata);
    let Some(profile) = found.and_then(Profile::of) else { return refuse(SignRefusal::NoKey) };
    if let Some(login) = login {
        if !profile.user.is_empty() && profile.user != login.user().as_bytes() {
            return refuse(SignRefusal::OtherUser);
        }
        let is_known = |host_key| HostKeys::parse(&profile.known_hosts).accept(host_key);
        if !profile.known_hosts.is_empty() && !login.host_key().is_none_or(is_known) {
            return refuse(SignRefusal::UnknownHost);
        }
    }
    Ok((grant, profile))
}

impl Profile {
    /// What a connection says; `None` if it is of another kind.
    fn of(metadata: &ConnectionMetadata) -> Option<Self> {
        let is_it = metadata.integration.as_str() == INTEGRATION
            && metadata.kind.as_str() == KIND
            && metadata.has(PRIVATE_KEY);
        let value = |wanted: &str| {
            let mut fields = metadata.fields.iter();
            let found = fields.find(|(name, _)| name.as_str() == wanted);
            found.map(|(_, field)| field.value.clone()).unwrap_or_default()
        };
        is_it.then(|| Self { user: value(USER), known_hosts: value(KNOWN_HOSTS) })
    }
}

fn sign_line(
    opening: &LiveOpening,
    target: &Reference,
    login: Option<&LoginRequest>,
    decided: &Result<(Grant, Profile), Refused>,
) -> SignLine {
    let record = opening.record();
    let outcome = match decided {
        Ok((grant, _)) => UseOutcome::Allow {
            by: grant.rules(),
            uid: grant.values.key.uid,
            resource: (!matches!(target, Reference::Connection(_))).then(|| grant.name.to_text()),
            version: grant.version,
        },
        Err(Refused::Access(refusal)) => UseOutcome::Refuse {
            reason: refusal.reason().to_owned(),
            by: refusal.by().to_owned(),
            uid: refusal.too_low_on(),
        },
        Err(Refused::Login(_, refusal)) => {
            UseOutcome::Refuse { reason: refusal.reason().to_owned(), by: String::new(), uid: None }
        }
    };
    let login = login.map(|login| {
        Box::new(SshLogin {
            user: login.user().to_owned(),
            key: fingerprint(login.public_key()),
            host_key: login.host_key().map(fingerprint),
        })
    });
    SignLine {
        opening: record.id,
        principal: Arc::clone(&opening.principal()),
        run_as: record.run_as.clone(),
        target: LeaseTarget::of(&record.key.workflow, target),
        login,
        outcome,
    }
}
