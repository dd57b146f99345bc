//! The least access that a workflow needs, by its use in the journal.

use crate::access::{Bindings, Glob, Pattern, Principal, Relation};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::journal::{Refusals, Use};
use crate::model::{ResourceName, Timestamp, WorkflowName};

/// The most suggestions in one reply.
const MAX_SUGGESTIONS: usize = 1000;
/// The number of resources between two checks for a cancelled request.
const CHECK_RESOURCES: usize = 1000;

/// Suggestions, the most urgent first.
#[derive(Default)]
pub struct Suggestions {
    /// As many as a reply holds.
    pub first: Vec<Suggestion>,
    /// The number of further suggestions.
    pub more: usize,
}

/// The suggestion for one resource that a workflow may use.
pub struct Suggestion {
    /// The resource.
    pub resource: ResourceName,
    /// The relation that its use needs.
    pub needed: Relation,
    /// The bindings that admit the workflow, and let it use the resource.
    pub bound: Vec<(Relation, Pattern)>,
    /// How often the workflow has used it, and when last; `None` if never.
    pub used: Option<Use>,
    /// How steps of the workflow were refused its values, although they may use it; `None` if never.
    pub refused: Option<Refusals>,
    /// True if other workflows have used it in the period.
    pub others_use: bool,
    /// The advice.
    pub advice: Advice,
}

/// The advice for the bindings of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    /// Remove them: the resource was not used.
    Remove,
    /// Bind the workflow itself, and remove the bindings for many workflows that nobody else needs.
    Narrow,
    /// Bind the workflow as a user, and no longer as a resolver: the broker acted with the connection, and no step got a
    /// value.
    Lower,
    /// Bind the workflow as a resolver, or change it: a step that may only use the connection was refused its values.
    Raise,
    /// Keep them: this workflow did not use the resource, but the bindings are for others, who did.
    Others,
    /// Keep them: the resource was used, or is new.
    Keep,
}

/// What a workflow did with one resource.
#[derive(Clone)]
struct Evidence {
    /// Its uses.
    used: Option<Use>,
    /// How it was refused the values, although it could see or use the resource.
    refused: Option<Refusals>,
    /// True if other workflows have used the resource in the period.
    others_use: bool,
    /// The beginning of the period.
    since: Timestamp,
    /// True if the resource was made in the period.
    is_new: bool,
}

impl Broker {
    /// A suggestion for every resource that a workflow may use, by its use since then. Reads every connection and
    /// group.
    ///
    /// # Errors
    /// See `SystemService.SuggestAccess`.
    pub fn suggest_access(
        &self,
        caller: &Principal,
        workflow: &WorkflowName,
        since: Timestamp,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Suggestions, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let mut suggestions = Suggestions::default();
        let always = Timestamp::from_millis(i64::MIN);
        let evidence = |users: &[(WorkflowName, Use)], refused, create_time| Evidence {
            used: users.iter().find(|(user, _)| user == workflow).map(|(_, used)| *used),
            refused,
            others_use: users.iter().any(|(user, used)| user != workflow && used.last >= since),
            since,
            is_new: create_time >= since,
        };
        for (number, connection) in snapshot.catalog.connections_after(None).enumerate() {
            if number.is_multiple_of(CHECK_RESOURCES) && is_cancelled() {
                break;
            }
            let metadata = &connection.metadata;
            let bound = admitting(workflow, Relation::User, &metadata.access);
            if !bound.is_empty() {
                let (users, refused) = self.journal.with_live(|live| {
                    let (uid, usage) = (metadata.uid, live.usage());
                    (usage.users_of(uid, always), usage.refusals(uid, workflow))
                })?;
                let resource = ResourceName::Connection(metadata.reference());
                let evidence = evidence(&users, refused, metadata.create_time);
                let needed = needed_on_connection(&bound, &evidence);
                suggestions.add(suggestion(resource, needed, bound, evidence));
            }
        }
        for group in snapshot.catalog.groups_after(None) {
            let metadata = &group.metadata;
            let bound = admitting(workflow, Relation::Viewer, &metadata.access);
            if !bound.is_empty() && !is_cancelled() {
                let name = &metadata.name;
                let users =
                    self.journal.with_live(|live| live.usage().users_of_group(name, always))?;
                let resource = ResourceName::Group(name.clone());
                let evidence = evidence(&users, None, metadata.create_time);
                suggestions.add(suggestion(resource, Relation::Viewer, bound, evidence));
            }
        }
        suggestions.keep_first();
        Ok(suggestions)
    }
}

