//! Words from outside: no input causes a panic, and every accepted word means the same everywhere.

use std::cell::Cell;

use keyhatch::access::{Glob, Pattern, RunAsPattern};
use keyhatch::catalog::{ConnectionMetadata, Filter};
use keyhatch::model::{
    ConnectionRef, GroupRef, Identifiers, IntegrationName, Reference, ResourceName, RunAs,
    RunAsName, RunName, SecretName, SecretRef, SpiffeId, StepName, Tag, TagKey, TagValue, Tags,
    TrustDomain, WorkflowName, WorkflowPath,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The number of words that each test tries.
const CASES: u32 = 100_000;

/// Runs a property over random words. No file keeps a failure, because the message shows it.
fn holds<S: Strategy>(words: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    holds_of(CASES, words, property);
}

fn holds_of<S: Strategy>(
    cases: u32,
    words: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&words, property).unwrap_or_else(|error| panic!("{error}"));
}

/// Words with a small fault, and random words.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z][a-zA-Z0-9_/-]{0,6}[:=][a-zA-Z0-9_/-]{1,6}",
        2 => "(default|Default|DEFAULT|env|1env)[:=](default|deFault|prod|a.b|x y|)",
        2 => "(group|secret|default|workflow|operator|user|team):[a-z]{0,3}[*:/]{0,2}(step:)?[a-z=,]{0,4}",
        2 => "(connections|groups|openings|workflows|operators)/[a-zA-Z0-9/ ._-]{0,12}",
        1 => "[a-z0-9]{1,3}/[a-zA-Z0-9 ._@+-]{0,8}",
        1 => "[a-z]{0,210}[:]?[a-z]{0,3}",
        1 => "\\PC{0,12}",
        1 => any::<String>(),
    ]
}

#[test]
fn an_accepted_tag_parses_to_itself_and_folds_the_same() {
    holds(word(), |text| {
        let Ok(tag) = text.parse::<Tag>() else { return Ok(()) };
        let stored = tag.to_string();
        prop_assert_eq!(stored.parse::<Tag>().ok(), Some(tag.clone()));
        prop_assert!(stored.chars().count() <= 200);
        prop_assert_eq!(stored.matches(':').count(), 1);
        prop_assert!(tag.key.as_str() != "default" && tag.value.as_str() != "default");
        prop_assert_eq!(&stored, &stored.to_ascii_lowercase());
        // The tag stands in a record, in a group's identifiers and in a request.
        let (key, value) = text.split_once(':').unwrap();
        prop_assert_eq!(TagKey::parse(key).ok(), Some(tag.key.clone()));
        prop_assert_eq!(TagValue::parse(value).ok(), Some(tag.value.clone()));
        prop_assert!(Identifiers::parse([key]).is_ok());
        let tags = Tags::parse([text.as_str()]).unwrap();
        prop_assert_eq!(tags.value(&tag.key), Some(&tag.value));
        let asked: GroupRef = format!("group:g:{key}={value}").parse().unwrap();
        prop_assert_eq!(asked.identifiers, tags);
        // Upper and lower case are equal.
        prop_assert_eq!(text.to_ascii_uppercase().parse::<Tag>().ok(), Some(tag));
        Ok(())
    });
}

/// Names made mostly of characters that separate names in texts.
fn engine_name() -> impl Strategy<Value = String> {
    of_pieces("(/step:|/run:|/secrets/|workflow:|/|:|~|_2F|_|-|\\.|\\.\\.)")
}

