//! Options for the source of the KEK. Neither the command line nor the environment holds a secret.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::io::failure::Failure;
use crate::cli::io::prompt::ask_hidden;
use crate::config::KekTable;
use crate::seal::{
    AskPassphrase, KekError, KekSource, NewKek, Passphrase, Unlock, check_owner, check_private,
};
use crate::sys::Trust;

/// The environment variable that names the KEK's file.
const KEK_FILE: &str = "KEYHATCH_KEK_FILE";
/// The environment variable with the command that prints the KEK.
const KEK_COMMAND: &str = "KEYHATCH_KEK_COMMAND";
/// The environment variable that names the file of the passphrase.
const PASSPHRASE_FILE: &str = "KEYHATCH_KEK_PASSPHRASE_FILE";
/// The longest passphrase.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// The source of the KEK, which the state directory does not hold.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct KekArgs {
    /// The file of the key that wraps all other keys (KEK); by default kek in the state directory.
    #[arg(long, env = KEK_FILE, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// The command that prints the KEK, 64 hexadecimal digits or 32 bytes. Its words are quoted as for a shell, and no
    /// shell runs it.
    #[arg(long, env = KEK_COMMAND, value_name = "COMMAND")]
    kek_command: Option<String>,
    /// Derive the KEK from a passphrase, which is asked for without echo.
    #[arg(long)]
    kek_passphrase: bool,
    /// Derive the KEK from the passphrase in this file, or - for stdin.
    #[arg(long, env = PASSPHRASE_FILE, value_name = "FILE")]
    kek_passphrase_file: Option<PathBuf>,
}

/// The new source of the KEK, for a broker that has another.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct NewKekArgs {
    /// Take the KEK from this file from now on. The file is made if it does not exist.
    #[arg(long, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// Take the KEK from this command at every start. It prints 64 hexadecimal digits or 32 bytes. Its words are quoted
    /// as for a shell, and no shell runs it.
    #[arg(long, value_name = "COMMAND")]
    kek_command: Option<String>,
    /// Derive the KEK from a passphrase, which every start will need. It is asked for without echo.
    #[arg(long)]
    kek_passphrase: bool,
    /// Derive the KEK from the passphrase in this file, or - for stdin.
    #[arg(long, value_name = "FILE")]
    kek_passphrase_file: Option<PathBuf>,
}

/// The source of the KEK in use, for a broker that gets another.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct OldKekArgs {
    /// Offline: the file of the KEK in use.
    #[arg(long, env = KEK_FILE, value_name = "FILE")]
    old_kek_file: Option<PathBuf>,
    /// Offline: the command that prints the KEK in use.
    #[arg(long, env = KEK_COMMAND, value_name = "COMMAND")]
    old_kek_command: Option<String>,
    /// Offline: ask for the passphrase in use.
    #[arg(long)]
    old_kek_passphrase: bool,
    /// Offline: the file of the passphrase in use, or - for stdin.
    #[arg(long, env = PASSPHRASE_FILE, value_name = "FILE")]
    old_kek_passphrase_file: Option<PathBuf>,
}

impl OldKekArgs {
    /// The source that the options name. None if they name none.
    pub(super) fn choice(self) -> Result<Option<KekChoice>, Failure> {
        let (file, command) = (self.old_kek_file, self.old_kek_command);
        choice(file, command, self.old_kek_passphrase, self.old_kek_passphrase_file)
    }

    /// Whether a flag names a source. The environment may be meant for the daemon.
    pub(super) fn is_by_flag(&self) -> bool {
        let is_by_flag =
            |given: bool, variable: &str| given && std::env::var_os(variable).is_none();
        self.old_kek_passphrase
            || is_by_flag(self.old_kek_file.is_some(), KEK_FILE)
            || is_by_flag(self.old_kek_command.is_some(), KEK_COMMAND)
            || is_by_flag(self.old_kek_passphrase_file.is_some(), PASSPHRASE_FILE)
    }
}

/// The source of a KEK, by options or by the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KekChoice {
    Command(Vec<String>),
    File(PathBuf),
    Passphrase,
    PassphraseFile(PathBuf),
}

impl KekArgs {
    /// The source that the options name, or else the configuration file. None if neither names a source.
    pub(crate) fn choice(self, table: Option<&KekTable>) -> Result<Option<KekChoice>, Failure> {
        let Self { kek_file, kek_command, kek_passphrase, kek_passphrase_file } = self;
        let by_options = choice(kek_file, kek_command, kek_passphrase, kek_passphrase_file)?;
        match (by_options, table) {
            (None, Some(KekTable { command: Some(words), .. })) => {
                Ok(Some(KekChoice::Command(words.clone())))
            }
            (None, Some(KekTable { file, passphrase_file, .. })) => {
                choice(file.clone(), None, false, passphrase_file.clone())
            }
            (by_options, _) => Ok(by_options),
        }
    }
}

