//! The endings of short-lived credentials, in words and as JSON.

use serde_json::{Value as Json, json};

use super::text::{printable, short_name};
use super::time::{moment, second};
use crate::grpc::pb;

/// Lines about credentials that are not ended upstream yet.
pub fn pending_lines(pending: &[pb::PendingEnding]) -> Vec<String> {
    let line = |one: &pb::PendingEnding| {
        let handle = match one.handle.as_str() {
            "" => String::new(),
            handle => format!(", {handle},"),
        };
        let reason = match one.reason.as_str() {
            "" => "no answer yet",
            reason => reason,
        };
        let end = match &one.credential_expire_time {
            Some(end) => format!("; it expires at {}", second(Some(end))),
            None => String::new(),
        };
        printable(&format!(
            "not ended upstream yet: the credential of {}{handle} for {} ({reason}){end}",
            short_name(&one.connection),
            one.step
        ))
    };
    let mut lines: Vec<String> = pending.iter().map(line).collect();
    if !lines.is_empty() {
        lines.push(
            "the broker goes on; an operator follows it with: keyhatch ending list".to_owned(),
        );
    }
    lines
}

/// For scripts.
pub fn pending_json(pending: &[pb::PendingEnding]) -> Json {
    let one = |one: &pb::PendingEnding| {
        json!({
            "connection": short_name(&one.connection),
            "handle": one.handle,
            "step": one.step,
            "credential_expire_time": moment(one.credential_expire_time.as_ref()),
            "reason": one.reason,
        })
    };
    pending.iter().map(one).collect()
}

/// The name of a state in JSON and tables.
pub fn state_name(state: pb::EndingState) -> String {
    state.as_str_name().trim_start_matches("ENDING_STATE_").to_lowercase()
}

/// How a credential ended, in words. `end` is the end of the credential upstream.
pub fn ending_words(ending: &pb::CredentialEnding, end: Option<&prost_types::Timestamp>) -> String {
    let time = second(ending.time.as_ref());
    let words = match ending.state() {
        pb::EndingState::Ended => format!("ended upstream at {time}"),
        pb::EndingState::LeftDisabled => format!("left disabled at {time}"),
        pb::EndingState::LeftToExpire if end.is_none() => "left to expire".to_owned(),
        pb::EndingState::LeftToExpire => format!("left to expire at {}", second(end)),
        pb::EndingState::Pending | pb::EndingState::Unspecified => {
            format!("ending pending since {time}")
        }
    };
    match ending.detail.as_str() {
        "" => words,
        detail => format!("{words}: {detail}"),
    }
}

/// For scripts; null for a credential without an ending.
pub fn ending_json(ending: Option<&pb::CredentialEnding>) -> Json {
    let Some(ending) = ending else { return Json::Null };
    json!({
        "state": state_name(ending.state()),
        "time": moment(ending.time.as_ref()),
        "cause": ending.cause,
        "detail": ending.detail,
    })
}

/// The endings of a list that its upstreams have not answered for.
pub fn pending_of(endings: Vec<pb::Ending>) -> Vec<pb::PendingEnding> {
    let is_pending = |one: &pb::Ending| {
        one.ending.as_ref().is_some_and(|ending| ending.state() == pb::EndingState::Pending)
    };
    let pending = endings.into_iter().filter(is_pending).map(|one| pb::PendingEnding {
        connection: one.connection,
        handle: one.handle,
        step: one.step,
        credential_expire_time: one.credential_expire_time,
        reason: one.failure_reason,
    });
    pending.collect()
}

/// How the search for credentials that were made after a backup is, in words.
pub fn lost_search_text(search: &pb::LostSearch) -> String {
    let pb::LostSearch { running, connections_left: left, found, problems } = search;
    let state = match (running, left) {
        (true, _) => format!("still looked for, at {left} connection(s)"),
        (false, 0) => "looked for everywhere".to_owned(),
        (false, _) => format!("not looked for at {left} connection(s), because the daemon stopped"),
    };
    let problems = problems.iter().map(|one| format!("; {}: {}", one.connection, one.problem));
    format!("{state}; {found} found{}", problems.collect::<String>())
}

/// What to do about that search; `None` if it runs or has been everywhere.
pub fn lost_search_advice(search: &pb::LostSearch) -> Option<&'static str> {
    let is_done = search.problems.is_empty() && search.connections_left == 0;
    (!search.running && !is_done)
        .then_some("repeat it when the servers answer: keyhatch restore --confirm --original-gone")
}
