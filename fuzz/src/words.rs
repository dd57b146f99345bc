//! Targets for the names of the model, and for the principals that a binding admits.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use keyhatch::access::{Glob, Pattern, RunAsPattern};
use keyhatch::model::{
    AllowedTarget, ConnectionName, ConnectionRef, ExecutorName, FieldName, GroupName, GroupRef, Id,
    Identifiers, IntegrationName, Invalid, KindName, Labels, OperatorName, Reference, RequestId,
    ResourceName, RunAs, RunAsName, RunName, SecretName, SpiffeId, StepName, Tag, TagKey, TagValue,
    Tags, Timestamp, TrustDomain, WorkflowName, WorkflowPath, is_unseen,
};

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// The input as text. Input that is not UTF-8 is empty, because callers reject it before.
pub fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

/// Parses a text. The text form of the result parses to the same result.
fn comes_back<T>(text: &str) -> Option<T>
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Debug,
{
    let parsed: T = text.parse().ok()?;
    let written = parsed.to_string();
    assert_eq!(written.parse::<T>().unwrap(), parsed, "{text:?} is written {written:?}");
    Some(parsed)
}

/// Parses a text. The text form of the result is the text itself.
fn is_its_text<T>(text: &str) -> Option<T>
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Debug,
{
    let parsed: T = comes_back(text)?;
    assert_eq!(parsed.to_string(), text);
    Some(parsed)
}

/// A refusal shows a bounded part of the text.
fn is_short(invalid: &Invalid) {
    assert!(invalid.text.chars().count() <= 64, "{invalid:?}");
}

/// Names are their own text. They stand in paths, references, patterns and lists, so the separators of these are in no
/// name, or in no name that they follow.
pub fn names(data: &[u8]) {
    let text = text(data);
    // The checks that all kinds of names share.
    macro_rules! name {
        ($none:literal: $($type:ident)*) => {$(
            match $type::parse(text) {
                Err(invalid) => is_short(&invalid),
                Ok(name) => {
                    assert_eq!(name.as_str(), text);
                    assert!((1..=MAX_NAME_BYTES).contains(&text.len()));
                    assert!(!text.contains(|c: char| $none.contains(c)), "{text:?}");
                    assert!(!text.contains(is_unseen) && text.trim() == text);
                    assert!(!text.split('/').any(|segment| ["", ".", ".."].contains(&segment)));
                    let json = serde_json::to_string(&name).unwrap();
                    assert_eq!(serde_json::from_str::<$type>(&json).unwrap(), name);
                    assert!(format!("{name}*").parse::<Glob<$type>>().is_ok() || text.len() == MAX_NAME_BYTES);
                }
            }
        )*};
    }
    name! { "/\\*,=%\"'${": ConnectionName ExecutorName FieldName GroupName IntegrationName KindName OperatorName
    RequestId RunAsName SecretName }
    name! { ":~\\*%\"'${": WorkflowName }
    name! { "/\\*%\"'${": RunName }
    name! { "\\*%\"'${": StepName }
    if ConnectionName::parse(text).is_ok() || SecretName::parse(text).is_ok() {
        assert!(text.is_ascii() && !text.starts_with(['.', '-']));
    }
    if let Some(path) = is_its_text::<WorkflowPath>(text) {
        assert!(path.includes(&path));
    }
    if let Some(id) = comes_back::<Id>(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
    }
    let labels = text.lines().filter_map(|line| line.split_once('='));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if let Ok(labels) = Labels::parse(labels) {
        assert_eq!(Labels::default().with(&labels).unwrap(), labels);
    }
}

