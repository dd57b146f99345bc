//! Sign: the broker signs a login by ssh for a step that does not get the key.
//!
//! ```text
//! a turn → decide → journal.commit_sign → permit → open → sign → decide again
//! ```
//!
//! The decision compares the login with the connection: its user, its known_hosts and its public key. A public key that is not known
//! yet is read first, under a line of its own, and then it is decided anew.

mod decision;
mod public_keys;
pub(super) mod refusal;

use std::sync::Arc;

pub use refusal::SignRefusal;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::Broker;
use super::error::Error;
use super::resolve::authorize::{Grant, is_executors};
use super::resolve::lines_of;
use super::steps::session::StepSession;
use crate::catalog::Snapshot;
use crate::journal::{Act, CommitError, Epoch, NotAccepted, Permit};
use crate::model::{Reference, ResourceName, Timestamp, Value};
use crate::ssh::{KeyFault, LoginRequest, SigningKey};
use decision::{Allowed, Asked, PRIVATE_KEY, Profile, Refused, decide, sign_line};
use public_keys::PublicKeys;

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
    pub public_key: Arc<[u8]>,
    /// The only user to log in as; empty if there may be others.
    pub user: String,
    /// The host keys to accept, as in a `known_hosts` file; empty if it has none.
    pub known_hosts: Vec<u8>,
}

/// What signing needs beside the broker's other parts.
pub(super) struct Signing {
    /// The turns to work with a key: half of the processors, at least one.
    turns: Arc<Semaphore>,
    public_keys: PublicKeys,
}

impl Default for Signing {
    fn default() -> Self {
        let at_once = std::thread::available_parallelism();
        let at_once = at_once.map_or(1, |processors| processors.get().div_ceil(2));
        Self { turns: Arc::new(Semaphore::new(at_once)), public_keys: PublicKeys::default() }
    }
}

/// The right to work with a key: parsing and signing take the processor.
struct SigningTurn {
    _of_step: OwnedSemaphorePermit,
    _of_broker: OwnedSemaphorePermit,
}

