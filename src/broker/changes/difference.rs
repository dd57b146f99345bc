//! The differences between two states of a resource, without secret values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::access::{Bindings, Relation};
use crate::catalog::{Catalog, ConnectionMetadata, FieldMetadata, Group};
use crate::integration::{CredentialKind, FieldRule, Integration};
use crate::model::{ResourceName, SendLimits, Tags};

/// The most differences of one resource that are listed beside access and safety.
const MAX_DIFFERENCES: usize = 100;
/// The longest text that is shown, in characters. No principal is longer, so principals are shown whole.
const MAX_SHOWN: usize = 300;
/// The characters that are shown before the first difference of two long texts.
const CONTEXT: usize = 20;

/// One difference.
pub struct Difference {
    /// The part that differs: "fields.NAME", "tags.KEY" …
    pub path: String,
    /// The text before; `None` if there was none, or it is not shown.
    pub old: Option<String>,
    /// The text after.
    pub new: Option<String>,
    /// True for a value that is never shown.
    pub sensitive: bool,
    /// True if the part was removed.
    pub removed: bool,
}

/// The differences of one resource.
#[derive(Default)]
pub struct Differences {
    /// All differences of access. They come first, so that nothing hides them.
    pub access: Vec<Difference>,
    /// All differences of the kind, of destinations and of sensitive fields.
    pub safety: Vec<Difference>,
    /// The other differences, up to the limit.
    pub others: Vec<Difference>,
    /// The number of differences beyond the limit.
    pub untold: usize,
}

impl Differences {
    /// The differences of the resource of this name, which may be new.
    pub(crate) fn between(old: &Catalog, new: &Catalog, name: &ResourceName) -> Self {
        let mut found = match name {
            ResourceName::Connection(name) => {
                let before = old.connection(name).map(|one| &one.metadata);
                let after = new.connection(name);
                let of = |metadata: &ConnectionMetadata| {
                    let integration = new.integration(&metadata.integration);
                    let kind = integration.and_then(|one| one.kind(metadata.kind.as_str()));
                    of_connections(before, metadata, kind)
                };
                after.map(|after| of(&after.metadata)).unwrap_or_default()
            }
            ResourceName::Group(name) => {
                let after = new.group(name);
                after
                    .map(|after| of_groups(old.group(name).map(|group| &**group), after))
                    .unwrap_or_default()
            }
            ResourceName::Integration(name) => {
                let after = new.integration(name);
                after.map(|after| of_integrations(old.integration(name), after)).unwrap_or_default()
            }
            ResourceName::Secret(_) => {
                Self { others: vec![hidden("value".to_owned())], ..Self::default() }
            }
            ResourceName::Executor(_)
            | ResourceName::Lease(_)
            | ResourceName::Opening(_)
            | ResourceName::Operator(_) => Self::default(),
        };
        found.untold = found.others.len().saturating_sub(MAX_DIFFERENCES);
        found.others.truncate(MAX_DIFFERENCES);
        found
    }
}

fn of_connections(
    old: Option<&ConnectionMetadata>,
    new: &ConnectionMetadata,
    rules: Option<&CredentialKind>,
) -> Differences {
    let kind = of_texts("kind", old.map(|old| &old.kind), Some(&new.kind));
    // Of a new connection that is never minted there is nothing to say.
    let after = Some(&new.release).filter(|_| old.is_some() || new.is_mintable());
    let release = of_texts("release", old.map(|old| &old.release), after);
    let send =
        of_maps("send", &old.map(|old| limits(&old.send)).unwrap_or_default(), &limits(&new.send));
    let safety = kind.into_iter().chain(release).chain(send);
    let safety = safety.chain(of_fields(old, new, rules, true)).collect();
    let mut found = Vec::new();
    let (is_disabled, is_default) = match old {
        Some(old) => (old.disabled, old.is_default),
        None => (false, false),
    };
    found.extend(of_texts("disabled", Some(&is_disabled), Some(&new.disabled)));
    found.extend(of_texts("default", Some(&is_default), Some(&new.is_default)));
    let expires = old.and_then(|old| old.expires.as_ref());
    found.extend(of_texts("expires", expires, new.expires.as_ref()));
    let seconds = |ttl: Option<u64>| ttl.map(|ttl| format!("{ttl}s"));
    let before = seconds(old.and_then(|old| old.max_ttl_seconds));
    found.extend(of_texts("max_ttl", before.as_ref(), seconds(new.max_ttl_seconds).as_ref()));
    let before = old.map(|old| tags(&old.tags)).unwrap_or_default();
    found.extend(of_maps("tags", &before, &tags(&new.tags)));
    let before = old.map(|old| old.labels.clone()).unwrap_or_default();
    found.extend(of_maps("labels", before.as_map(), new.labels.as_map()));
    found.extend(of_fields(old, new, rules, false));
    let access = of_access(old.map(|old| &old.access), &new.access);
    Differences { access, safety, others: found, untold: 0 }
}

