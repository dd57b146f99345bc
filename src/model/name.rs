//! Names, each a type of its own with its own grammar, so that a run cannot be given for a step.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::text::read_from_text;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A text that is not the word it should be. Names are not secret, so the error shows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct Invalid {
    /// What the text should have been, for example "connection name".
    pub what: &'static str,
    /// The start of the offending text.
    pub text: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl Invalid {
    /// An error that shows at most the first 64 characters of `text`.
    pub fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(64).collect(), rule }
    }
}

struct Grammar {
    first: fn(u8) -> bool,
    middle: fn(u8) -> bool,
    last: fn(u8) -> bool,
    rule: &'static str,
}

impl Grammar {
    fn admits(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(&first), Some(&last)) => {
                bytes.len() <= MAX_NAME_BYTES
                    && (self.first)(first)
                    && (self.last)(last)
                    && bytes.iter().all(|&byte| (self.middle)(byte))
            }
            _ => false,
        }
    }
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" ._-@+".contains(&byte)
}

const PLAIN: Grammar = Grammar {
    first: alphanumeric,
    middle: plain,
    last: alphanumeric,
    rule: "1 to 128 letters, digits, spaces or . _ - @ +, starting and ending with a letter or digit",
};

const SECRET: Grammar = Grammar {
    first: |byte| byte.is_ascii_alphanumeric() || byte == b'_',
    middle: plain,
    last: alphanumeric,
    rule: "1 to 128 letters, digits, spaces or . _ - @ +, starting with a letter, digit or _ and \
           ending with a letter or digit",
};

const RUN: Grammar = Grammar {
    first: alphanumeric,
    middle: |byte| plain(byte) || b":~".contains(&byte),
    last: alphanumeric,
    rule: "1 to 128 letters, digits, spaces or . _ - @ + : ~, starting and ending with a letter or digit",
};

const CATALOGUE: Grammar = Grammar {
    first: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    middle: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte),
    last: |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    rule: "1 to 128 lower-case letters, digits, - or _, starting and ending with a letter or digit",
};

const FIELD: Grammar = Grammar {
    first: |byte| byte.is_ascii_alphabetic() || byte == b'_',
    middle: |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte),
    last: |byte| byte.is_ascii_alphanumeric() || byte == b'_',
    rule: "1 to 128 letters, digits or . _ -, starting with a letter or _ and ending with a letter, digit or _",
};

macro_rules! names {
    ($($(#[$doc:meta])* $type:ident: $what:literal, $grammar:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses the name.
            ///
            /// # Errors
            /// If the text breaks the grammar of this kind of name.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                if $grammar.admits(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(Invalid::new($what, text, $grammar.rule))
                }
            }

            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::parse(text)
            }
        }

        read_from_text!($type, Self::parse);

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a connection within its integration.
    ConnectionName: "connection name", PLAIN;
    /// The name of an executor.
    ExecutorName: "executor name", PLAIN;
    /// The name of a field of a credential; nested ones are dotted, such as `tokens.api`.
    FieldName: "field name", FIELD;
    /// The name of a connection group.
    GroupName: "group name", PLAIN;
    /// The type of a connection, such as `aws`.
    IntegrationName: "integration name", CATALOGUE;
    /// A credential kind within an integration, such as `access_key`.
    KindName: "kind name", CATALOGUE;
    /// The name of an operator.
    OperatorName: "operator name", PLAIN;
    /// What a client calls a request, so that it is done once (AIP-155).
    RequestId: "request id", RUN;
    /// The name of a user, team, role or service account that a run runs as.
    RunAsName: "run_as name", PLAIN;
    /// The name of a run of a workflow.
    RunName: "run name", RUN;
    /// The name of a secret within its workflow.
    SecretName: "secret name", SECRET;
    /// The name of a step within its workflow.
    StepName: "step name", PLAIN;
    /// The name of a workflow.
    WorkflowName: "workflow name", PLAIN;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ascii_bounded_and_start_and_end_with_a_letter_or_digit() {
        for good in ["a", "my-aws-account", "a b", "x@y.z", "Prod+1", &"a".repeat(128)] {
            assert!(ConnectionName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", " a", "a/b", "a:b", "é", "a\n", "_a", &"a".repeat(129)] {
            assert!(ConnectionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_may_start_with_an_underscore_and_runs_may_hold_colons_and_tildes() {
        assert!(SecretName::parse("_token").is_ok());
        assert!(RunName::parse("2026-11-21T10:00~1").is_ok());
        assert!(StepName::parse("2026-11-21T10:00~1").is_err());
    }
}
