//! Names. Each kind is a type with a grammar of its own, so that a run cannot be passed as a step.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::letter::{is_letter, is_mark};
use crate::model::text::read_from_text;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A text that breaks the grammar of a name. Names are not secret, so the error shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct Invalid {
    /// The kind of name, for example "connection name".
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

const REQUEST: Grammar = Grammar {
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

/// Names that engines choose: `owner/repo`, `scheduled__2026-01-01T00:00:00+00:00`, `build (ubuntu, 3.12)`, `task[3]`.
///
/// Texts hold several such names. A workflow has no colon and a run no slash, so the first `/run:` and the first `/step:` of
/// `workflow:W/run:R/step:S` separate, and so does the last `/secrets/` of `workflows/W/secrets/NAME`.
struct Engines {
    /// Characters that this kind may hold, besides those that all kinds may.
    also: &'static str,
    /// The wildcard for all names of this kind in the API, which is not a name itself.
    wildcard: &'static str,
    rule: &'static str,
}

impl Engines {
    fn admits(&self, text: &str) -> bool {
        let mut is_after_letter = false;
        (1..=MAX_NAME_BYTES).contains(&text.len())
            && text != self.wildcard
            && text.trim_matches(' ') == text
            && !text.split('/').any(|segment| ["", ".", ".."].contains(&segment))
            && text.chars().all(|c| {
                let is_sign = " ._-@+,=#()[]".contains(c) || self.also.contains(c);
                is_after_letter = is_letter(c) || is_after_letter && is_mark(c);
                is_after_letter || is_sign
            })
    }
}

const WORKFLOW: Engines = Engines {
    also: "/",
    wildcard: "-",
    rule: "1 to 128 bytes of letters and digits of any script, spaces or . _ - @ + , = # ( ) [ ] /, with no space at \
           either end and no empty, . or .. between slashes; - alone is none",
};

const RUN: Engines = Engines {
    also: ":~",
    wildcard: "",
    rule: "1 to 128 bytes of letters and digits of any script, spaces or . _ - @ + , = # ( ) [ ] : ~, with no space at \
           either end; . and .. are none",
};

const STEP: Engines = Engines {
    also: "/:~",
    wildcard: "",
    rule: "1 to 128 bytes of letters and digits of any script, spaces or . _ - @ + , = # ( ) [ ] / : ~, with no space \
           at either end and no empty, . or .. between slashes",
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

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
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
    /// The name of a context: a broker that an operator reaches over TCP.
    ContextName: "context name", PLAIN;
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
    /// A client's id of a request, so that it is carried out once (AIP-155).
    RequestId: "request id", REQUEST;
    /// The name of a user, team, role or service account that a run runs as.
    RunAsName: "run_as name", PLAIN;
    /// The name of a run of a workflow.
    RunName: "run name", RUN;
    /// The name of a secret within its workflow.
    SecretName: "secret name", SECRET;
    /// The name of a step within its workflow.
    StepName: "step name", STEP;
    /// The name of a workflow.
    WorkflowName: "workflow name", WORKFLOW;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_ascii_between_letters_or_digits() {
        for good in ["a", "my-aws-account", "a b", "x@y.z", "Prod+1", &"a".repeat(128)] {
            assert!(ConnectionName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", " a", "a/b", "a:b", "é", "a\n", "_a", &"a".repeat(129)] {
            assert!(ConnectionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_and_request_ids_have_letters_of_their_own() {
        assert!(SecretName::parse("_token").is_ok());
        assert!(RequestId::parse("2026-11-21T10:00~1").is_ok());
        assert!(SecretName::parse("2026-11-21T10:00~1").is_err());
    }

    /// True for each of workflow, run and step that may have this name.
    fn kinds(text: &str) -> (bool, bool, bool) {
        let is = [
            WorkflowName::parse(text).is_ok(),
            RunName::parse(text).is_ok(),
            StepName::parse(text).is_ok(),
        ];
        (is[0], is[1], is[2])
    }

    #[test]
    fn engines_name_workflows_runs_and_steps_as_they_do() {
        for (text, expected) in [
            ("my_dag", (true, true, true)),
            ("owner/repo", (true, false, true)),
            ("f/folder/script", (true, false, true)),
            (".github/workflows/ci.yml@refs/heads/main", (true, false, true)),
            ("scheduled__2026-01-01T00:00:00+00:00", (false, true, true)),
            ("wf-abc[0].print(0:a)", (false, true, true)),
            ("build (ubuntu-latest, 3.12)", (true, true, true)),
            ("task__2[3]", (true, true, true)),
            (":rocket: Deploy", (false, true, true)),
            ("#42", (true, true, true)),
            ("_private", (true, true, true)),
            ("...", (true, true, true)),
            ("Größe", (true, true, true)),
            ("部署", (true, true, true)),
            ("развёртывание", (true, true, true)),
            ("परीक्षण", (true, true, true)),
            ("ทดสอบแล้ว", (true, true, true)),
            ("e\u{301}t", (true, true, true)),
            ("-", (false, true, true)),
            ("--", (true, true, true)),
        ] {
            assert_eq!(kinds(text), expected, "{text:?}");
        }
        // Bytes count, not letters.
        assert_eq!(kinds(&"é".repeat(64)), (true, true, true));
    }

    #[test]
    fn an_engines_name_is_neither_a_pattern_nor_a_path_elsewhere() {
        let mut bad: Vec<String> = "\n\t\0\u{7f}\\\"'%$*{};|&<>?!`^\u{a0}\u{3000}—／🚀"
            .chars()
            .map(|c| format!("a{c}b"))
            .collect();
        bad.extend(
            ["", ".", "..", " a", "a ", "*", "a*", "/a", "a/", "a//b", "a/./b", "../a", "/"]
                .map(str::to_owned),
        );
        bad.extend(["é".repeat(65), "a".repeat(129)]);
        for text in bad {
            assert_eq!(kinds(&text), (false, false, false), "{text:?}");
        }
    }

    #[test]
    fn no_name_holds_characters_that_are_unseen_or_reorder_text() {
        let unseen = "\u{ad}\u{34f}\u{115f}\u{200b}\u{200d}\u{2028}\u{202e}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{ffa0}";
        for c in unseen.chars() {
            assert_eq!(kinds(&format!("a{c}b")), (false, false, false), "{c:?}");
        }
        // Nor is a sign on anything but a letter.
        for text in ["\u{301}a", "a \u{301}", "a/\u{338}", "a:\u{338}b"] {
            assert_eq!(kinds(text), (false, false, false), "{text:?}");
        }
    }
}
