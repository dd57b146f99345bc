//! The endings of credentials upstream, as messages.

use super::{count_i32, timestamp};
use crate::broker::{EndingState, ListedEnding, MintEnding, PendingEnding};
use crate::grpc::pb;
use crate::journal::{BegunEnding, EndingReason};

pub(crate) fn pending_endings(pending: Vec<PendingEnding>) -> Vec<pb::PendingEnding> {
    let message = |one: PendingEnding| pb::PendingEnding {
        connection: one.connection,
        handle: one.handle.unwrap_or_default(),
        step: one.step.to_string(),
        credential_expire_time: one.credential_expire_time.and_then(timestamp),
        reason: one.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
    };
    pending.into_iter().map(message).collect()
}

pub(crate) fn ending(ending: MintEnding) -> pb::CredentialEnding {
    let state = match ending.state {
        EndingState::Ended => pb::EndingState::Ended,
        EndingState::LeftDisabled => pb::EndingState::LeftDisabled,
        EndingState::LeftToExpire => pb::EndingState::LeftToExpire,
        EndingState::Pending => pb::EndingState::Pending,
    };
    pb::CredentialEnding {
        state: state.into(),
        time: timestamp(ending.time),
        cause: ending.cause.map(cause).unwrap_or_default().to_owned(),
        detail: ending.detail,
    }
}

pub(crate) fn listed_ending(listed: ListedEnding) -> pb::Ending {
    let ListedEnding { owed, tries } = listed;
    let (source, mint) = (owed.source().name().to_owned(), owed.mint().to_string());
    let end = owed.credential.as_ref().and_then(|made| made.told_end());
    let handle = owed.credential.as_ref().and_then(|made| made.handle.clone());
    let (failure_reason, failure_detail) = match tries.failure {
        Some((reason, detail)) => (reason.as_str().to_owned(), detail),
        None => (String::new(), String::new()),
    };
    pb::Ending {
        mint,
        connection: owed.minting.resource,
        source,
        handle: handle.unwrap_or_default(),
        step: owed.minting.principal.to_string(),
        ending: owed.begun.map(begun),
        credential_expire_time: end.and_then(timestamp),
        attempts: count_i32(usize::try_from(tries.attempts).unwrap_or(usize::MAX)),
        failure_reason,
        failure_detail,
        next_attempt_time: tries.next.and_then(timestamp),
    }
}

fn begun(begun: BegunEnding) -> pb::CredentialEnding {
    let state = match begun.left_disabled {
        Some(_) => EndingState::LeftDisabled,
        None => EndingState::Pending,
    };
    ending(MintEnding {
        state,
        time: begun.time,
        cause: Some(begun.reason),
        detail: begun.left_disabled.unwrap_or_default(),
    })
}

fn cause(reason: EndingReason) -> &'static str {
    match reason {
        EndingReason::ConnectionChanged => "connection_changed",
        EndingReason::ConnectionDeleted => "connection_deleted",
        EndingReason::Interrupted => "interrupted",
        EndingReason::LeaseEnded => "lease_ended",
        EndingReason::StepClosed => "step_closed",
    }
}