/// Tags, one for each line.
pub fn tags(data: &[u8]) {
    let text = text(data);
    if let Some(tag) = comes_back::<Tag>(text) {
        let written = tag.to_string();
        assert_eq!(written, text.to_ascii_lowercase());
        assert!(written.len() <= 200 && written.matches(':').count() == 1);
        assert!(tag.key.as_str() != "default" && tag.value.as_str() != "default");
    }
    if let Ok(key) = TagKey::parse(text) {
        assert_eq!(TagKey::parse(key.as_str()).unwrap(), key);
        assert!(!key.as_str().contains([':', '=', ',']));
    }
    if let Ok(value) = TagValue::parse(text) {
        assert_eq!(TagValue::parse(value.as_str()).unwrap(), value);
        assert!(!value.as_str().contains([':', '=', ',']));
    }
    if let Ok(tags) = Tags::parse(text.lines()) {
        let written: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        assert_eq!(Tags::parse(written.iter().map(String::as_str)).unwrap(), tags);
        assert!(written.len() <= 64);
        assert_eq!(tags.with(&tags).unwrap(), tags);
    }
    if let Ok(identifiers) = Identifiers::parse(text.lines()) {
        let keys: Vec<&str> = identifiers.iter().map(TagKey::as_str).collect();
        assert!((1..=3).contains(&keys.len()) && keys.is_sorted());
    }
}

/// References in text, resource names, and the allowed references of an executor.
pub fn references(data: &[u8]) {
    let text = text(data);
    comes_back::<ConnectionRef>(text);
    comes_back::<GroupRef>(text);
    comes_back::<ResourceName>(text);
    comes_back::<AllowedTarget>(text);
    if let Some(reference) = comes_back::<Reference>(text) {
        let allowed: AllowedTarget = text.parse().unwrap();
        assert!(allowed.admits(&reference), "{text:?} does not allow itself");
        if let Reference::Connection(connection) = &reference {
            let any: AllowedTarget = format!("{}/*", connection.integration).parse().unwrap();
            assert!(any.admits(&reference));
            // The API's form names the same connection.
            let name = ResourceName::Connection(connection.clone()).to_string();
            assert_eq!(name, format!("connections/{text}"));
            assert_eq!(name.parse(), Ok(ResourceName::Connection(connection.clone())));
        }
    }
}

/// Patterns of principals. A line break separates a pattern from a name to match.
pub fn patterns(data: &[u8]) {
    let (text, name) = text(data).split_once('\n').unwrap_or((text(data), "deploy"));
    is_its_text::<Pattern>(text);
    is_its_text::<RunAsPattern>(text);
    if let Some(run_as) = is_its_text::<RunAs>(text) {
        assert_eq!(text.parse(), Ok(Pattern::RunAs(run_as)));
    }
    is_its_text::<Glob<StepName>>(text);
    let Some(glob) = is_its_text::<Glob<WorkflowName>>(text) else { return };
    assert_eq!(format!("workflow:{text}").parse(), Ok(Pattern::Workflow(glob.clone())));
    let is_meant = match text.strip_suffix('*') {
        None => text == name,
        Some(prefix) => name.starts_with(prefix),
    };
    let Ok(named) = WorkflowName::parse(name) else { return };
    assert_eq!(glob.admits(&named), is_meant, "{text:?} {name:?}");
}

/// SPIFFE IDs. Three lines name a step, whose ID is checked.
pub fn spiffe_ids(data: &[u8]) {
    let text = text(data);
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    match SpiffeId::parse(text, &domain) {
        Err(invalid) => is_short(&invalid),
        Ok(id) => {
            assert_eq!(id.uri(&domain), text);
            assert_eq!(TrustDomain::of(text).unwrap(), domain);
            let path = text.strip_prefix("spiffe://").unwrap();
            assert!(path.split('/').all(|word| !["", ".", ".."].contains(&word)), "{text:?}");
            let other = TrustDomain::parse("other.example").unwrap();
            assert!(SpiffeId::parse(text, &other).is_err());
        }
    }
    if let Ok(domain) = TrustDomain::parse(text) {
        assert_eq!(domain.as_str(), text);
    }
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let named = (WorkflowName::parse(line()), RunName::parse(line()), StepName::parse(line()));
    if let (Ok(workflow), Ok(run), Ok(step)) = named {
        let id = SpiffeId::Step { workflow, run, step };
        assert_eq!(SpiffeId::parse(&id.uri(&domain), &domain).unwrap(), id);
    }
}
