//! The result of one check, and its remedy.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// The severity of a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    /// The broker works, but not as well or not as long as it should.
    Warn,
    /// The broker does not work.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// The repair for a diagnosis. A text becomes [`Remedy::Do`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Remedy {
    /// A command, as a shell takes it.
    Run(String),
    /// Advice, where somebody has to decide something.
    Do(String),
}

impl Remedy {
    /// A command with paths at its end.
    pub(super) fn run<'a>(words: &str, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let paths = paths.into_iter().map(|path| format!(" {}", quoted(path)));
        Self::Run(format!("{words}{}", paths.collect::<String>()))
    }
}

impl<T: Into<String>> From<T> for Remedy {
    fn from(advice: T) -> Self {
        Self::Do(advice.into())
    }
}

/// A path as one word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Diagnosis {
    pub(super) level: Level,
    pub(super) what: &'static str,
    pub(super) detail: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<Remedy>,
}

impl Diagnosis {
    pub(super) fn ok(what: &'static str, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, what, detail: detail.into(), remedy: None }
    }

    pub(super) fn warn(
        what: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Self {
        Self { level: Level::Warn, what, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn fail(
        what: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Self {
        Self { level: Level::Fail, ..Self::warn(what, detail, remedy) }
    }
}
