//! Changes while no daemon runs: the first registrations, and new certificates for those who lost theirs.

use std::path::Path;
use std::sync::Arc;

use super::{LocalExecutor, register_first, reissue};
use crate::broker::changes::draft::Draft;
use crate::broker::changes::writer::{Writer, WriterParts, WriterTask};
use crate::broker::error::Error;
use crate::broker::lifecycle::restored_tokens::distrust;
use crate::broker::lifecycle::start::{Foundation, StartError};
use crate::identity::Authority;
use crate::journal::{Event, RotatedKey};
use crate::model::{Clock, ExecutorName, Limits, OperatorName, PinnedCertificate, Timestamp};
use crate::seal::{Keyring, Rotation};

/// A broker that is not running. The caller holds the lock of the state directory.
pub struct Offline<'a> {
    /// The directory of the journal.
    pub journal: &'a Path,
    /// The directory of the store.
    pub store: &'a Path,
    /// The keys.
    pub keyring: Keyring,
    /// The CA.
    pub authority: Arc<Authority>,
    /// Where time comes from.
    pub clock: Clock,
}

/// The principal of offline changes: no daemon authenticates the holder of the KEK.
const OFFLINE: &str = "offline";

impl Offline<'_> {
    /// Registers the first operator and the first executor of a new broker.
    ///
    /// # Errors
    /// If they cannot be written.
    pub async fn seed_registrations(
        self,
        operator: (OperatorName, PinnedCertificate),
        executor: (ExecutorName, PinnedCertificate),
    ) -> Result<(), StartError> {
        self.change(move |draft| register_first(draft, operator.clone(), executor.clone())).await
    }

    /// Makes an operator an administrator with this certificate only, registered before or not. Gives the local
    /// executor another certificate if it needs one, and returns whether it did.
    ///
    /// # Errors
    /// If journal and store are damaged, or cannot be written.
    pub async fn reissue(
        self,
        operator: OperatorName,
        certificate: PinnedCertificate,
        local: LocalExecutor,
    ) -> Result<bool, StartError> {
        self.change(move |draft| {
            reissue(draft, operator.clone(), certificate.clone(), local.clone())
        })
        .await
    }

    /// Journals that the broker was restored: its steps are closed, and nothing is resolved until an administrator
    /// confirms it. Refresh tokens that an upstream gave before the backup are of no use until they are confirmed, too.
    ///
    /// # Errors
    /// If journal and store are damaged or do not belong together, or cannot be written.
    pub async fn quarantine(self, backup_time: Timestamp) -> Result<(), StartError> {
        let foundation = self.foundation().await?;
        let (journal, clock) = (&foundation.parts.journal, &foundation.parts.clock);
        journal.append(clock.now(), &Event::Restored { backup_time })?;
        journal.sign(clock.now());
        journal.synced(journal.last()?).await?;
        foundation.change(move |draft| distrust(draft, backup_time)).await
    }

    /// Puts a new key in force, after a line in the journal.
    ///
    /// # Errors
    /// If journal and store are damaged, or something cannot be written.
    pub async fn rotate(self, key: RotatedKey, rotation: Rotation) -> Result<(), StartError> {
        let WriterParts { journal, keyring, clock, .. } = self.foundation().await?.parts;
        let principal = OFFLINE.to_owned();
        let (old, new) = (rotation.old, rotation.new);
        let event = Event::KeyRotated { principal, key, old, new };
        let (position, _) = journal.append(clock.now(), &event)?;
        journal.synced(position).await?;
        Ok(rotation.commit(&keyring)?)
    }

    async fn foundation(self) -> Result<Foundation, StartError> {
        let Self { journal, store, authority, clock, keyring } = self;
        let file_bytes = Limits::default().journal_file_bytes;
        Foundation::open(journal, store, Arc::new(keyring), authority, file_bytes, clock).await
    }

    async fn change<T: Send + 'static>(
        self,
        change: impl FnMut(&mut Draft) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StartError> {
        self.foundation().await?.change(change).await
    }
}

impl Foundation {
    /// Makes one change. The store is closed afterwards.
    async fn change<T: Send + 'static>(
        self,
        change: impl FnMut(&mut Draft) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StartError> {
        let (writer, queue) = Writer::new(Limits::default().admin_lines());
        let known = self.parts.journal.with_live(|live| live.requests().clone())?;
        let task = WriterTask::new(self.parts, queue, self.last_batch, known);
        let task = tokio::spawn(task.run());
        let outcome = writer.submit(change).await;
        drop(writer);
        // The store is closed when the task has ended.
        let _ = task.await;
        Ok(outcome?)
    }
}
