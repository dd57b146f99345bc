//! The access bindings of one resource.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::model::Invalid;
use crate::model::limits::MAX_PRINCIPALS;

/// A relation of a principal to a resource. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// May see it.
    Viewer,
    /// May receive the credential.
    Resolver,
    /// May change and delete it.
    Editor,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Resolver => "resolver",
            Self::Editor => "editor",
        })
    }
}

/// The access bindings of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bindings(BTreeMap<Relation, BTreeSet<Pattern>>);

impl Bindings {
    /// Gives `patterns` this relation, and takes it from all others.
    ///
    /// # Errors
    /// If there are more than a binding may have.
    pub fn replace(
        &mut self,
        relation: Relation,
        patterns: BTreeSet<Pattern>,
    ) -> Result<(), Invalid> {
        if patterns.len() > MAX_PRINCIPALS {
            let text = relation.to_string();
            return Err(Invalid::new("access binding", &text, "at most 100 principals each"));
        }
        if patterns.is_empty() {
            self.0.remove(&relation);
        } else {
            self.0.insert(relation, patterns);
        }
        Ok(())
    }

    /// Replaces every relation that is named, and leaves the others.
    ///
    /// # Errors
    /// As [`Bindings::replace`].
    pub fn replace_all(
        &mut self,
        changes: BTreeMap<Relation, BTreeSet<Pattern>>,
    ) -> Result<(), Invalid> {
        changes.into_iter().try_for_each(|(relation, patterns)| self.replace(relation, patterns))
    }

    /// Gives one more principal this relation.
    pub fn add(&mut self, relation: Relation, pattern: Pattern) {
        self.0.entry(relation).or_default().insert(pattern);
    }

    /// Every relation with its principals.
    pub fn iter(&self) -> impl Iterator<Item = (Relation, &BTreeSet<Pattern>)> {
        self.0.iter().map(|(relation, patterns)| (*relation, patterns))
    }

    /// Every principal that has at least this relation, with the relation that it is bound by.
    pub fn at_least(&self, needed: Relation) -> impl Iterator<Item = (Relation, &Pattern)> {
        let enough = self.0.range(needed..);
        enough.flat_map(|(relation, patterns)| patterns.iter().map(|one| (*relation, one)))
    }
}