impl Suggestions {
    fn add(&mut self, one: Suggestion) {
        self.first.push(one);
        if self.first.len() >= 2 * MAX_SUGGESTIONS {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        self.first.sort_by_key(|one| one.advice);
        self.more += self.first.len().saturating_sub(MAX_SUGGESTIONS);
        self.first.truncate(MAX_SUGGESTIONS);
    }
}

/// The bindings that admit a step of the workflow and give this relation.
pub(super) fn admitting(
    workflow: &WorkflowName,
    needed: Relation,
    bindings: &Bindings,
) -> Vec<(Relation, Pattern)> {
    let admits = |pattern: &Pattern| match pattern {
        Pattern::Workflow(glob) => glob.admits(workflow),
        Pattern::WorkflowStep(name, _) | Pattern::WorkflowSteps(name, _) => name == workflow,
        Pattern::Operator(_) | Pattern::RunAs(_) => false,
    };
    let bound = bindings.at_least(needed).filter(|(_, pattern)| admits(pattern));
    bound.map(|(relation, pattern)| (relation, pattern.clone())).collect()
}

fn suggestion(
    resource: ResourceName,
    needed: Relation,
    bound: Vec<(Relation, Pattern)>,
    evidence: Evidence,
) -> Suggestion {
    let advice = advise(&bound, needed, &evidence);
    let Evidence { used, refused, others_use, .. } = evidence;
    Suggestion { resource, needed, bound, used, refused, others_use, advice }
}

/// The relation that a workflow needs on a connection, by what it did. If it did nothing, that is what it has.
fn needed_on_connection(bound: &[(Relation, Pattern)], evidence: &Evidence) -> Relation {
    let is_recent = |time: Option<Timestamp>| time.is_some_and(|time| time >= evidence.since);
    let has_values = bound.iter().any(|(relation, _)| *relation >= Relation::Resolver);
    // A refusal tells nothing about a workflow that gets the values: a step may ask for what another step has.
    let refused = evidence.refused.as_ref().map(|refused| refused.last).filter(|_| !has_values);
    // An operator may have lowered the relation since.
    let revealed = evidence.used.and_then(|used| used.revealed).filter(|_| has_values);
    let is_used = is_recent(evidence.used.map(|used| used.last));
    match () {
        () if is_recent(revealed) || is_recent(refused) => Relation::Resolver,
        () if is_used || !has_values => Relation::User,
        () => Relation::Resolver,
    }
}

fn advise(bound: &[(Relation, Pattern)], needed: Relation, evidence: &Evidence) -> Advice {
    let Evidence { used, others_use, since, is_new, .. } = *evidence;
    let is_own = |pattern: &Pattern| {
        use Pattern::{Workflow, WorkflowStep, WorkflowSteps};
        matches!(pattern, Workflow(Glob::Exact(_)) | WorkflowStep(..) | WorkflowSteps(..))
    };
    if bound.iter().all(|(relation, _)| *relation < needed) {
        return Advice::Raise;
    }
    let mut own = bound.iter().filter(|(relation, pattern)| *relation >= needed && is_own(pattern));
    let is_higher = own.clone().any(|(relation, _)| *relation == Relation::Resolver)
        && needed == Relation::User;
    let has_own = own.next().is_some();
    let is_only_own = bound.iter().all(|(_, pattern)| is_own(pattern));
    let is_used = used.is_some_and(|used| used.last >= since);
    match (is_used, has_own) {
        (true, true) if is_only_own || others_use => match is_higher && !is_new {
            true => Advice::Lower,
            false => Advice::Keep,
        },
        (true, _) => Advice::Narrow,
        (false, _) if is_new => Advice::Keep,
        (false, false) if others_use => Advice::Others,
        (false, _) => Advice::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::DecisionId;

    #[test]
    fn unused_bindings_go_and_wide_bindings_are_narrowed() {
        let since = Timestamp::from_millis(1000);
        let at = |last| {
            let last = Timestamp::from_millis(last);
            Some(Use { times: 1, last, revealed: Some(last) })
        };
        let bound = |pattern: &str| vec![(Relation::Resolver, pattern.parse().unwrap())];
        let advise = |bound: &[(Relation, Pattern)], used, others_use, is_new| {
            let evidence = Evidence { used, refused: None, others_use, since, is_new };
            advise(bound, needed_on_connection(bound, &evidence), &evidence)
        };
        for (pattern, used, others_use, is_new, expected) in [
            ("workflow:w", at(2000), true, false, Advice::Keep),
            ("workflow:w/step:s", at(2000), true, false, Advice::Keep),
            ("workflow:w/step:s*", at(2000), true, false, Advice::Keep),
            ("workflow:*", at(2000), true, false, Advice::Narrow),
            ("workflow:w*", at(1000), true, false, Advice::Narrow),
            ("workflow:w", at(999), true, false, Advice::Remove),
            ("workflow:w", None, false, false, Advice::Remove),
            ("workflow:w", None, false, true, Advice::Keep),
            ("workflow:*", None, true, false, Advice::Others),
            ("workflow:*", None, false, false, Advice::Remove),
        ] {
            let advice = advise(&bound(pattern), used, others_use, is_new);
            assert_eq!(advice, expected, "{pattern} {used:?}");
        }
        // Once the workflow is bound itself, what is bound for many goes if nobody else needs it.
        let both = [bound("workflow:w"), bound("workflow:*")].concat();
        assert_eq!(advise(&both, at(2000), false, false), Advice::Narrow);
        assert_eq!(advise(&both, at(2000), true, false), Advice::Keep);
    }

    #[test]
    fn a_relation_follows_what_a_workflow_did_with_it() {
        use Relation::{Editor, Resolver, User};
        let since = Timestamp::from_millis(1000);
        let (before, after) = (Timestamp::from_millis(999), Timestamp::from_millis(2000));
        let used = |revealed| Some(Use { times: 1, last: after, revealed });
        let own = "workflow:w";
        for (bound, used, refused, needed, expected) in [
            (vec![(Resolver, own)], used(Some(after)), None, Resolver, Advice::Keep),
            (vec![(Resolver, own)], used(None), None, User, Advice::Lower),
            (vec![(Resolver, own)], used(Some(before)), None, User, Advice::Lower),
            (vec![(Resolver, own)], used(None), Some(after), User, Advice::Lower),
            (vec![(Editor, own)], used(None), None, User, Advice::Keep),
            (vec![(User, own)], used(None), None, User, Advice::Keep),
            (vec![(User, own)], used(Some(after)), None, User, Advice::Keep),
            (vec![(User, own)], None, None, User, Advice::Remove),
            (vec![(User, own)], None, Some(after), Resolver, Advice::Raise),
            (vec![(User, own)], used(None), Some(after), Resolver, Advice::Raise),
            (vec![(User, own)], used(None), Some(before), User, Advice::Keep),
            (vec![(Resolver, "workflow:*")], used(None), None, User, Advice::Narrow),
            // The binding of its own is too low for what it got by the broad one.
            (
                vec![(User, own), (Resolver, "workflow:*")],
                used(Some(after)),
                None,
                Resolver,
                Advice::Narrow,
            ),
        ] {
            let shown = format!("{bound:?} {used:?} {refused:?}");
            let pattern = |(relation, text): (_, &str)| (relation, text.parse().unwrap());
            let bound: Vec<(Relation, Pattern)> = bound.into_iter().map(pattern).collect();
            let refused = refused.map(|last| Refusals {
                times: 1,
                last,
                step: "s".parse().unwrap(),
                decision: DecisionId { file: 1, line: 1 },
            });
            let evidence = Evidence { used, refused, others_use: false, since, is_new: false };
            assert_eq!(needed_on_connection(&bound, &evidence), needed, "{shown}");
            assert_eq!(advise(&bound, needed, &evidence), expected, "{shown}");
        }
    }
}
