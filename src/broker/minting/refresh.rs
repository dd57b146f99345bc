//! Refresh tokens, which their upstream may replace whenever they are used.
//!
//! ```text
//! turn ─ line ─ store writable, line on disk ─ upstream ─ successor on disk ─ line ─ handed out
//! ```
//!
//! A daemon that is killed between the call and the successor on disk loses the successor. The next refusal says so. A store
//! that takes no writes loses nothing: the successor is in a file of its own until the store takes it.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::spare::{Spare, Spares};
use super::turns::{Turn, Turns};
use crate::broker::changes::writer::WriterParts;
use crate::broker::error::Error;
use crate::catalog::{
    ConnectionMetadata, REFRESH_TOKEN, RefreshState, Snapshots, Unusable, Values, rotated_token,
};
use crate::journal::{Journal, Live, LostRefresh, Permit, PermitError, Root};
use crate::mint::{Answer, Failure, FailureReason, Minted};
use crate::model::{Clock, ConnectionRef, FieldName, Fields, Id, LogLimit, Timestamp, Value};
use crate::seal::{Keyring, Sealed};
use crate::store::Store;

/// The pause before a successor is written again that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// A connection's refresh token that is about to be used.
pub(crate) struct RefreshToken {
    connection: ConnectionRef,
    uid: Id,
    /// The fingerprint of the value that an operator wrote, and when.
    written: ([u8; 32], Timestamp),
    generation: u64,
}

impl RefreshToken {
    /// The newest refresh token of a connection; `None` if the connection has no such field.
    pub(crate) fn of(metadata: &ConnectionMetadata) -> Option<Self> {
        let written = metadata.written_refresh_token()?;
        Some(Self {
            connection: metadata.reference(),
            uid: metadata.uid,
            written: (written.fingerprint, written.update_time),
            generation: metadata.refresh_state().map_or(0, |state| state.generation),
        })
    }

    fn connection(&self) -> (ConnectionRef, Id) {
        (self.connection.clone(), self.uid)
    }

    fn state(&self, generation: u64, now: Timestamp, unusable: Option<Unusable>) -> RefreshState {
        RefreshState { written: self.written.0, generation, update_time: now, unusable }
    }
}

/// Opens all fields of a connection. The newest refresh token takes the place of the written one.
///
/// # Errors
/// If a record fails authentication.
pub(crate) fn open_roots(
    keyring: &Keyring,
    permit: Permit<Root>,
    written: &Values,
    newest: Option<&Values>,
) -> Result<Fields, PermitError> {
    let open_newest = |newest: &Values| {
        permit.to_rotated_token(newest.sealed.version())?.open(&newest.sealed, keyring)
    };
    let newest = newest.map(open_newest).transpose()?;
    let mut fields = permit.open(&written.sealed, keyring)?;
    fields.extend(newest.into_iter().flatten());
    Ok(fields)
}

/// Uses refresh tokens.
pub(crate) struct Refresher {
    store: Arc<Store>,
    journal: Arc<Journal>,
    keyring: Arc<Keyring>,
    clock: Clock,
    snapshots: Arc<Snapshots>,
    keeper: Keeper,
    turns: Turns,
    spares: Spares,
}

impl Refresher {
    /// `directory` is the state directory.
    pub(crate) fn new(parts: &WriterParts, keeper: Keeper, directory: PathBuf) -> Self {
        let WriterParts { snapshots, journal, store, keyring, clock } = parts.clone();
        let (turns, spares) = (Turns::default(), Spares::new(directory));
        Self { store, journal, keyring, clock, snapshots, keeper, turns, spares }
    }

    /// Waits for the turn of a connection.
    pub(super) async fn turn(&self, connection: Id) -> Turn {
        let turn = self.turns.take(connection).await;
        if let Err(error) = self.take_spare(connection).await {
            tracing::warn!(connection.uid = %connection, %error, "the store does not take a refresh token that is in a file");
        }
        turn
    }

