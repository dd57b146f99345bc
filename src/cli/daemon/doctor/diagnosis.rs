//! What one check has found, and what to do about it.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    /// It works, and not as well or not as long as it should.
    Warn,
    /// It does not work.
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

/// How it is repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Remedy {
    /// By this command, as a shell takes it.
    Run(String),
    /// By somebody, who decides something.
    Do(String),
}

impl Remedy {
    /// A command with paths at its end.
    pub(super) fn run<'a>(words: &str, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut command = words.to_owned();
        for path in paths {
            command.push(' ');
            command.push_str(&quoted(path));
        }
        Self::Run(command)
    }
}

/// A path as a word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}

/// What one check has found.
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

    pub(super) fn warn(what: &'static str, detail: impl Into<String>, remedy: Remedy) -> Self {
        Self { level: Level::Warn, what, detail: detail.into(), remedy: Some(remedy) }
    }

    pub(super) fn fail(what: &'static str, detail: impl Into<String>, remedy: Remedy) -> Self {
        Self { level: Level::Fail, what, detail: detail.into(), remedy: Some(remedy) }
    }
}
