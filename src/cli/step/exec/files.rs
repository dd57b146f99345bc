//! The command's files.

use std::path::PathBuf;
use std::sync::Arc;

use super::arguments::FileArgument;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::private_file::{TemporaryFile, unwritable};
use crate::cli::step::credential::Credential;

/// The files of the command; dropping this removes them.
pub struct CommandFiles {
    written: Vec<WrittenFile>,
    /// What was written anew and is not told yet, because another could not be.
    untold: Vec<PathBuf>,
}

struct WrittenFile {
    wanted: FileArgument,
    file: TemporaryFile,
    /// What it was written from.
    credential: Arc<Credential>,
}

impl CommandFiles {
    /// Writes them where nothing is yet.
    ///
    /// # Errors
    /// If one cannot be written: then there is none.
    pub fn write(wanted: Vec<FileArgument>, taken: &[Arc<Credential>]) -> Result<Self, Failure> {
        let written = wanted.into_iter().zip(taken).map(|(wanted, credential)| {
            let file = TemporaryFile::write(&wanted.path, wanted.value.of(credential))?;
            Ok(WrittenFile { wanted, file, credential: Arc::clone(credential) })
        });
        Ok(Self { written: written.collect::<Result<_, Failure>>()?, untold: Vec::new() })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Puts others in the place of those whose values have changed, each as a whole, once all of them are written. The
    /// command keeps what it has put in a file's place itself. Gives which are written anew.
    ///
    /// # Errors
    /// If one cannot be written. The next call does the rest, and gives all.
    pub fn rewrite(&mut self, taken: &[Arc<Credential>]) -> Result<Vec<PathBuf>, Failure> {
        let mut changes = Vec::new();
        for (written, credential) in self.written.iter_mut().zip(taken) {
            let wanted = &written.wanted;
            let value = wanted.value.of(credential);
            if value != wanted.value.of(&written.credential) {
                let beside = written.file.write_beside(value);
                let beside = beside.map_err(|error| unwritable(&wanted.path, &error))?;
                changes.push((written, beside, credential));
            }
        }
        for (written, beside, credential) in changes {
            let path = &written.wanted.path;
            match written.file.replace_by(beside).map_err(|error| unwritable(path, &error))? {
                true => self.untold.push(path.clone()),
                false => say(&format!(
                    "{} is not the file any more that was written there, and is left as it is",
                    path.display()
                )),
            }
            written.credential = Arc::clone(credential);
        }
        Ok(std::mem::take(&mut self.untold))
    }
}