    /// Moves all refresh tokens from their files to the store. The files are under a DEK that nobody else knows of.
    pub(super) async fn take_spares(&self) {
        match self.spares.connections() {
            Ok(connections) => {
                for connection in connections {
                    self.turn(connection).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the files of refresh tokens cannot be listed");
            }
        }
    }

    /// Moves a refresh token from its file to the store. A file that is of no use is set aside.
    async fn take_spare(&self, uid: Id) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Internal(error.to_string());
        let spare = match self.spares.read(uid) {
            Err(error) if error.kind() == ErrorKind::InvalidData => None,
            read => match read.map_err(failed)? {
                None => return Ok(()),
                spare => spare,
            },
        };
        let taken = match spare {
            None => Err(Error::Corrupt),
            Some(spare) => self.keep_spare(uid, spare).await,
        };
        let why = match taken {
            Ok(true) => return self.spares.remove(uid).map_err(failed),
            Ok(false) => "another refresh token was written to the connection meanwhile",
            Err(Error::Corrupt) => "it cannot be opened",
            Err(error) => return Err(error),
        };
        let file = self.spares.set_aside(uid).map_err(failed)?;
        tracing::error!(
            connection.uid = %uid, file = %file.display(), why,
            "a refresh token in a file is not used: if the upstream refuses the connection's own, sign in there again"
        );
        Ok(())
    }

    /// Has the store take a refresh token that was in a file. Returns false if it is no successor of the written one.
    async fn keep_spare(&self, uid: Id, spare: Spare) -> Result<bool, Error> {
        let Spare { written, write_time, sealed } = spare;
        let (generation, update_time) = (sealed.version(), self.clock.now());
        // The store has it already, or the connection is gone.
        let Some(name) = self.before(uid, generation) else { return Ok(true) };
        let state = RefreshState { written, generation, update_time, unusable: None };
        let (connection, state) = ((name, uid), (state, write_time));
        self.keeper.take_refresh("refresh_token.keep", connection, state, Some(sealed)).await
    }

    /// The name of a connection whose newest refresh token is older than this.
    fn before(&self, uid: Id, generation: u64) -> Option<ConnectionRef> {
        let snapshot = self.snapshots.load();
        let mut connections = snapshot.catalog.connections_after(None);
        let metadata = &connections.find(|found| found.metadata.uid == uid)?.metadata;
        let newest = metadata.refresh_state().map_or(0, |state| state.generation);
        (newest < generation).then(|| metadata.reference())
    }

    /// Waits until no refresh token is in use.
    pub(super) async fn is_over(&self) {
        self.turns.are_over().await;
    }

    /// Checks that a successor could be kept, and brings the line of the mint to disk. Nothing is sent before.
    ///
    /// # Errors
    /// If the store or the journal takes no writes.
    pub(super) async fn prepare(&self, token: &RefreshToken) -> Result<(), Failure> {
        let is_writable = self.store.is_writable() && self.journal.has_room();
        let synced = async { self.journal.synced(self.journal.last()?).await };
        match is_writable && !self.spares.has(token.uid) && synced.await.is_ok() {
            true => Ok(()),
            false => Err(not_kept(
                "store or journal take no writes, so a new refresh token could be lost; nothing was sent",
            )),
        }
    }

    /// Takes in what the upstream has answered: keeps the successor, or that the upstream refuses the token for good. The
    /// credential is of use only after that. `stop` ends the wait for a store that takes no writes.
    ///
    /// # Errors
    /// If nothing was made, or the successor is lost.
    pub(super) async fn settle(
        &self,
        token: &RefreshToken,
        mint: Id,
        answer: Answer,
        stop: &CancellationToken,
    ) -> Result<Minted, Failure> {
        let Answer { made, rotated } = answer;
        if let Some(successor) = rotated {
            self.keep(token, successor, stop).await?;
        }
        match made {
            Err(failure) if failure.reason == FailureReason::Reauthorize => {
                Err(self.refused(token, mint, failure).await)
            }
            made => made,
        }
    }

