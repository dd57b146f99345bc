//! Where the KEK comes from, on the command line. Nothing secret stands there, nor in the environment.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::failure::Failure;
use crate::seal::{AskPassphrase, KekError, NewKek, Passphrase, Unlock, check_private};

/// The environment variable that names the KEK's file.
pub(super) const KEK_FILE: &str = "KEYHATCH_KEK_FILE";
/// The environment variable that names a file with the passphrase.
pub(super) const PASSPHRASE_FILE: &str = "KEYHATCH_KEK_PASSPHRASE_FILE";
/// More is no passphrase.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// How to get at the KEK that there is.
#[derive(clap::Args)]
pub struct Unlocking {
    /// The key that wraps all others, if it is not where init put it.
    #[arg(long, env = KEK_FILE, value_name = "FILE")]
    pub(super) kek_file: Option<PathBuf>,
    /// A file that holds the KEK's passphrase, or - for stdin; asked for on the terminal by default.
    #[arg(long, env = PASSPHRASE_FILE, value_name = "FILE")]
    pub(super) kek_passphrase_file: Option<PathBuf>,
}

/// Another source of the KEK than a file.
#[derive(clap::Args)]
pub struct Elsewhere {
    /// Take the KEK from a passphrase, which every start will need; asked for without echo.
    #[arg(long, conflicts_with = "kek_command")]
    kek_passphrase: bool,
    /// Take the KEK from what this command prints, 64 hexadecimal digits or 32 bytes: in words as a shell has
    /// them, but run without one, at every start.
    #[arg(long, value_name = "COMMAND")]
    kek_command: Option<String>,
}

impl Unlocking {
    /// What is given to get at the KEK. Nobody is asked before it is needed.
    ///
    /// # Errors
    /// If there is no working directory.
    pub(super) fn unlock(self) -> Result<Unlock, Failure> {
        self.unlock_by("--kek-passphrase-file")
    }

    /// The same, where the passphrase's file is given by another flag.
    ///
    /// # Errors
    /// As [`Unlocking::unlock`].
    pub(super) fn unlock_by(self, flag: &'static str) -> Result<Unlock, Failure> {
        let kek_file = self.kek_file.map(std::path::absolute).transpose()?;
        let file = self.kek_passphrase_file;
        let ask: AskPassphrase = Box::new(move || match &file {
            Some(file) => read(file),
            None if !std::io::stdin().is_terminal() => Err(KekError::PassphraseNotGiven(flag)),
            None => prompt("passphrase of the KEK: "),
        });
        Ok(Unlock { kek_file, passphrase: Some(ask) })
    }
}

impl Elsewhere {
    /// What the KEK is to be; none if nothing is said.
    ///
    /// # Errors
    /// If the command is not in words, or the passphrase cannot be read or is too short.
    pub(super) fn read(&self, file: Option<&Path>) -> Result<Option<NewKek>, Failure> {
        if let Some(command) = &self.kek_command {
            let words = shell_words::split(command)
                .map_err(|error| Failure::usage(format!("--kek-command: {error}")))?;
            return match words.is_empty() {
                true => Err(Failure::usage("--kek-command: write a program and its arguments")),
                false => Ok(Some(NewKek::Command(words))),
            };
        }
        let passphrase = match file {
            Some(file) => read(file),
            None if !self.kek_passphrase => return Ok(None),
            None => ask_twice(),
        };
        let usable = passphrase.and_then(|one| one.check_new().map(|()| one));
        Ok(Some(NewKek::Passphrase(usable.map_err(|error| Failure::usage(error.to_string()))?)))
    }
}

fn ask_twice() -> Result<Passphrase, KekError> {
    if !std::io::stdin().is_terminal() {
        return Err(KekError::PassphraseNotGiven("--kek-passphrase-file"));
    }
    let passphrase = prompt("new passphrase of the KEK: ")?;
    passphrase.check_new()?;
    match passphrase.is(&prompt("again: ")?) {
        true => Ok(passphrase),
        false => Err(KekError::PassphraseUnreadable("the two are not the same".to_owned())),
    }
}

fn prompt(text: &str) -> Result<Passphrase, KekError> {
    let typed = rpassword::prompt_password(text);
    let typed = typed.map_err(|error| KekError::PassphraseUnreadable(error.to_string()))?;
    Ok(Passphrase::new(Zeroizing::new(typed.into_bytes())))
}

fn read(file: &Path) -> Result<Passphrase, KekError> {
    let unreadable = |error: std::io::Error| {
        KekError::PassphraseUnreadable(format!("{}: {error}", file.display()))
    };
    // Sized beforehand: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * 4096));
    let source: Box<dyn std::io::Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => {
            let opened = std::fs::File::open(file).map_err(unreadable)?;
            check_private(file, &opened.metadata().map_err(unreadable)?)?;
            Box::new(opened)
        }
    };
    source.take(MAX_PASSPHRASE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 {
        0..=MAX_PASSPHRASE_BYTES => Ok(Passphrase::new(bytes)),
        _ => Err(KekError::PassphraseUnreadable(format!("{} is too long", file.display()))),
    }
}
