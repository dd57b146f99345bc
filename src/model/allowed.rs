//! The targets that an executor allows a step to ask for. Access must allow them, too.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::names::name::{GroupName, IntegrationName, Invalid};
use super::names::reference::Reference;
use super::text::read_from_text;

/// A target, or a kind of targets, that a step may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum AllowedTarget {
    /// `aws/*`: every connection of an integration.
    AnyOf(IntegrationName),
    /// `secret:*`: every secret of its workflow.
    AnySecret,
    /// `group:NAME`: every member of a group.
    Group(GroupName),
    /// This reference alone.
    Only(Reference),
}

impl AllowedTarget {
    /// True if a step may ask for this reference. The reference counts, not its answer: an allowed connection may not be
    /// asked for through a group that is not allowed.
    pub fn admits(&self, target: &Reference) -> bool {
        match (self, target) {
            (Self::AnyOf(integration), Reference::Connection(name)) => {
                name.integration == *integration
            }
            (Self::AnySecret, Reference::Secret(_)) => true,
            (Self::Group(name), Reference::Group(group)) => group.name == *name,
            (Self::Only(only), target) => only == target,
            _ => false,
        }
    }
}

impl fmt::Display for AllowedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyOf(integration) => write!(f, "{integration}/*"),
            Self::AnySecret => f.write_str("secret:*"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Only(only) => only.fmt(f),
        }
    }
}

impl FromStr for AllowedTarget {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "secret:*" {
            return Ok(Self::AnySecret);
        }
        if let Some(integration) = text.strip_suffix("/*") {
            return IntegrationName::parse(integration).map(Self::AnyOf);
        }
        match text.strip_prefix("group:") {
            Some(name) if !name.contains(':') => GroupName::parse(name).map(Self::Group),
            _ => text.parse().map(Self::Only),
        }
    }
}

read_from_text!(AllowedTarget, str::parse);

impl From<AllowedTarget> for String {
    fn from(target: AllowedTarget) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_allowed_by_what_names_it_and_by_nothing_else() {
        let cases = [
            ("aws/prod", "aws/prod", true),
            ("aws/prod", "aws/prod2", false),
            ("aws/*", "aws/prod", true),
            ("aws/*", "aws2/prod", false),
            ("aws/*", "default:aws", false),
            ("aws/*", "group:g:env=prod", false),
            ("group:g", "group:g:env=prod", true),
            ("group:g", "group:g2:env=prod", false),
            ("group:g:env=prod", "group:g:env=prod", true),
            ("group:g:env=prod", "group:g:env=dev", false),
            ("secret:a", "secret:a", true),
            ("secret:a", "secret:b", false),
            ("secret:*", "secret:b", true),
            ("secret:*", "aws/prod", false),
            ("default:aws", "default:aws", true),
        ];
        for (allowed, asked, expected) in cases {
            let parsed: AllowedTarget = allowed.parse().unwrap();
            assert_eq!(parsed.to_string(), allowed);
            assert_eq!(parsed.admits(&asked.parse().unwrap()), expected, "{allowed} {asked}");
        }
        for bad in ["*", "aws", "AWS/*", "group:", "/*", "aws/p*"] {
            assert!(bad.parse::<AllowedTarget>().is_err(), "{bad}");
        }
    }
}