/// Names of a few pieces, so that two of them are often nearly equal.
fn of_pieces(separator: &'static str) -> impl Strategy<Value = String> {
    let piece = prop_oneof![3 => separator, 3 => "[ab部3]", 1 => "[ \\[\\](),=#@+é]", 1 => "\\PC"];
    prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

/// The names of a workflow, a run and a step, nearly all of them right.
fn names_of_a_step() -> impl Strategy<Value = [String; 3]> {
    let separators = [
        "(/step/|/run/|/secrets/|workflow|/|_2F|_|-|\\.)",
        "(step:|run:|secrets|:|~|_3A|_|-|\\.)",
        "(/step:|/run:|/secrets/|workflow:|/|:|~|_2F|-|\\.)",
    ];
    separators
        .map(|separator| ("[aé]", of_pieces(separator), "[b3]").prop_map(|(a, b, c)| a + &b + &c))
}

#[test]
fn an_accepted_name_parses_to_itself_also_in_a_spiffe_id() {
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    holds(prop_oneof![word(), engine_name()], |text| {
        let step = StepName::parse(&text);
        if let Ok(workflow) = WorkflowName::parse(&text) {
            prop_assert_eq!(workflow.as_str(), text.as_str());
            prop_assert!((1..=128).contains(&text.len()) && !text.contains([':', '*']));
            // Every workflow name is a step name too.
            let run = RunName::parse("1:a~b").unwrap();
            let id = SpiffeId::Step { workflow, run, step: step.clone().unwrap() };
            let uri = id.uri(&domain);
            prop_assert_eq!(uri.matches('/').count(), 8, "{}", uri);
            prop_assert_eq!(SpiffeId::parse(&uri, &domain).ok(), Some(id));
        }
        if let Ok(run) = RunName::parse(&text) {
            prop_assert!(run.as_str() == text && !text.contains(['/', '*']));
            prop_assert!(step.is_ok());
        }
        let _ = (SecretName::parse(&text).is_ok(), IntegrationName::parse(&text).is_ok());
        let _ = SpiffeId::parse(&text, &domain).is_ok();
        Ok(())
    });
}

/// All texts that contain the names of a step.
fn texts_of(names: &(WorkflowName, RunName, StepName)) -> [String; 6] {
    let (workflow, run, step) = names;
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let path = WorkflowPath::of_step(workflow, run, step);
    let secret = SecretRef { workflow: workflow.clone(), name: SecretName::parse("_s").unwrap() };
    let id = SpiffeId::Step { workflow: workflow.clone(), run: run.clone(), step: step.clone() };
    [
        id.uri(&domain),
        path.to_string(),
        WorkflowPath { step: None, ..path.clone() }.to_string(),
        WorkflowPath { run: None, step: None, ..path }.to_string(),
        Pattern::WorkflowStep(workflow.clone(), step.clone()).to_string(),
        ResourceName::Secret(secret).to_string(),
    ]
}

#[test]
fn no_two_steps_give_the_same_text_and_each_is_found_in_its_own() {
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let named = |[workflow, run, step]: [String; 3]| {
        Some((workflow.parse().ok()?, run.parse().ok()?, step.parse().ok()?))
    };
    let (cases, tried) = (CASES / 5, Cell::new(0));
    // The two steps share one or two of their names.
    let steps = (names_of_a_step(), names_of_a_step(), any::<[bool; 3]>());
    holds_of(cases, steps, |(one, other, same)| {
        let pick =
            |place: usize| if same[place] { one[place].clone() } else { other[place].clone() };
        let (Some(other), Some(one)) = (named([0, 1, 2].map(pick)), named(one.clone())) else {
            return Ok(());
        };
        tried.set(tried.get() + 1);
        let (workflow, run, step) = &one;
        let (ours, theirs) = (texts_of(&one), texts_of(&other));
        let in_workflow = *workflow == other.0;
        let in_run = in_workflow && *run == other.1;
        let step_too = *step == other.2;
        let same = [
            in_run && step_too,
            in_run && step_too,
            in_run,
            in_workflow,
            in_workflow && step_too,
            in_workflow,
        ];
        for (place, is_same) in same.into_iter().enumerate() {
            let (ours, theirs) = (&ours[place], &theirs[place]);
            prop_assert_eq!(ours == theirs, is_same, "{} {}", ours, theirs);
        }
        let found = SpiffeId::parse(&ours[0], &domain).unwrap();
        prop_assert_eq!(&found.uri(&domain), &ours[0]);
        for place in 1..=3 {
            let found: WorkflowPath = ours[place].parse().unwrap();
            prop_assert_eq!(&found.to_string(), &ours[place]);
            prop_assert_eq!(&found.workflow, workflow);
            prop_assert!(found.run.as_ref().is_none_or(|found| found == run));
            prop_assert!(found.step.as_ref().is_none_or(|found| found == step));
            prop_assert_eq!(found.includes(&theirs[1].parse().unwrap()), same[place]);
        }
        let bound = Pattern::WorkflowStep(workflow.clone(), step.clone());
        prop_assert_eq!(ours[4].parse::<Pattern>().unwrap(), bound);
        let Ok(ResourceName::Secret(secret)) = ours[5].parse() else { panic!("{}", ours[5]) };
        prop_assert_eq!(&secret.workflow, workflow);
        Ok(())
    });
    assert!(tried.get() > cases / 4, "{} of {cases}", tried.get());
}

#[test]
fn an_accepted_reference_parses_to_itself() {
    fn same<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(
        text: &str,
    ) -> Result<(), TestCaseError> {
        if let Ok(parsed) = text.parse::<T>() {
            let stored = parsed.to_string();
            prop_assert_eq!(stored.parse::<T>().ok(), Some(parsed), "{} as {}", text, stored);
        }
        Ok(())
    }
    let name = "(|workflow:|workflows/|group:|secret:|connections/)"
        .prop_flat_map(|start| engine_name().prop_map(move |name| format!("{start}{name}")));
    holds(prop_oneof![word(), name], |text| {
        same::<ConnectionRef>(&text)?;
        same::<GroupRef>(&text)?;
        same::<Reference>(&text)?;
        same::<ResourceName>(&text)?;
        same::<RunAs>(&text)?;
        same::<RunAsPattern>(&text)?;
        same::<Glob<RunAsName>>(&text)?;
        same::<Glob<StepName>>(&text)?;
        same::<Glob<WorkflowName>>(&text)?;
        same::<WorkflowPath>(&text)?;
        same::<Pattern>(&text)?;
        // The target of a lease has one meaning.
        prop_assert!(
            text.parse::<Reference>().is_err()
                || text.parse::<ResourceName>().is_err()
                || matches!(text.parse(), Ok(Reference::Connection(_)))
        );
        let _ = Filter::<ConnectionMetadata>::parse(&text).is_ok();
        Ok(())
    });
}
