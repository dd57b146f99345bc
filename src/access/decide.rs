//! The access decision.

use super::bindings::{Bindings, Relation};
use super::block::Block;
use super::pattern::Pattern;
use super::principal::{Principal, Role};
use crate::model::WorkflowName;

/// An access decision, with the rule that allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Allowed; the text names the binding or role.
    Allow(String),
    /// Refused: no binding admits the principal.
    Deny,
}

/// Decides whether `bindings` give `principal` at least the relation `needed`.
///
/// A step that runs on somebody's behalf needs two bindings: one of its workflow, and one of a `run_as` principal. If
/// the bindings name any `run_as` principal, a step without `run_as` is refused: a binding of a team is not meant for all
/// runs of the workflow. Users of a team do not count against a step that is a resolver. What is under a block has no
/// bindings.
pub fn decide(
    principal: &Principal,
    needed: Relation,
    bindings: &Bindings,
    block: Option<&Block>,
) -> Decision {
    let none = Bindings::default();
    let bindings = if block.is_some() { &none } else { bindings };
    let first = |run_as: bool| {
        let held = bindings.at_least(needed).filter(|(_, one)| one.is_run_as() == run_as);
        held.into_iter().find(|(_, one)| one.admits(principal))
    };
    let Some((relation, pattern)) = first(false) else { return Decision::Deny };
    let by = [relation.as_str(), " ", &pattern.to_text()].concat();
    let Principal::Step { run_as, .. } = principal else { return Decision::Allow(by) };
    if run_as.is_empty() {
        let is_somebodys = bindings.at_least(needed).any(|(_, one)| one.is_run_as());
        return match (is_somebodys, needed) {
            (false, _) => Decision::Allow(by),
            (true, Relation::User) => decide(principal, Relation::Resolver, bindings, block),
            (true, _) => Decision::Deny,
        };
    }
    match first(true) {
        Some((relation, pattern)) => Decision::Allow(format!("{by}, {relation} {pattern}")),
        None => Decision::Deny,
    }
}

/// The highest relation that `bindings` give `principal`, with the rule that gives it; `None` if they give none.
pub fn held(principal: &Principal, bindings: &Bindings) -> Option<(Relation, String)> {
    let mut relations = Relation::ALL.into_iter().rev();
    relations.find_map(|relation| match decide(principal, relation, bindings, None) {
        Decision::Allow(by) => Some((relation, by)),
        Decision::Deny => None,
    })
}

/// One bound principal, and its part in a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The relation that binds it.
    pub relation: Relation,
    /// The principals that the binding admits.
    pub pattern: Pattern,
    /// Whether the relation is enough for what is needed.
    pub is_enough: bool,
    /// Whether it admits the caller.
    pub admits: bool,
}

/// Everything that [`decide`] checks, one by one, to explain a decision.
pub fn examine(principal: &Principal, needed: Relation, bindings: &Bindings) -> Vec<Examined> {
    let all = bindings.at_least(Relation::Viewer);
    all.map(|(relation, pattern)| Examined {
        relation,
        pattern: pattern.clone(),
        is_enough: relation >= needed,
        admits: pattern.admits(principal),
    })
    .collect()
}

/// Decides on a secret, which has no bindings: only steps of its workflow resolve it.
///
/// Relay: secrets are "scoped to one workflow".
pub fn decide_secret(
    principal: &Principal,
    owner: &WorkflowName,
    block: Option<&Block>,
) -> Decision {
    match principal {
        Principal::Step { workflow, .. } if workflow == owner && block.is_none() => {
            Decision::Allow(format!("own workflow:{owner}"))
        }
        _ => Decision::Deny,
    }
}

