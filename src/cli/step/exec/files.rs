//! The files of the command.

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
    /// Files that are written again and not reported yet, because another file could not be written.
    unreported: Vec<PathBuf>,
}

struct WrittenFile {
    argument: FileArgument,
    file: TemporaryFile,
    /// The source of its value.
    credential: Arc<Credential>,
}

impl CommandFiles {
    /// Writes files where no file is yet. If one of them cannot be written, none is left.
    pub fn write(
        arguments: Vec<FileArgument>,
        credentials: &[Arc<Credential>],
    ) -> Result<Self, Failure> {
        let written = arguments.into_iter().zip(credentials).map(|(argument, credential)| {
            let file = TemporaryFile::write(&argument.path, argument.value.of(credential))?;
            Ok(WrittenFile { argument, file, credential: Arc::clone(credential) })
        });
        Ok(Self { written: written.collect::<Result<_, Failure>>()?, unreported: Vec::new() })
    }

    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Replaces the files whose values have changed, each as a whole, once the new ones are all written. Returns their
    /// paths. Leaves a file alone that the command has replaced itself. Fails if a file cannot be written. The next
    /// call does the rest, and returns all paths.
    pub fn rewrite(&mut self, credentials: &[Arc<Credential>]) -> Result<Vec<PathBuf>, Failure> {
        let mut changes = Vec::new();
        for (written, credential) in self.written.iter_mut().zip(credentials) {
            let FileArgument { path, value } = &written.argument;
            let new = value.of(credential);
            if new != value.of(&written.credential) {
                let beside = written.file.write_beside(new);
                let beside = beside.map_err(|error| unwritable(path, &error))?;
                changes.push((written, beside, credential));
            }
        }
        for (written, beside, credential) in changes {
            let path = &written.argument.path;
            match written.file.replace_by(beside).map_err(|error| unwritable(path, &error))? {
                true => self.unreported.push(path.clone()),
                false => say(&format!(
                    "{} is not the file any more that was written there, and is left as it is",
                    path.display()
                )),
            }
            written.credential = Arc::clone(credential);
        }
        Ok(std::mem::take(&mut self.unreported))
    }
}
