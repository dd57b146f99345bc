//! Why there is no KEK.

use std::path::PathBuf;

use crate::seal::NoRandomness;
use crate::sys::DirectoryError;

/// Why there is no KEK.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The command prints no key.
    #[error("the KEK command {program} {what}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// The fault, without the command's output.
        what: String,
    },
    /// The file does not hold one key.
    #[error("the KEK file {} does not hold 64 hexadecimal digits; restore it from your copy", .0.display())]
    Malformed(PathBuf),
    /// The command has no words.
    #[error("the KEK command is empty; write a program and its arguments")]
    NoCommand,
    /// Others than the owner can read the file.
    #[error(
        "{} has mode {mode:04o}, so that others can read it; run: chmod 0400 {}",
        .path.display(), .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns the file or can write it.
    #[error(
        "{} belongs to uid {owner} or can be written by others, who could replace it; make root or the daemon's user its \
         owner, and let nobody else write it", .path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file cannot be read or written.
    #[error(
        "the KEK file {}: {source}; give the right file with --kek-file, or restore it from your copy",
        .path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file cannot be made.
    #[error(
        "the KEK file {} cannot be made ({source}); make its directory for the broker's user first: \
         install -d -m 0700 -o {user} {}", .path.display(), .path.parent().unwrap_or(.path).display()
    )]
    NotMade {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
        /// The uid of the user who was to make it.
        user: u32,
    },
    /// The default file is a link.
    #[error(
        "{} is a symbolic link, which a user who can write the state directory could point anywhere; give the KEK's file \
         with --kek-file", .0.display()
    )]
    Link(PathBuf),
    /// Another user could change where the path leads.
    #[error("the KEK cannot come from there: {0}")]
    Place(DirectoryError),
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// There is no terminal to ask for the passphrase.
    #[error(
        "the KEK comes from a passphrase: run this on a terminal, or give a file that holds it with {0}"
    )]
    PassphraseNotGiven(&'static str),
    /// The passphrase cannot be asked for while the daemon runs.
    #[error("the KEK comes from a passphrase, which is not kept")]
    PassphraseNotKept,
    /// The passphrase cannot be read.
    #[error("the passphrase: {0}")]
    PassphraseUnreadable(String),
    /// The passphrase is easily guessed.
    #[error("the passphrase is too short; take one of at least {0} bytes")]
    PassphraseShort(usize),
    /// The keyring's parameters of Argon2id cannot be used.
    #[error("the KEK cannot be made from the passphrase ({0}); restore keyring.json from a backup")]
    Recipe(String),
}