impl NewKekArgs {
    /// The source that the options name. None if they name none.
    pub(super) fn choice(self) -> Result<Option<KekChoice>, Failure> {
        choice(self.kek_file, self.kek_command, self.kek_passphrase, self.kek_passphrase_file)
    }
}

fn choice(
    file: Option<PathBuf>,
    command: Option<String>,
    passphrase: bool,
    passphrase_file: Option<PathBuf>,
) -> Result<Option<KekChoice>, Failure> {
    if let Some(command) = command {
        let words = shell_words::split(&command)
            .map_err(|error| Failure::usage(format!("the KEK command: {error}")))?;
        return match words.is_empty() {
            true => Err(Failure::usage("the KEK command: write a program and its arguments")),
            false => Ok(Some(KekChoice::Command(words))),
        };
    }
    let file = file.map(std::path::absolute).transpose()?.map(KekChoice::File);
    let passphrase = passphrase.then_some(KekChoice::Passphrase);
    Ok(file.or(passphrase_file.map(KekChoice::PassphraseFile)).or(passphrase))
}

impl KekChoice {
    /// Whether the passphrase is read from stdin.
    pub(super) fn is_stdin(&self) -> bool {
        *self == Self::PassphraseFile(PathBuf::from("-"))
    }

    /// The option that names this source.
    pub(crate) fn flag(&self) -> String {
        let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
        match self {
            Self::Command(words) => {
                format!("--kek-command {}", shell_words::quote(&shell_words::join(words)))
            }
            Self::File(path) => format!("--kek-file {}", quoted(path)),
            Self::Passphrase => "--kek-passphrase".to_owned(),
            Self::PassphraseFile(path) => format!("--kek-passphrase-file {}", quoted(path)),
        }
    }

    fn source(&self) -> KekSource {
        match self {
            Self::Command(words) => KekSource::Command(words.clone()),
            Self::File(path) => KekSource::File(path.clone()),
            Self::Passphrase | Self::PassphraseFile(_) => KekSource::Passphrase,
        }
    }

    /// The new KEK. Fails if a passphrase cannot be read or is too short.
    pub(crate) fn into_new(self, trust: &Trust) -> Result<NewKek, Failure> {
        let passphrase = match self {
            Self::Command(words) => return Ok(NewKek::Command(words)),
            Self::File(path) => return Ok(NewKek::File(path)),
            Self::Passphrase => ask_twice(),
            Self::PassphraseFile(file) => read(&file, trust),
        };
        let usable = passphrase.and_then(|one| one.check_new().map(|()| one));
        Ok(NewKek::Passphrase(usable.map_err(|error| Failure::usage(error.to_string()))?))
    }
}

/// The way to a KEK. A passphrase is asked for only when it is needed. If stdin is not a terminal, the error names
/// `flag`.
pub(crate) fn unlock(choice: Option<&KekChoice>, trust: &Trust, flag: &'static str) -> Unlock {
    let file = match choice {
        Some(KekChoice::PassphraseFile(file)) => Some(file.clone()),
        _ => None,
    };
    let trust = trust.clone();
    let ask: AskPassphrase = Box::new(move || match &file {
        Some(file) => read(file, &trust),
        None if !std::io::stdin().is_terminal() => Err(KekError::PassphraseNotGiven(flag)),
        None => prompt("passphrase of the KEK: "),
    });
    Unlock { source: choice.map(KekChoice::source), passphrase: Some(ask) }
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
    let typed = ask_hidden(text);
    let typed = typed.map_err(|error| KekError::PassphraseUnreadable(error.to_string()))?;
    Ok(Passphrase::new(Zeroizing::new(typed)))
}

fn read(file: &Path, trust: &Trust) -> Result<Passphrase, KekError> {
    let unreadable = |error: std::io::Error| {
        KekError::PassphraseUnreadable(format!("{}: {error}", file.display()))
    };
    // A buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * 4096));
    let source: Box<dyn std::io::Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => {
            let opened = trust.open_file(file).map_err(|error| unreadable(error.into()))?;
            let metadata = opened.metadata().map_err(unreadable)?;
            check_private(file, &metadata)?;
            check_owner(file, &metadata, trust)?;
            Box::new(opened)
        }
    };
    source.take(MAX_PASSPHRASE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 {
        0..=MAX_PASSPHRASE_BYTES => Ok(Passphrase::new(bytes)),
        _ => Err(KekError::PassphraseUnreadable(format!("{} is too long", file.display()))),
    }
}