/// The limits of what is sent, by their parts.
fn limits(send: &SendLimits) -> BTreeMap<String, String> {
    let parts = [("methods", send.methods()), ("paths", send.paths())];
    let set = parts.into_iter().filter(|(_, entries)| !entries.is_empty());
    set.map(|(name, entries)| (name.to_owned(), entries.join(", "))).collect()
}

/// The differences of destination fields, or of the other fields.
fn of_fields(
    old: Option<&ConnectionMetadata>,
    new: &ConnectionMetadata,
    rules: Option<&CredentialKind>,
    destinations: bool,
) -> Vec<Difference> {
    let of_old = |name| old.and_then(|old| old.fields.get(name));
    let names = old.into_iter().flat_map(|old| old.fields.keys());
    let names: BTreeSet<_> = names.chain(new.fields.keys()).collect();
    let differs = names.into_iter().filter_map(|name| {
        let (before, after) = (of_old(name), new.fields.get(name));
        let rule = |field: &FieldMetadata| (field.fingerprint, field.sensitive, field.destination);
        let mut either = before.into_iter().chain(after);
        let is_destination = either.any(|field| field.is_destination(name, rules));
        if is_destination != destinations || before.map(rule) == after.map(rule) {
            return None;
        }
        let path = format!("fields.{name}");
        if before.into_iter().chain(after).any(|field| field.sensitive) {
            return Some(Difference { removed: after.is_none(), ..hidden(path) });
        }
        let text = |field: &FieldMetadata| String::from_utf8_lossy(&field.value).into_owned();
        Some(shown(path, before.map(text), after.map(text)))
    });
    differs.collect()
}

fn of_groups(old: Option<&Group>, new: &Group) -> Differences {
    let keys = |group: &Group| {
        let keys = group.metadata.identifiers.iter().map(ToString::to_string);
        keys.collect::<Vec<_>>().join(", ")
    };
    let members = |group: &Group| {
        let names = group.members().map(|member| member.metadata.reference().to_string());
        names.collect::<BTreeSet<String>>()
    };
    let mut found = Vec::new();
    let before = old.map(|old| &old.metadata.integration);
    found.extend(of_texts("integration", before, Some(&new.metadata.integration)));
    found.extend(of_texts("identifiers", old.map(keys).as_ref(), Some(&keys(new))));
    found.extend(of_sets("members", &old.map(members).unwrap_or_default(), &members(new)));
    let before = old.map(|old| old.metadata.labels.clone()).unwrap_or_default();
    found.extend(of_maps("labels", before.as_map(), new.metadata.labels.as_map()));
    let access = of_access(old.map(|old| &old.metadata.access), &new.metadata.access);
    Differences { access, others: found, ..Differences::default() }
}

fn of_integrations(old: Option<&Integration>, new: &Integration) -> Differences {
    let kinds = old.into_iter().chain([new]).flat_map(|one| &one.kinds);
    let kinds: BTreeSet<_> = kinds.map(|kind| kind.name.as_str()).collect();
    let mut found = Differences::default();
    let mut texts = Vec::from_iter(of_texts("title", old.map(|old| &old.title), Some(&new.title)));
    for name in kinds {
        let (before, after) = (old.and_then(|old| old.kind(name)), new.kind(name));
        let is = |kind: Option<&CredentialKind>| kind.map(|_| name.to_owned());
        let of_rules = |attributes| of_rules(name, before, after, attributes);
        found.safety.extend(of_texts("kinds", is(before).as_ref(), is(after).as_ref()));
        found.safety.extend(of_rules(safety));
        found.safety.extend(of_aliases(name, before, after));
        found.others.extend(of_rules(forms));
        let (before, after) = (before.map(|kind| &kind.title), after.map(|kind| &kind.title));
        texts.extend(of_texts(&format!("kinds.{name}.title"), before, after));
        texts.extend(of_rules(descriptions));
    }
    found.others.append(&mut texts);
    found
}

