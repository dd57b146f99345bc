//! The access bindings of one resource.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::model::limits::MAX_PRINCIPALS;
use crate::model::{CompactMap, Invalid, compact_map};

/// A relation of a principal to a resource. Each relation includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// May see the resource.
    Viewer,
    /// May have the broker act with the credential, and gets no value.
    User,
    /// May receive the credential.
    Resolver,
    /// May change and delete the resource.
    Editor,
}

impl Relation {
    /// Every relation, the lowest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::User, Self::Resolver, Self::Editor];

    /// The word for the relation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Resolver => "resolver",
            Self::Editor => "editor",
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The access bindings of one resource, as one flat sorted list: there are many resources with few principals each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBindings", into = "ByRelation")]
pub struct Bindings(Vec<(Relation, Pattern)>);

/// The form in records: `{"resolver": ["workflow:deploy"]}`.
type ByRelation = BTreeMap<Relation, BTreeSet<Pattern>>;

/// The form while a catalogue is read. A B-tree would have room for eleven entries each.
#[derive(Deserialize)]
#[serde(transparent)]
struct StoredBindings(#[serde(with = "compact_map")] CompactMap<Relation, Vec<Pattern>>);

impl Bindings {
    /// Binds `patterns` by this relation, in place of all that were bound by it.
    ///
    /// # Errors
    /// If there are too many patterns.
    pub fn replace(
        &mut self,
        relation: Relation,
        patterns: BTreeSet<Pattern>,
    ) -> Result<(), Invalid> {
        if patterns.len() > MAX_PRINCIPALS {
            let text = relation.to_string();
            return Err(Invalid::new("access binding", &text, "at most 100 principals each"));
        }
        self.0.retain(|(bound, _)| *bound != relation);
        self.0.extend(patterns.into_iter().map(|pattern| (relation, pattern)));
        self.0.sort_unstable();
        Ok(())
    }

    /// Replaces the bindings of every relation that is named, and leaves the others.
    ///
    /// # Errors
    /// As [`Bindings::replace`].
    pub fn replace_all(
        &mut self,
        changes: BTreeMap<Relation, BTreeSet<Pattern>>,
    ) -> Result<(), Invalid> {
        changes.into_iter().try_for_each(|(relation, patterns)| self.replace(relation, patterns))
    }

    /// Binds one more principal by this relation.
    pub fn add(&mut self, relation: Relation, pattern: Pattern) {
        let bound = (relation, pattern);
        if let Err(place) = self.0.binary_search(&bound) {
            self.0.insert(place, bound);
        }
    }

    /// Every relation with its principals.
    pub fn iter(&self) -> impl Iterator<Item = (Relation, impl Iterator<Item = &Pattern>)> {
        let bound = self.0.chunk_by(|(one, _), (next, _)| one == next);
        bound.filter_map(|bound| {
            let (relation, _) = bound.first()?;
            Some((*relation, bound.iter().map(|(_, pattern)| pattern)))
        })
    }

    /// Every principal that has at least this relation, with the relation that binds it.
    pub fn at_least(&self, needed: Relation) -> impl Iterator<Item = (Relation, &Pattern)> {
        let first = self.0.partition_point(|(relation, _)| *relation < needed);
        let enough = self.0.get(first..).unwrap_or_default();
        enough.iter().map(|(relation, pattern)| (*relation, pattern))
    }
}

impl From<StoredBindings> for Bindings {
    fn from(StoredBindings(by_relation): StoredBindings) -> Self {
        let with = |(relation, patterns): (Relation, Vec<Pattern>)| {
            patterns.into_iter().map(move |pattern| (relation, pattern))
        };
        let mut bound: Vec<_> = by_relation.into_iter().flat_map(with).collect();
        bound.sort_unstable();
        bound.dedup();
        bound.shrink_to_fit();
        Self(bound)
    }
}

impl From<Bindings> for ByRelation {
    fn from(bindings: Bindings) -> Self {
        let mut by_relation = Self::new();
        for (relation, pattern) in bindings.0 {
            by_relation.entry(relation).or_default().insert(pattern);
        }
        by_relation
    }
}
