//! Credentials that upstreams have not ended for long, and those that are left disabled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::diagnosis::Diagnosis;
use crate::cli::io::endings::{lost_search_advice, lost_search_text};
use crate::cli::io::text::short_name;
use crate::grpc::pb;
use crate::model::Timestamp;
use crate::model::limits::{MAX_CONNECTION_ENDINGS, MAX_STEP_ENDINGS, MAX_WORKFLOW_ENDINGS};

const ENDINGS: &str = "endings";
/// An ending that is older than this is reported.
const LONG: Duration = Duration::from_secs(5 * 60);
/// At most this many connections are named.
const MAX_NAMED: usize = 10;

/// What is wrong with the endings of a list; empty if nothing is.
pub(super) fn check(endings: &[pb::Ending], now: Timestamp) -> Vec<Diagnosis> {
    let oldest = now.before(LONG).seconds();
    let is_in =
        |one: &pb::Ending, state| one.ending.as_ref().is_some_and(|ending| ending.state() == state);
    let is_old = |one: &pb::Ending| {
        let begun = one.ending.as_ref().and_then(|ending| ending.time.as_ref());
        begun.is_some_and(|begun| begun.seconds < oldest)
    };
    let pending = endings.iter().filter(|one| is_in(one, pb::EndingState::Pending) && is_old(one));
    let disabled = endings.iter().filter(|one| is_in(one, pb::EndingState::LeftDisabled));
    let pending = told(pending).map(|(count, of)| {
        let text = format!(
            "{count} credential(s) of {of} could not be ended for over {} minutes: their upstreams still accept them",
            LONG.as_secs() / 60
        );
        let advice = "see the reasons with keyhatch ending list, and make the upstream reachable, or end them there by \
                      their handles; the broker goes on asking";
        Diagnosis::warn(ENDINGS, text, advice)
    });
    let disabled = told(disabled).map(|(count, of)| {
        let text = format!("{count} credential(s) of {of} cannot be used, but something of them stays upstream");
        let advice = "see what stays with keyhatch ending list, and remove or reassign it there; the broker tries again \
                      every hour";
        Diagnosis::warn(ENDINGS, text, advice)
    });
    let full = told(full(endings).into_iter()).map(|(count, of)| {
        let text = format!(
            "{count} credential(s) of {of} are still to be ended: as many as may be, so their steps get no more of them"
        );
        let advice = "see the reasons with keyhatch ending list; steps are served again when some have ended";
        Diagnosis::warn(ENDINGS, text, advice)
    });
    pending.into_iter().chain(disabled).chain(full).collect()
}

/// What is wrong with the search for roles that were made after a backup; `None` if nothing is, or there was no search.
pub(super) fn check_search(status: &pb::Status) -> Option<Diagnosis> {
    let search = status.lost_search.as_ref()?;
    let advice = lost_search_advice(search)?;
    let text = format!("roles that were made after the backup: {}", lost_search_text(search));
    Some(Diagnosis::warn(ENDINGS, text, advice))
}

/// The endings of steps, workflows and connections that have as many as they may.
fn full(endings: &[pb::Ending]) -> Vec<&pb::Ending> {
    let mut counts = BTreeMap::new();
    for key in endings.iter().flat_map(counted) {
        *counts.entry(key).or_insert(0) += 1;
    }
    let is_full = |one: &&pb::Ending| {
        counted(one).iter().any(|key| counts.get(key).is_some_and(|count| *count >= key.0))
    };
    endings.iter().filter(is_full).collect()
}

/// The step, the workflow and the connection that an ending counts for, with the most that each may have.
fn counted(one: &pb::Ending) -> [(usize, &str, &str); 3] {
    let workflow = one.step.split('/').next().unwrap_or_default();
    let most = [
        (MAX_STEP_ENDINGS, one.step.as_str()),
        (MAX_WORKFLOW_ENDINGS, workflow),
        (MAX_CONNECTION_ENDINGS, ""),
    ];
    most.map(|(most, of)| (most, one.connection.as_str(), of))
}

/// How many there are, and of which connections; `None` if there are none.
fn told<'a>(endings: impl Iterator<Item = &'a pb::Ending>) -> Option<(usize, String)> {
    let (mut count, mut names) = (0, BTreeSet::new());
    for one in endings {
        count += 1;
        names.insert(short_name(&one.connection));
    }
    let more = names.len().saturating_sub(MAX_NAMED);
    let first: Vec<_> = names.into_iter().take(MAX_NAMED).collect();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (count > 0).then(|| (count, format!("{}{more}", first.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(connection: &str, state: pb::EndingState, begun: i64) -> pb::Ending {
        let time = Some(prost_types::Timestamp { seconds: begun, nanos: 0 });
        let ending = pb::CredentialEnding { state: state.into(), time, ..Default::default() };
        let connection = format!("connections/{connection}");
        pb::Ending { connection, ending: Some(ending), ..Default::default() }
    }

    #[test]
    fn endings_that_last_and_what_stays_are_reported() {
        let now = Timestamp::from_seconds(1000);
        let young = ending("oauth2/api", pb::EndingState::Pending, 701);
        assert!(check(std::slice::from_ref(&young), now).is_empty());
        let old = ending("github/bot", pb::EndingState::Pending, 699);
        let left = ending("postgres/db", pb::EndingState::LeftDisabled, 999);
        let found = check(&[young, old.clone(), old, left], now);
        let told: Vec<_> = found.iter().map(|one| one.detail.as_str()).collect();
        assert!(told[0].starts_with("2 credential(s) of github/bot could not"), "{told:?}");
        assert!(told[1].starts_with("1 credential(s) of postgres/db cannot"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn steps_that_get_no_more_credentials_are_reported() {
        let now = Timestamp::from_seconds(1000);
        let one = ending("github/bot", pb::EndingState::Pending, 999);
        let mut endings = vec![one.clone(); MAX_STEP_ENDINGS - 1];
        endings.push(pb::Ending { step: "another".to_owned(), ..one.clone() });
        assert!(check(&endings, now).is_empty());
        endings.push(one);
        let found = check(&endings, now);
        assert!(found[0].detail.starts_with("16 credential(s) of github/bot are"), "{found:?}");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn workflows_that_get_no_more_credentials_are_reported() {
        let now = Timestamp::from_seconds(1000);
        let of = |workflow, step| pb::Ending {
            step: format!("workflow:{workflow}/run:1/step:{step}"),
            ..ending("github/bot", pb::EndingState::Pending, 999)
        };
        let mut endings: Vec<_> = (1..MAX_WORKFLOW_ENDINGS).map(|step| of("w", step)).collect();
        endings.push(of("another", 1));
        assert!(check(&endings, now).is_empty());
        endings.push(of("w", MAX_WORKFLOW_ENDINGS));
        let found = check(&endings, now);
        assert!(found[0].detail.starts_with("2500 credential(s) of github/bot are"), "{found:?}");
    }
}
