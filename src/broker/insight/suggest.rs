//! The least access that a workflow needs, by its use in the journal.

use crate::access::{Bindings, Glob, Pattern, Principal, Relation};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::journal::Use;
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
    /// The bindings that admit the workflow, and give the relation.
    pub bound: Vec<(Relation, Pattern)>,
    /// How often the workflow has used it, and when last; `None` if never.
    pub used: Option<Use>,
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
    /// Keep them: this workflow did not use the resource, but the bindings are for others, who did.
    Others,
    /// Keep them: the resource was used, or is new.
    Keep,
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
        let mut add = |resource, needed, bound: Vec<_>, users: Vec<(_, Use)>, is_new| {
            let used = users.iter().find(|(user, _)| user == workflow).map(|(_, used)| *used);
            let others_use =
                users.iter().any(|(user, used)| user != workflow && used.last >= since);
            let advice = advise(&bound, used, others_use, since, is_new);
            suggestions.add(Suggestion { resource, needed, bound, used, others_use, advice });
        };
        for (number, connection) in snapshot.catalog.connections_after(None).enumerate() {
            if number.is_multiple_of(CHECK_RESOURCES) && is_cancelled() {
                break;
            }
            let (needed, metadata) = (Relation::Resolver, &connection.metadata);
            let bound = admitting(workflow, needed, &metadata.access);
            if !bound.is_empty() {
                let users =
                    self.journal.with_live(|live| live.usage().users_of(metadata.uid, always))?;
                let resource = ResourceName::Connection(metadata.reference());
                add(resource, needed, bound, users, metadata.create_time >= since);
            }
        }
        for group in snapshot.catalog.groups_after(None) {
            let (needed, metadata) = (Relation::Viewer, &group.metadata);
            let bound = admitting(workflow, needed, &metadata.access);
            if !bound.is_empty() && !is_cancelled() {
                let name = &metadata.name;
                let users =
                    self.journal.with_live(|live| live.usage().users_of_group(name, always))?;
                let resource = ResourceName::Group(name.clone());
                add(resource, needed, bound, users, metadata.create_time >= since);
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
fn admitting(
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

fn advise(
    bound: &[(Relation, Pattern)],
    used: Option<Use>,
    others_use: bool,
    since: Timestamp,
    is_new: bool,
) -> Advice {
    let is_own = |pattern: &Pattern| {
        use Pattern::{Workflow, WorkflowStep, WorkflowSteps};
        matches!(pattern, Workflow(Glob::Exact(_)) | WorkflowStep(..) | WorkflowSteps(..))
    };
    let has_own = bound.iter().any(|(_, pattern)| is_own(pattern));
    let is_only_own = bound.iter().all(|(_, pattern)| is_own(pattern));
    let is_used = used.is_some_and(|used| used.last >= since);
    match (is_used, has_own) {
        (true, true) if is_only_own || others_use => Advice::Keep,
        (true, _) => Advice::Narrow,
        (false, _) if is_new => Advice::Keep,
        (false, false) if others_use => Advice::Others,
        (false, _) => Advice::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_bindings_go_and_wide_bindings_are_narrowed() {
        let since = Timestamp::from_millis(1000);
        let at = |last| Some(Use { times: 1, last: Timestamp::from_millis(last) });
        let bound = |pattern: &str| vec![(Relation::Resolver, pattern.parse().unwrap())];
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
            let advice = advise(&bound(pattern), used, others_use, since, is_new);
            assert_eq!(advice, expected, "{pattern} {used:?}");
        }
        // Once the workflow is bound itself, what is bound for many goes if nobody else needs it.
        let both = [bound("workflow:w"), bound("workflow:*")].concat();
        assert_eq!(advise(&both, at(2000), false, since, false), Advice::Narrow);
        assert_eq!(advise(&both, at(2000), true, since, false), Advice::Keep);
    }
}
