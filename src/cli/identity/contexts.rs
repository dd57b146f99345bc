//! Contexts: named identities of an operator, for brokers that are reached over TCP.
//!
//! ```text
//! ~/.config/keyhatch/contexts/NAME/   an identity's directory, as KEYHATCH_DIR names one
//! ~/.config/keyhatch/context          the name of the current context
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::identity_files::read_open;
use super::own_directory::{make_own, own, unfit, write};
use crate::cli::io::failure::{Failure, exit};
use crate::model::ContextName;
use crate::sys::Directory;

/// The file with the name of the current context.
const CURRENT: &str = "context";
/// The directory of all contexts.
const CONTEXTS: &str = "contexts";

/// The contexts of the user.
pub(crate) struct Contexts {
    base: Directory,
}

impl Contexts {
    /// The user's contexts. None if the user has no configuration directory, or another user could change it.
    pub(crate) fn of_user() -> Result<Option<Self>, Failure> {
        Ok(own()?.map(|base| Self { base }))
    }

    /// The same, with the configuration directory made if it is missing. Fails if another user could change it.
    pub(crate) fn make() -> Result<Self, Failure> {
        Ok(Self { base: make_own()? })
    }

    /// The current context. None if no context is current. Fails if its file cannot be read.
    pub(crate) fn current(&self) -> Result<Option<ContextName>, Failure> {
        let told = |error: &dyn std::fmt::Display| {
            let path = self.base.path().join(CURRENT);
            let text =
                format!("{}: {error}; keyhatch context use NAME writes it again", path.display());
            Failure::new("CONTEXT_INVALID", text, exit::FAILED)
        };
        let text = match self.base.open_file(CURRENT).and_then(read_open) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&error)),
        };
        ContextName::parse(text.trim_end()).map(Some).map_err(|error| told(&error))
    }

    /// Makes a context the current one. Fails if it cannot be noted.
    pub(crate) fn make_current(&self, name: &ContextName) -> Result<(), Failure> {
        write(&self.base, CURRENT, 0o600, name.as_str().as_bytes())
    }

    /// The names of all contexts, sorted. Fails if the directory cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<ContextName>, Failure> {
        let all = match self.base.directory(CONTEXTS) {
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            opened => opened.map_err(|error| unfit(&error))?,
        };
        let entries = all.names().map_err(std::io::Error::from)?;
        let name = |entry: std::ffi::CString| ContextName::parse(entry.to_str().ok()?).ok();
        let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The directory of a context. None if there is no such context. Fails if another user could change it.
    pub(crate) fn get(&self, name: &ContextName) -> Result<Option<Directory>, Failure> {
        match self.base.directory(&format!("{CONTEXTS}/{name}")) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(Failure::new("CONTEXT_INVALID", error.to_string(), exit::FAILED)),
        }
    }

    /// The directory of a context. Fails if there is no such context.
    pub(crate) fn find(&self, name: &ContextName) -> Result<Directory, Failure> {
        self.get(name)?.ok_or_else(|| missing(name))
    }

    /// Makes a context of these files (name, mode, content): all of them, or no context. Fails if there is one of that name.
    pub(crate) fn add(
        &self,
        name: &ContextName,
        files: &[(&str, u32, &[u8])],
    ) -> Result<(), Failure> {
        let all = self.base.make_directory(CONTEXTS, 0o700).map_err(|error| unfit(&error))?;
        let (aside, path) = aside(&all, name)?;
        let made = all.make_directory(&aside, 0o700).map_err(|error| unfit(&error))?;
        for (file, mode, content) in files {
            write(&made, file, *mode, content)?;
        }
        let moved = all.rename(&aside, &all, name.as_str()).and_then(|()| all.sync());
        moved.map_err(|error| unwritable(&path, &error))
    }

    /// Removes a context: all of its files, or none. Fails if it cannot be removed.
    pub(crate) fn remove(&self, name: &ContextName) -> Result<(), Failure> {
        if self.current()?.as_ref() == Some(name) {
            self.base.remove(CURRENT)?;
        }
        let all = self.base.directory(CONTEXTS).map_err(|error| unfit(&error))?;
        let (aside, path) = aside(&all, name)?;
        let moved = all.rename(name.as_str(), &all, &aside).and_then(|()| all.sync());
        moved
            .and_then(|()| std::fs::remove_dir_all(&path))
            .map_err(|error| unwritable(&path, &error))
    }
}

/// Where the files of a context are while it is made or removed: a directory of no context's name, which is not there now.
fn aside(all: &Directory, name: &ContextName) -> Result<(String, PathBuf), Failure> {
    let aside = format!(".{name}");
    let path = all.path().join(&aside);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unwritable(&path, &error)),
        _ => Ok((aside, path)),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let text = format!("{} cannot be written: {error}", path.display());
    Failure::new("FILE", text, exit::FAILED)
}

/// The directory of a context by its name. Fails if there is no such context.
pub(super) fn named(name: &str) -> Result<PathBuf, Failure> {
    let name = ContextName::parse(name)?;
    let contexts = Contexts::of_user()?.ok_or_else(|| missing(&name))?;
    Ok(contexts.find(&name)?.path().to_owned())
}

/// The directory of the current context. None if no context is current.
pub(crate) fn current() -> Result<Option<PathBuf>, Failure> {
    let Some(contexts) = Contexts::of_user()? else { return Ok(None) };
    let Some(name) = contexts.current()? else { return Ok(None) };
    Ok(Some(contexts.find(&name)?.path().to_owned()))
}

/// The failure of a command that names a context which is not there.
pub(crate) fn missing(name: &ContextName) -> Failure {
    let text = format!(
        "there is no context {name}; keyhatch context list shows those that are here, and keyhatch context add FILE \
         makes another of a bundle"
    );
    Failure::new("CONTEXT_MISSING", text, exit::USAGE)
}
