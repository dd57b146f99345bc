//! Contexts: named identities of an operator, for brokers that are reached over TCP.
//!
//! ```text
//! ~/.config/keyhatch/contexts/NAME/   an identity's directory, as KEYHATCH_DIR names one
//! ~/.config/keyhatch/context          the name of the current context
//! ```

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::identity_files::read;
use crate::cli::io::failure::{Failure, exit};
use crate::config::default_identity;
use crate::model::ContextName;

/// The file with the name of the current context.
pub(crate) const CURRENT: &str = "context";
/// The directory of all contexts.
pub(crate) const CONTEXTS: &str = "contexts";

/// The contexts of the user.
pub(crate) struct Contexts {
    base: PathBuf,
}

impl Contexts {
    /// The user's contexts. None if the user has no configuration directory, or another user owns it: with sudo, HOME may
    /// be another user's, who then would choose the identity and the broker.
    pub(crate) fn of_user() -> Option<Self> {
        let base = default_identity()?;
        let owner = std::fs::metadata(&base).ok()?.uid();
        (owner == rustix::process::geteuid().as_raw()).then_some(Self { base })
    }

    /// The current context. None if no context is current. Fails if its file cannot be read.
    pub(crate) fn current(&self) -> Result<Option<ContextName>, Failure> {
        let path = self.base.join(CURRENT);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(invalid(&path, &error)),
        };
        let name = ContextName::parse(text.trim_end());
        name.map(Some).map_err(|error| invalid(&path, &error))
    }

    /// The names of all contexts, sorted. Fails if the directory cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<ContextName>, Failure> {
        let path = self.base.join(CONTEXTS);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(invalid(&path, &error)),
        };
        let name = |entry: std::fs::DirEntry| ContextName::parse(entry.file_name().to_str()?).ok();
        let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The directory of a context. Fails if there is no such context.
    pub(crate) fn find(&self, name: &ContextName) -> Result<PathBuf, Failure> {
        let directory = self.base.join(CONTEXTS).join(name.as_str());
        if directory.is_dir() { Ok(directory) } else { Err(missing(name)) }
    }
}

/// The directory of a context by its name. Fails if there is no such context.
pub(super) fn named(name: &str) -> Result<PathBuf, Failure> {
    let name = ContextName::parse(name)?;
    Contexts::of_user().ok_or_else(|| missing(&name))?.find(&name)
}

/// The directory of the current context. None if no context is current.
pub(crate) fn current() -> Result<Option<PathBuf>, Failure> {
    let Some(contexts) = Contexts::of_user() else { return Ok(None) };
    let Some(name) = contexts.current()? else { return Ok(None) };
    contexts.find(&name).map(Some)
}

/// The failure of a command that names a context which is not there.
pub(crate) fn missing(name: &ContextName) -> Failure {
    let text = format!(
        "there is no context {name}; keyhatch context list shows those that are here, and keyhatch context add FILE \
         makes another of a bundle"
    );
    Failure::new("CONTEXT_MISSING", text, exit::USAGE)
}

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let text = format!("{}: {error}; keyhatch context use NAME writes it again", path.display());
    Failure::new("CONTEXT_INVALID", text, exit::FAILED)
}