    /// Keeps a successor. Tries again for as long as it can: nobody else has the token.
    async fn keep(
        &self,
        token: &RefreshToken,
        successor: Value,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        static LIMIT: LogLimit = LogLimit::new(1);
        let lost = |text: &str| Failure { is_uncertain: true, ..not_kept(text) };
        let name = FieldName::parse(REFRESH_TOKEN).map_err(|error| lost(&error.to_string()))?;
        let fields = Fields::from([(name, successor)]);
        let (key, generation) = (rotated_token(token.uid), token.generation + 1);
        let sealed = self.keyring.seal_values(key, generation, &fields);
        let sealed = sealed.map_err(|error| lost(&error.to_string()))?;
        let mut spare = None;
        loop {
            let state = (token.state(generation, self.clock.now(), None), token.written.1);
            let (connection, successor) = (token.connection(), Some(sealed.clone()));
            let kept = self.keeper.take_refresh("refresh_token.keep", connection, state, successor);
            let Err(error) = kept.await else {
                if spare.is_some() {
                    let _ = self.spares.remove(token.uid);
                }
                return Ok(());
            };
            spare = spare.or_else(|| self.spare(token, &sealed));
            if let Some(suppressed) = LIMIT.allow() {
                let place = if spare.is_some() { "in a file" } else { "in memory only" };
                tracing::error!(
                    connection = %token.connection, %error, suppressed, place,
                    "the store does not take the refresh token that an upstream gave: nothing is handed out before"
                );
            }
            if stop.is_cancelled() {
                return Err(match spare {
                    Some(()) => not_kept(
                        "the broker stopped before the store took the new refresh token, which is in a file",
                    ),
                    None => lost("the broker stopped before the new refresh token was on disk"),
                });
            }
            stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
        }
    }

    /// Writes a successor to its file. `None` if that fails, too.
    fn spare(&self, token: &RefreshToken, sealed: &Sealed) -> Option<()> {
        let spare =
            Spare { written: token.written.0, write_time: token.written.1, sealed: sealed.clone() };
        self.spares.write(token.uid, &spare).ok()
    }

    /// Keeps that the upstream refuses a token for good, and says what may have used it up.
    async fn refused(&self, token: &RefreshToken, mint: Id, mut failure: Failure) -> Failure {
        let find = |live: &Live| live.mints().lost().find(token.uid).cloned();
        let lost = self.journal.with_live(find).ok().flatten();
        if let Some(lost) = lost.filter(|lost| lost.time >= token.written.1) {
            let _ = write!(failure.detail, "; {}", most_likely(&lost));
        }
        let unusable = Unusable::Refused { mint, detail: failure.detail.clone() };
        let state = token.state(token.generation, self.clock.now(), Some(unusable));
        let state = (state, token.written.1);
        let taken =
            self.keeper.take_refresh("refresh_token.refuse", token.connection(), state, None);
        if let Err(error) = taken.await {
            tracing::warn!(connection = %token.connection, %error, "a refused refresh token is not noted: it is tried again");
        }
        failure
    }

    /// Notes that a test has ended whose answer is known.
    pub(super) async fn end_test(&self, token: &RefreshToken, made: &Result<Minted, Failure>) {
        if made.as_ref().is_err_and(|failure| failure.is_uncertain) {
            return;
        }
        let noted = self.keeper.end_test("refresh_token.test", token.connection());
        if let Err(error) = noted.await {
            tracing::warn!(connection = %token.connection, %error, "the end of a test has no line");
        }
    }
}

/// What has most likely used a token up.
fn most_likely(lost: &LostRefresh) -> String {
    let LostRefresh { mint, time, .. } = lost;
    match mint {
        Some(mint) => format!(
            "most likely the refresh {mint} has used it up, which was cut short before {time}: its answer was lost"
        ),
        None => format!(
            "most likely the test of {time} has used it up, which was cut short: its answer was lost"
        ),
    }
}

fn not_kept(text: &str) -> Failure {
    Failure::new(FailureReason::NotKept, text)
}
