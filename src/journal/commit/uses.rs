//! Decisions to use a credential in the broker, for a step that does not get it.

use super::CommitError;
use super::permit::{Act, Permit};
use crate::journal::event::{Event, SignLine};
use crate::journal::{DecisionId, Epoch, Journal, LiveOpening};
use crate::model::Timestamp;
use crate::seal::RecordKey;

impl Journal {
    /// Commits a decision, made on the snapshot `epoch`, to sign by what `record` holds: writes its line, and makes the
    /// permit. There is no permit after a refusal.
    ///
    /// # Errors
    /// If something has changed since the decision, or the journal cannot be written. No line is written then.
    pub fn commit_sign(
        &self,
        now: Timestamp,
        epoch: Epoch,
        opening: &LiveOpening,
        record: Option<RecordKey>,
        line: SignLine,
    ) -> Result<(DecisionId, Option<Permit<Act>>), CommitError> {
        let mut chain = self.lock()?;
        chain.live().check_decision(epoch, opening)?;
        let version = line.outcome.allowed().map(|used| used.version);
        let position = chain.append(now, &Event::Sign(Box::new(line)))?;
        let decision = chain.decision_id(position);
        let used = record.zip(version);
        Ok((decision, used.map(|(record, version)| Permit::to_act(record, version, decision))))
    }
}
