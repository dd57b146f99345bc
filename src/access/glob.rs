//! Patterns of names.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Invalid, parsed};

/// The kind of names that a glob matches.
pub trait Name: FromStr<Err = Invalid> + AsRef<str> {}

impl<N: FromStr<Err = Invalid> + AsRef<str>> Name for N {}

/// A name, a prefix of names, or any name: `deploy`, `team-a-*`, `*`. A star is at the end only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Glob<N> {
    /// `*`
    Any,
    /// `deploy`
    Exact(N),
    /// `team-a-*`
    Prefix(Prefix<N>),
}

impl<N: Name + PartialEq> Glob<N> {
    /// Whether the name matches. Names are case-sensitive.
    pub fn admits(&self, name: &N) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => prefix.admits(name),
        }
    }
}

impl<N: fmt::Display> fmt::Display for Glob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => name.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl<N: Name> FromStr for Glob<N> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_suffix('*') {
            None => text.parse().map(Self::Exact),
            Some("") => Ok(Self::Any),
            Some(start) => Prefix::parse(start).map(Self::Prefix),
        }
    }
}

impl<N: fmt::Display> Serialize for Glob<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de, N: Name> Deserialize<'de> for Glob<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, str::parse)
    }
}

/// A prefix of names, which is not empty: `team-a-`, written `team-a-*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<N>(Arc<str>, PhantomData<N>);

impl<N: Name> Prefix<N> {
    /// Parses the text before the star.
    fn parse(start: &str) -> Result<Self, Invalid> {
        // One more letter must make it a name.
        match format!("{start}x").parse::<N>() {
            Ok(_) if !start.is_empty() => Ok(Self(start.into(), PhantomData)),
            _ => {
                let rule = "the text before the * must be the start of a name";
                Err(Invalid::new("pattern", &format!("{start}*"), rule))
            }
        }
    }

    /// Whether the name has this prefix. Names are case-sensitive.
    pub fn admits(&self, name: &N) -> bool {
        name.as_ref().starts_with(&*self.0)
    }
}

impl<N> Prefix<N> {
    /// The text before the star.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<N> fmt::Display for Prefix<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}
