//! How the ending of a credential went, from the journal.

use crate::journal::{EndingReason, Event};
use crate::model::{Id, Timestamp};

/// How the ending of a credential went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintEnding {
    /// How far it is.
    pub state: EndingState,
    /// Since when.
    pub time: Timestamp,
    /// Why it began; `None` if nothing could end the credential.
    pub cause: Option<EndingReason>,
    /// Why the credential was left, for operators; empty if it was not.
    pub detail: String,
}

/// How far the ending of a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndingState {
    /// The upstream has ended it.
    Ended,
    /// It can no longer be used, but something of it stays upstream.
    LeftDisabled,
    /// It expires by itself.
    LeftToExpire,
    /// The upstream still accepts it.
    Pending,
}

/// The mint and the story so far, if the event is about an ending.
pub(crate) fn mint_of(event: &Event) -> Option<Id> {
    match event {
        Event::EndedUpstream(line) | Event::LeftDisabled(line) | Event::LeftToExpire(line) => {
            Some(line.mint)
        }
        Event::Ending(line) => Some(line.mint),
        _ => None,
    }
}

/// The story with one more line.
pub(crate) fn take(
    before: Option<MintEnding>,
    time: Timestamp,
    event: &Event,
) -> Option<MintEnding> {
    let (state, line) = match event {
        Event::EndedUpstream(line) => (EndingState::Ended, line),
        Event::LeftDisabled(line) => (EndingState::LeftDisabled, line),
        Event::LeftToExpire(line) => (EndingState::LeftToExpire, line),
        Event::Ending(line) => {
            let (state, cause) = (EndingState::Pending, Some(line.reason));
            return Some(MintEnding { state, time, cause, detail: String::new() });
        }
        _ => return before,
    };
    let cause = before.and_then(|before| before.cause);
    Some(MintEnding { state, time, cause, detail: line.detail.clone() })
}