/// Attributes of a field's rule, and their texts. An empty text is an absent attribute.
type Attributes = Vec<(&'static str, String)>;

/// The attributes that keep values safe. `sensitive` is always present, so that new and removed fields are seen.
fn safety(rule: &FieldRule) -> Attributes {
    let when = |is: bool| if is { is.to_string() } else { String::new() };
    vec![
        ("sensitive", rule.sensitive.to_string()),
        ("destination", when(rule.destination)),
        ("required", when(rule.required)),
        ("template", when(rule.template)),
        ("env", rule.env.clone()),
    ]
}

/// The attributes that restrict values.
fn forms(rule: &FieldRule) -> Attributes {
    let form = rule.form.map(|form| format!("{form:?}"));
    vec![("form", form.unwrap_or_default()), ("pattern", rule.pattern.clone().unwrap_or_default())]
}

/// The attributes that people read.
fn descriptions(rule: &FieldRule) -> Attributes {
    vec![("example", rule.example.clone()), ("description", rule.description.clone())]
}

fn of_rules(
    kind: &str,
    old: Option<&CredentialKind>,
    new: Option<&CredentialKind>,
    attributes: fn(&FieldRule) -> Attributes,
) -> Vec<Difference> {
    let of = |kind: Option<&CredentialKind>| {
        let rules = kind.into_iter().flat_map(|kind| &kind.fields);
        let said = rules.flat_map(|rule| {
            let at = |(attribute, text)| (format!("{}.{attribute}", rule.name), text);
            attributes(rule).into_iter().filter(|(_, text)| !text.is_empty()).map(at)
        });
        said.collect()
    };
    of_maps(&format!("kinds.{kind}"), &of(old), &of(new))
}

fn of_aliases(
    kind: &str,
    old: Option<&CredentialKind>,
    new: Option<&CredentialKind>,
) -> Vec<Difference> {
    let rules = |kind: Option<&CredentialKind>| {
        let rules = kind.into_iter().flat_map(|kind| &kind.fields);
        let aliases =
            |rule: &FieldRule| (rule.name.clone(), rule.aliases.iter().cloned().collect());
        rules.map(aliases).collect::<BTreeMap<String, BTreeSet<String>>>()
    };
    let (mut old, mut new) = (rules(old), rules(new));
    let fields: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let differs = fields.into_iter().flat_map(|field| {
        let (old, new) = (old.remove(&field), new.remove(&field));
        let path = format!("kinds.{kind}.{field}.aliases");
        of_sets(&path, &old.unwrap_or_default(), &new.unwrap_or_default())
    });
    differs.collect()
}

fn of_access(old: Option<&Bindings>, new: &Bindings) -> Vec<Difference> {
    let of = |bindings: Option<&Bindings>, relation: Relation| {
        let bound = bindings.into_iter().flat_map(Bindings::iter);
        let bound = bound.filter(|(bound, _)| *bound == relation);
        let principals = bound.flat_map(|(_, principals)| principals);
        principals.map(ToString::to_string).collect::<BTreeSet<String>>()
    };
    let differs = Relation::ALL.into_iter().flat_map(|relation| {
        of_sets(&format!("access.{relation}"), &of(old, relation), &of(Some(new), relation))
    });
    differs.collect()
}

/// Each added or removed entry.
fn of_sets(path: &str, old: &BTreeSet<String>, new: &BTreeSet<String>) -> Vec<Difference> {
    let gone = old.difference(new).map(|one| shown(path.to_owned(), Some(one.clone()), None));
    let come = new.difference(old).map(|one| shown(path.to_owned(), None, Some(one.clone())));
    gone.chain(come).collect()
}

fn tags(tags: &Tags) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key.to_string(), tag.value.to_string())).collect()
}

fn of_maps(
    path: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |key| of_texts(&format!("{path}.{key}"), old.get(key), new.get(key));
    keys.into_iter().filter_map(differs).collect()
}

fn of_texts<T: Display + PartialEq>(
    path: &str,
    old: Option<&T>,
    new: Option<&T>,
) -> Option<Difference> {
    let is_same = old == new;
    (!is_same)
        .then(|| shown(path.to_owned(), old.map(ToString::to_string), new.map(ToString::to_string)))
}

/// The difference of two texts. Long texts begin shortly before they differ.
fn shown(path: String, old: Option<String>, new: Option<String>) -> Difference {
    let is_long = |text: &String| text.chars().nth(MAX_SHOWN).is_some();
    let start = match (&old, &new) {
        (Some(old), Some(new)) if is_long(old) || is_long(new) => {
            let alike = old.chars().zip(new.chars()).take_while(|(old, new)| old == new);
            alike.count().saturating_sub(CONTEXT)
        }
        _ => 0,
    };
    let short = |text: String| {
        let mut rest = text.chars().skip(start);
        let shown: String = rest.by_ref().take(MAX_SHOWN).collect();
        let before = if start > 0 { "… " } else { "" };
        let after = if rest.next().is_some() { " …" } else { "" };
        format!("{before}{shown}{after}")
    };
    let removed = new.is_none();
    Difference { path, old: old.map(short), new: new.map(short), sensitive: false, removed }
}

fn hidden(path: String) -> Difference {
    Difference { path, old: None, new: None, sensitive: true, removed: false }
}
