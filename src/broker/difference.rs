//! What differs between two states of a resource, as far as anybody may see it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::access::{Bindings, Relation};
use crate::catalog::{Catalog, ConnectionMetadata, FieldMetadata, Group};
use crate::integration::Integration;
use crate::model::{ResourceName, Tags};

/// The most that is told of one resource.
const MAX_DIFFERENCES: usize = 100;
/// The longest text that is shown, in characters.
const MAX_SHOWN: usize = 200;

/// One thing that differs.
pub struct Difference {
    /// What: "fields.NAME", "tags.KEY" …
    pub path: String,
    /// Before; none if there was nothing, or it is not shown.
    pub old: Option<String>,
    /// After.
    pub new: Option<String>,
    /// Whether it is a value that is never shown.
    pub sensitive: bool,
}

/// What differs of the resource of this name.
pub(super) fn differences(old: &Catalog, new: &Catalog, name: &ResourceName) -> Vec<Difference> {
    let mut found = match name {
        ResourceName::Connection(name) => match (old.connection(name), new.connection(name)) {
            (Some(old), Some(new)) => of_connections(&old.metadata, &new.metadata),
            _ => Vec::new(),
        },
        ResourceName::Group(name) => match (old.group(name), new.group(name)) {
            (Some(old), Some(new)) => of_groups(old, new),
            _ => Vec::new(),
        },
        ResourceName::Integration(name) => match (old.integration(name), new.integration(name)) {
            (Some(old), Some(new)) => of_integrations(old, new),
            _ => Vec::new(),
        },
        ResourceName::Secret(_) => vec![hidden("value".to_owned())],
        ResourceName::Executor(_)
        | ResourceName::Lease(_)
        | ResourceName::Opening(_)
        | ResourceName::Operator(_) => Vec::new(),
    };
    found.truncate(MAX_DIFFERENCES);
    found
}

fn of_connections(old: &ConnectionMetadata, new: &ConnectionMetadata) -> Vec<Difference> {
    let mut found = of_fields(old, new);
    found.extend(of_maps("tags", &tags(&old.tags), &tags(&new.tags)));
    found.extend(of_maps("labels", old.labels.as_map(), new.labels.as_map()));
    found.extend(of_access(&old.access, &new.access));
    found.extend(of_texts("disabled", Some(&old.disabled), Some(&new.disabled)));
    found.extend(of_texts("default", Some(&old.is_default), Some(&new.is_default)));
    found.extend(of_texts("expires", old.expires.as_ref(), new.expires.as_ref()));
    let seconds = |ttl: Option<u64>| ttl.map(|ttl| format!("{ttl}s"));
    let (before, after) = (seconds(old.max_ttl_seconds), seconds(new.max_ttl_seconds));
    found.extend(of_texts("max_ttl", before.as_ref(), after.as_ref()));
    found
}

fn of_fields(old: &ConnectionMetadata, new: &ConnectionMetadata) -> Vec<Difference> {
    let names: BTreeSet<_> = old.fields.keys().chain(new.fields.keys()).collect();
    let differs = names.into_iter().filter_map(|name| {
        let (before, after) = (old.fields.get(name), new.fields.get(name));
        let rule = |field: &FieldMetadata| (field.fingerprint, field.sensitive, field.destination);
        if before.map(rule) == after.map(rule) {
            return None;
        }
        let path = format!("fields.{name}");
        if before.into_iter().chain(after).any(|field| field.sensitive) {
            return Some(hidden(path));
        }
        let text = |field: &FieldMetadata| String::from_utf8_lossy(&field.value).into_owned();
        Some(shown(path, before.map(text), after.map(text)))
    });
    differs.collect()
}

fn of_groups(old: &Group, new: &Group) -> Vec<Difference> {
    let keys = |group: &Group| {
        let keys = group.metadata.identifiers.iter().map(ToString::to_string);
        keys.collect::<Vec<_>>().join(", ")
    };
    let members = |group: &Group| {
        let names = group.members().map(|member| member.metadata.reference().to_string());
        names.collect()
    };
    let mut found = Vec::new();
    found.extend(of_texts("identifiers", Some(&keys(old)), Some(&keys(new))));
    found.extend(of_sets("members", &members(old), &members(new)));
    let (before, after) = (&old.metadata.labels, &new.metadata.labels);
    found.extend(of_maps("labels", before.as_map(), after.as_map()));
    found.extend(of_access(&old.metadata.access, &new.metadata.access));
    found
}

fn of_integrations(old: &Integration, new: &Integration) -> Vec<Difference> {
    let title = of_texts("title", Some(&old.title), Some(&new.title));
    let kinds: BTreeSet<_> =
        old.kinds.iter().chain(&new.kinds).map(|kind| kind.name.clone()).collect();
    let differs = kinds.into_iter().filter_map(|name| {
        let (before, after) = (old.kind(name.as_str()), new.kind(name.as_str()));
        let is = |there: bool| there.then(|| name.to_string());
        let is_same = before == after;
        (!is_same).then(|| shown("kinds".to_owned(), is(before.is_some()), is(after.is_some())))
    });
    title.into_iter().chain(differs).collect()
}

fn of_access(old: &Bindings, new: &Bindings) -> Vec<Difference> {
    let of = |bindings: &Bindings, relation: Relation| {
        let bound = bindings.iter().filter(|(bound, _)| *bound == relation);
        let principals = bound.flat_map(|(_, principals)| principals);
        principals.map(ToString::to_string).collect::<BTreeSet<String>>()
    };
    let relations = [Relation::Viewer, Relation::Resolver, Relation::Editor];
    let differs = relations.into_iter().flat_map(|relation| {
        of_sets(&format!("access.{relation}"), &of(old, relation), &of(new, relation))
    });
    differs.collect()
}

/// Each that came or went.
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

fn shown(path: String, old: Option<String>, new: Option<String>) -> Difference {
    let short = |text: String| match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text,
    };
    Difference { path, old: old.map(short), new: new.map(short), sensitive: false }
}

fn hidden(path: String) -> Difference {
    Difference { path, old: None, new: None, sensitive: true }
}
