//! Words that come from outside: whatever is sent, nothing panics, and what is taken is taken the same way
//! everywhere.

use keyhatch::access::{Glob, Pattern, RunAsPattern};
use keyhatch::catalog::ConnectionFilter;
use keyhatch::model::{
    ConnectionRef, GroupRef, Identifiers, IntegrationName, Reference, ResourceName, RunAs, RunName,
    SecretName, SpiffeId, StepName, Tag, TagKey, TagValue, Tags, TrustDomain, WorkflowName,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// How many words each of these tests tries.
const CASES: u32 = 100_000;

/// Runs a property over random words. Nothing is kept of what failed: the message shows it.
fn holds<S: Strategy>(words: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&words, property).unwrap_or_else(|error| panic!("{error}"));
}

/// Words that are nearly right, with one thing or another wrong, and words that are anything.
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
fn a_tag_that_is_taken_parses_to_itself_and_is_folded_the_same_everywhere() {
    holds(word(), |text| {
        let Ok(tag) = text.parse::<Tag>() else { return Ok(()) };
        let stored = tag.to_string();
        prop_assert_eq!(stored.parse::<Tag>().ok(), Some(tag.clone()));
        prop_assert!(stored.chars().count() <= 200);
        prop_assert_eq!(stored.matches(':').count(), 1);
        prop_assert!(tag.key.as_str() != "default" && tag.value.as_str() != "default");
        prop_assert_eq!(&stored, &stored.to_ascii_lowercase());
        // As a stored tag, as a group's identifier and in a request.
        let (key, value) = text.split_once(':').unwrap();
        prop_assert_eq!(TagKey::parse(key).ok(), Some(tag.key.clone()));
        prop_assert_eq!(TagValue::parse(value).ok(), Some(tag.value.clone()));
        prop_assert!(Identifiers::parse([key]).is_ok());
        let tags = Tags::parse([text.as_str()]).unwrap();
        prop_assert_eq!(tags.value(&tag.key), Some(&tag.value));
        let asked: GroupRef = format!("group:g:{key}={value}").parse().unwrap();
        prop_assert_eq!(asked.identifiers, tags);
        // Upper and lower case are one.
        prop_assert_eq!(text.to_ascii_uppercase().parse::<Tag>().ok(), Some(tag));
        Ok(())
    });
}

#[test]
fn a_name_that_is_taken_parses_to_itself_and_is_found_again_in_a_spiffe_id() {
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    holds(word(), |text| {
        if let Ok(name) = WorkflowName::parse(&text) {
            prop_assert_eq!(name.as_str(), text.as_str());
            prop_assert!(text.is_ascii() && (1..=128).contains(&text.len()));
            let id = SpiffeId::Step {
                workflow: name,
                run: RunName::parse("1:a~b").unwrap(),
                step: StepName::parse(&text).unwrap(),
            };
            let uri = id.uri(&domain);
            prop_assert_eq!(SpiffeId::parse(&uri, &domain).ok(), Some(id));
        }
        let _ = (SecretName::parse(&text).is_ok(), IntegrationName::parse(&text).is_ok());
        let _ = SpiffeId::parse(&text, &domain).is_ok();
        Ok(())
    });
}

#[test]
fn a_reference_that_is_taken_parses_to_itself() {
    fn same<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(
        text: &str,
    ) -> Result<(), TestCaseError> {
        if let Ok(parsed) = text.parse::<T>() {
            let stored = parsed.to_string();
            prop_assert_eq!(stored.parse::<T>().ok(), Some(parsed), "{} as {}", text, stored);
        }
        Ok(())
    }
    holds(word(), |text| {
        same::<ConnectionRef>(&text)?;
        same::<GroupRef>(&text)?;
        same::<Reference>(&text)?;
        same::<ResourceName>(&text)?;
        same::<RunAs>(&text)?;
        same::<RunAsPattern>(&text)?;
        same::<Glob>(&text)?;
        same::<Pattern>(&text)?;
        // What a lease says it is for is never two things.
        prop_assert!(
            text.parse::<Reference>().is_err()
                || text.parse::<ResourceName>().is_err()
                || matches!(text.parse(), Ok(Reference::Connection(_)))
        );
        let _ = ConnectionFilter::parse(&text).is_ok();
        Ok(())
    });
}