/// A decision that allows the use of a key, with its line.
struct Committed {
    allowed: Allowed,
    permit: Permit<Act>,
    epoch: Epoch,
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
        let login = Arc::new(login);
        let asked = Asked { target: &target, login: Some(&login) };
        let turn = Arc::new(self.signing_turn(session).await?);
        let mut is_paid = false;
        // The loop ends: each turn of it reads a key that is not known, or needs another published change.
        loop {
            let Committed { allowed, permit, epoch } =
                self.commit(session, &asked, &mut is_paid)?;
            if allowed.public_key.is_none() {
                // Decided again, a key that does not sign is a refusal.
                let _known = self.read_public_key(&allowed.grant, permit, &turn).await?;
                continue;
            }
            let private_key = self.open(&allowed.grant, permit)?;
            let login = Arc::clone(&login);
            let sign = move |key: &SigningKey| key.sign(login.algorithm(), login.data());
            let signed = work(&turn, private_key, sign).await?;
            if self.is_decided_still(session, &asked, &allowed, epoch) {
                let name = allowed.grant.name;
                return signed.map_err(|fault| Error::NotSigned(name, fault.into()));
            }
        }
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
        let asked = Asked { target, login: None };
        let turn = Arc::new(self.signing_turn(session).await?);
        let mut is_paid = false;
        // The loop ends, as above.
        loop {
            let Committed { allowed, permit, epoch } =
                self.commit(session, &asked, &mut is_paid)?;
            let public_key = match allowed.public_key.clone() {
                Some(known) => known,
                None => match self.read_public_key(&allowed.grant, permit, &turn).await? {
                    Ok(read) => read,
                    // Decided again, it is a refusal.
                    Err(_) => continue,
                },
            };
            if self.is_decided_still(session, &asked, &allowed, epoch) {
                let Allowed { grant, profile: Profile { user, known_hosts, .. }, .. } = allowed;
                let (name, version) = (grant.name, grant.version);
                let user = String::from_utf8_lossy(&user).into_owned();
                return Ok(PublicSigningKey { name, version, public_key, user, known_hosts });
            }
        }
    }

    /// Waits until the step may work with a key. The turns of a step come first, so that no step takes all of the broker's.
    async fn signing_turn(&self, session: &StepSession) -> Result<SigningTurn, Error> {
        let gone = |error: AcquireError| Error::Internal(error.to_string());
        let of_step = session.signing_turn().await.map_err(gone)?;
        let of_broker = Arc::clone(&self.signing.turns).acquire_owned().await.map_err(gone)?;
        Ok(SigningTurn { _of_step: of_step, _of_broker: of_broker })
    }

    /// Decides and writes the line. A request pays once, whatever it takes.
    fn commit(
        &self,
        session: &StepSession,
        asked: &Asked<'_>,
        is_paid: &mut bool,
    ) -> Result<Committed, Error> {
        let now = self.now();
        let (opening, record) = (&session.opening, session.opening.record());
        let users: Vec<_> = asked.login.iter().map(|login| login.user().to_owned()).collect();
        let lines = lines_of(record, &users);
        // The loop ends: each turn needs another published change.
        loop {
            let snapshot = self.snapshot();
            if !is_executors(&snapshot.catalog, record) {
                return Err(Error::NotAccepted(NotAccepted::NotOpen));
            }
            let decided = decide(snapshot.in_force(), &self.signing.public_keys, opening, asked);
            if !std::mem::replace(is_paid, true) {
                self.pay(session, decided.is_ok(), lines, now)?;
            }
            let line = sign_line(opening, asked, &decided);
            let key = decided.as_ref().ok().map(|allowed| allowed.grant.values.key);
            let committed = self.journal.commit_sign(now, snapshot.epoch, opening, key, line);
            let (decision, permit) = match committed {
                Err(CommitError::Stale) => continue,
                committed => committed.map_err(|error| self.not_committed(error))?,
            };
            let refused = match (decided, permit) {
                (Ok(allowed), Some(permit)) => {
                    return Ok(Committed { allowed, permit, epoch: snapshot.epoch });
                }
                (Ok(_), None) => return Err(Error::Corrupt),
                (Err(refused), _) => refused,
            };
            session.count_refusal(now, &self.limits, lines);
            return Err(match refused {
                Refused::Key(name, refusal) => Error::NotSigned(name, refusal),
                Refused::Access(refusal) => refusal.into_error(decision.to_opaque(&self.keyring)),
            });
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
        session.check_refusals(now, &self.limits).map_err(Error::TooManyRequests)?;
        let taken = match is_allowed {
            true => session.take_decision(now, &self.limits, lines),
            false => session.check_executor_refusals(now, &self.limits),
        };
        taken.map_err(Error::TooManyRequests)
    }

    /// True if the newest snapshot allows the use of the same key, and the step is open.
    fn is_decided_still(
        &self,
        session: &StepSession,
        asked: &Asked<'_>,
        allowed: &Allowed,
        epoch: Epoch,
    ) -> bool {
        let is_allowed = |snapshot: &Snapshot| {
            let decided =
                decide(snapshot.in_force(), &self.signing.public_keys, &session.opening, asked);
            is_executors(&snapshot.catalog, session.opening.record())
                && decided.is_ok_and(|again| again.key() == allowed.key())
        };
        let snapshot = self.snapshot();
        !session.opening.is_closed() && (snapshot.epoch == epoch || is_allowed(&snapshot))
    }

    /// Opens a key.
    fn open(&self, grant: &Grant, permit: Permit<Act>) -> Result<Value, Error> {
        let opened = permit.open(&grant.values.sealed, &self.keyring);
        let opened = opened.map_err(|error| super::resolve::corrupt(grant, &error))?;
        let mut fields = opened.into_iter();
        let found = fields.find(|(name, _)| name.as_str() == PRIVATE_KEY);
        Ok(found.ok_or(Error::Corrupt)?.1)
    }

    /// Reads the public key of a key, and keeps it.
    async fn read_public_key(
        &self,
        grant: &Grant,
        permit: Permit<Act>,
        turn: &Arc<SigningTurn>,
    ) -> Result<public_keys::PublicKey, Error> {
        let read = work(turn, self.open(grant, permit)?, SigningKey::public_key).await?;
        let read = read.map(Arc::from);
        self.signing.public_keys.keep(grant.values.key.uid, grant.version, read.clone());
        Ok(read)
    }
}

/// Works with the key on a thread of its own: a long RSA key takes milliseconds, and other steps would wait for them.
async fn work<T: Send + 'static>(
    turn: &Arc<SigningTurn>,
    private_key: Value,
    work: impl FnOnce(&SigningKey) -> Result<T, KeyFault> + Send + 'static,
) -> Result<Result<T, KeyFault>, Error> {
    let turn = Arc::clone(turn);
    let done = tokio::task::spawn_blocking(move || {
        // A request that is given up does not end the work, so the work has the turn.
        let _turn = turn;
        SigningKey::parse(private_key.expose()).and_then(|key| work(&key))
    });
    done.await.map_err(|error| Error::Internal(error.to_string()))
}