/// Decides whether an operator may change a resource: an administrator always may, other operators by the bindings.
pub fn decide_edit(principal: &Principal, bindings: &Bindings) -> Decision {
    match principal {
        Principal::Operator(_, Role::Administrator, _) => {
            Decision::Allow("role administrator".to_owned())
        }
        Principal::Operator(_, Role::Operator, _) => {
            decide(principal, Relation::Editor, bindings, None)
        }
        _ => Decision::Deny,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::Purpose;
    use super::*;
    use crate::model::{RunName, StepName};

    fn step_as(workflow: &str, step: &str, run_as: &[&str]) -> Principal {
        Principal::Step {
            workflow: WorkflowName::parse(workflow).unwrap(),
            run: RunName::parse("1").unwrap(),
            step: StepName::parse(step).unwrap(),
            run_as: run_as.iter().map(|one| one.parse().unwrap()).collect(),
        }
    }

    fn step(workflow: &str, step: &str) -> Principal {
        step_as(workflow, step, &[])
    }

    fn bound(relation: Relation, patterns: &[&str]) -> Bindings {
        let mut bindings = Bindings::default();
        for pattern in patterns {
            bindings.add(relation, pattern.parse().unwrap());
        }
        bindings
    }

    fn is_allowed(principal: &Principal, needed: Relation, bindings: &Bindings) -> bool {
        decide(principal, needed, bindings, None) != Decision::Deny
    }

    #[test]
    fn a_binding_admits_exactly_the_principals_it_names() {
        let cases = [
            ("workflow:deploy", "deploy", "build", true),
            ("workflow:deploy", "deploy2", "build", false),
            ("workflow:deploy", "Deploy", "build", false),
            ("workflow:deploy/step:build", "deploy", "build", true),
            ("workflow:deploy/step:build", "deploy", "test", false),
            ("workflow:deploy/step:notify-*", "deploy", "notify-slack", true),
            ("workflow:deploy/step:notify-*", "deploy", "notify-", true),
            ("workflow:deploy/step:notify-*", "deploy", "notify", false),
            ("workflow:deploy/step:notify-*", "deploy", "Notify-slack", false),
            ("workflow:deploy/step:notify-*", "deploy2", "notify-slack", false),
            ("workflow:owner/repo", "owner/repo", "build", true),
            ("workflow:owner/repo", "owner/repo/x", "build", false),
            ("workflow:owner/repo", "owner", "repo", false),
            ("workflow:owner/*", "owner/repo", "build", true),
            ("workflow:owner/*", "owner", "build", false),
            ("workflow:a/step:task[*", "a", "task[3]", true),
            ("workflow:a/step:b/step:c", "a", "b/step:c", true),
            ("workflow:team-a-*", "team-a-x", "build", true),
            ("workflow:team-a-*", "team-b-x", "build", false),
            ("workflow:*", "anything", "build", true),
            ("operator:deploy", "deploy", "build", false),
            ("user:deploy", "deploy", "build", false),
        ];
        for (pattern, workflow, name, expected) in cases {
            let bindings = bound(Relation::Resolver, &[pattern]);
            let allowed = is_allowed(&step(workflow, name), Relation::Resolver, &bindings);
            assert_eq!(allowed, expected, "{pattern} {workflow}/{name}");
        }
    }

    #[test]
    fn relations_are_cumulative_and_nothing_is_allowed_by_default() {
        let caller = step("deploy", "build");
        let order = Relation::ALL;
        for held in order {
            for needed in order {
                let allowed = is_allowed(&caller, needed, &bound(held, &["workflow:deploy"]));
                assert_eq!(allowed, held >= needed, "{held} for {needed}");
            }
        }
        assert!(!is_allowed(&caller, Relation::Viewer, &Bindings::default()));
    }

    /// Relations with principals, and the principals that a step runs as.
    fn access() -> impl Strategy<Value = (Vec<(Relation, &'static str)>, Vec<&'static str>)> {
        const PATTERNS: [&str; 5] =
            ["workflow:deploy", "workflow:*", "workflow:other", "team:ops", "user:eve"];
        let bound = (select(&Relation::ALL[..]), select(&PATTERNS[..]));
        let run_as = prop::collection::vec(select(&["team:ops", "user:eve"][..]), 0..2);
        (prop::collection::vec(bound, 0..6), run_as)
    }

    fn bindings_of(bound: &[(Relation, &'static str)]) -> Bindings {
        let mut bindings = Bindings::default();
        bound.iter().for_each(|(relation, text)| bindings.add(*relation, text.parse().unwrap()));
        bindings
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_resolver_may_do_all_that_a_user_may((bound, run_as) in access()) {
            let (caller, bindings) = (step_as("deploy", "build", &run_as), bindings_of(&bound));
            let allowed = Relation::ALL.map(|needed| is_allowed(&caller, needed, &bindings));
            let [_, is_user, is_resolver, _] = allowed;
            prop_assert!(is_user || !is_resolver, "{:?}", allowed);
            let mut pairs = Relation::ALL.into_iter().zip(allowed).rev();
            let highest = pairs.find(|(_, is_allowed)| *is_allowed);
            let held = held(&caller, &bindings).map(|(relation, _)| relation);
            prop_assert_eq!(held, highest.map(|(relation, _)| relation));
        }

        #[test]
        fn no_binding_of_a_user_decides_on_values(
            (bound, run_as) in access(),
            text in select(&["workflow:deploy", "team:ops"][..]),
        ) {
            let (caller, mut bindings) = (step_as("deploy", "build", &run_as), bindings_of(&bound));
            let before = decide(&caller, Purpose::Reveal.relation(), &bindings, None);
            bindings.add(Relation::User, text.parse().unwrap());
            prop_assert_eq!(decide(&caller, Purpose::Reveal.relation(), &bindings, None), before);
        }
    }

    /// The `run_as` principal is needed beside the workflow, never instead of it.
    #[test]
    fn a_step_with_run_as_needs_both_bindings() {
        let (workflow, team) = ("workflow:deploy", "team:ops");
        let cases: [(&[&str], &[&str], bool); 9] = [
            (&[workflow], &[], true),
            (&[workflow], &[team], false),
            (&[workflow, team], &[team], true),
            (&[workflow, team], &[team, "user:alice"], true),
            (&["workflow:*", team], &[team], true),
            (&[workflow, team], &["team:dev"], false),
            (&[workflow, team], &[], false),
            (&[team], &[team], false),
            (&["workflow:other", team], &[team], false),
        ];
        for (patterns, run_as, expected) in cases {
            let caller = step_as("deploy", "build", run_as);
            let bindings = bound(Relation::Resolver, patterns);
            let allowed = is_allowed(&caller, Relation::Resolver, &bindings);
            assert_eq!(allowed, expected, "{patterns:?} {run_as:?}");
        }
        // An editor without run_as does not get past a team that resolves.
        let mut edited = bound(Relation::Editor, &[workflow]);
        edited.add(Relation::Resolver, team.parse().unwrap());
        for needed in [Relation::Viewer, Relation::User, Relation::Resolver] {
            assert!(!is_allowed(&step("deploy", "build"), needed, &edited), "{needed}");
        }
        // Bindings by a weaker relation do not count, neither for nor against.
        let mut bindings = bound(Relation::Resolver, &[workflow]);
        bindings.add(Relation::Viewer, team.parse().unwrap());
        assert!(is_allowed(&step("deploy", "build"), Relation::Resolver, &bindings));
        assert!(is_allowed(&step("deploy", "build"), Relation::User, &bindings));
        let as_team = step_as("deploy", "build", &[team]);
        assert!(!is_allowed(&as_team, Relation::Resolver, &bindings));
        assert!(is_allowed(&as_team, Relation::Viewer, &bindings));
    }
}
