//! Where the KEK comes from, on the command line. Nothing secret stands there, nor in the environment.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::io::failure::Failure;
use crate::config::KekTable;
use crate::seal::{
    AskPassphrase, KekError, KekSource, NewKek, Passphrase, Unlock, check_owner, check_private,
};
use crate::sys::Trust;

/// The environment variable that names the KEK's file.
const KEK_FILE: &str = "KEYHATCH_KEK_FILE";
/// The environment variable that says which command prints the KEK.
const KEK_COMMAND: &str = "KEYHATCH_KEK_COMMAND";
/// The environment variable that names a file with the passphrase.
const PASSPHRASE_FILE: &str = "KEYHATCH_KEK_PASSPHRASE_FILE";
/// More is no passphrase.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// Where the KEK comes from. The state directory does not say it.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct KekArgs {
    /// The file that holds the key that wraps all others (KEK); by default kek in the state directory.
    #[arg(long, env = KEK_FILE, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// The command that prints the KEK, 64 hexadecimal digits or 32 bytes: in words as a shell has them, but run without
    /// a shell.
    #[arg(long, env = KEK_COMMAND, value_name = "COMMAND")]
    kek_command: Option<String>,
    /// Make the KEK of a passphrase, which is asked for without echo.
    #[arg(long)]
    kek_passphrase: bool,
    /// Make the KEK of the passphrase in this file, or - for stdin.
    #[arg(long, env = PASSPHRASE_FILE, value_name = "FILE")]
    kek_passphrase_file: Option<PathBuf>,
}

/// Where the KEK is to come from, of a broker that has another.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct NewKekArgs {
    /// Take the KEK from this file from now on; it is made unless it is there.
    #[arg(long, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// Take the KEK from what this command prints, 64 hexadecimal digits or 32 bytes: in words as a shell has them, but
    /// run without a shell, at every start.
    #[arg(long, value_name = "COMMAND")]
    kek_command: Option<String>,
    /// Take the KEK from a passphrase, which every start will need; asked for without echo.
    #[arg(long)]
    kek_passphrase: bool,
    /// Take the KEK from the passphrase in this file, or - for stdin.
    #[arg(long, value_name = "FILE")]
    kek_passphrase_file: Option<PathBuf>,
}

/// Where the KEK comes from that is in use, of a broker that gets another.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct OldKekArgs {
    /// Offline: the file of the KEK that is in use.
    #[arg(long, env = KEK_FILE, value_name = "FILE")]
    old_kek_file: Option<PathBuf>,
    /// Offline: the command that prints the KEK that is in use.
    #[arg(long, env = KEK_COMMAND, value_name = "COMMAND")]
    old_kek_command: Option<String>,
    /// Offline: ask for the passphrase that is in use.
    #[arg(long)]
    old_kek_passphrase: bool,
    /// Offline: a file that holds the passphrase that is in use, or - for stdin.
    #[arg(long, env = PASSPHRASE_FILE, value_name = "FILE")]
    old_kek_passphrase_file: Option<PathBuf>,
}

impl OldKekArgs {
    /// Whether a flag says it, and not only the environment, which may be meant for the daemon.
    pub(super) fn is_by_flag(&self) -> bool {
        let is_by_flag =
            |given: bool, variable: &str| given && std::env::var_os(variable).is_none();
        self.old_kek_passphrase
            || is_by_flag(self.old_kek_file.is_some(), KEK_FILE)
            || is_by_flag(self.old_kek_command.is_some(), KEK_COMMAND)
            || is_by_flag(self.old_kek_passphrase_file.is_some(), PASSPHRASE_FILE)
    }
}

/// What is said of where the KEK comes from, if anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SaidKek {
    Command(Vec<String>),
    File(PathBuf),
    Passphrase,
    PassphraseFile(PathBuf),
}

impl KekArgs {
    /// What is said: here, or else in the configuration.
    ///
    /// # Errors
    /// If the command is not in words, or there is no working directory.
    pub(crate) fn said(self, table: Option<&KekTable>) -> Result<Option<SaidKek>, Failure> {
        let Self { kek_file, kek_command, kek_passphrase, kek_passphrase_file } = self;
        let here = said(kek_file, kek_command, kek_passphrase, kek_passphrase_file)?;
        let Some(KekTable { file, command, passphrase_file }) = table.filter(|_| here.is_none())
        else {
            return Ok(here);
        };
        Ok(match command {
            Some(words) => Some(SaidKek::Command(words.clone())),
            None => said(file.clone(), None, false, passphrase_file.clone())?,
        })
    }
}

impl TryFrom<NewKekArgs> for Option<SaidKek> {
    type Error = Failure;

    fn try_from(new: NewKekArgs) -> Result<Self, Failure> {
        said(new.kek_file, new.kek_command, new.kek_passphrase, new.kek_passphrase_file)
    }
}

impl TryFrom<OldKekArgs> for Option<SaidKek> {
    type Error = Failure;

    fn try_from(old: OldKekArgs) -> Result<Self, Failure> {
        let (file, command) = (old.old_kek_file, old.old_kek_command);
        said(file, command, old.old_kek_passphrase, old.old_kek_passphrase_file)
    }
}

fn said(
    file: Option<PathBuf>,
    command: Option<String>,
    passphrase: bool,
    passphrase_file: Option<PathBuf>,
) -> Result<Option<SaidKek>, Failure> {
    if let Some(command) = command {
        let words = shell_words::split(&command)
            .map_err(|error| Failure::usage(format!("the KEK command: {error}")))?;
        return match words.is_empty() {
            true => Err(Failure::usage("the KEK command: write a program and its arguments")),
            false => Ok(Some(SaidKek::Command(words))),
        };
    }
    let file = file.map(std::path::absolute).transpose()?.map(SaidKek::File);
    let passphrase = passphrase.then_some(SaidKek::Passphrase);
    Ok(file.or(passphrase_file.map(SaidKek::PassphraseFile)).or(passphrase))
}

impl SaidKek {
    /// Whether it is read from stdin.
    pub(super) fn is_stdin(&self) -> bool {
        *self == Self::PassphraseFile(PathBuf::from("-"))
    }

    /// As the flags of a command say it.
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

    /// What the KEK is to be.
    ///
    /// # Errors
    /// If the passphrase cannot be read or is too short.
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

/// What is said of the KEK, by files that are trusted so. Nobody is asked before it is needed; where nobody
/// can be, `flag` names the way to give a passphrase.
pub(crate) fn unlock(said: Option<&SaidKek>, trust: &Trust, flag: &'static str) -> Unlock {
    let file = match said {
        Some(SaidKek::PassphraseFile(file)) => Some(file.clone()),
        _ => None,
    };
    let trust = trust.clone();
    let ask: AskPassphrase = Box::new(move || match &file {
        Some(file) => read(file, &trust),
        None if !std::io::stdin().is_terminal() => Err(KekError::PassphraseNotGiven(flag)),
        None => prompt("passphrase of the KEK: "),
    });
    Unlock { source: said.map(SaidKek::source), passphrase: Some(ask) }
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

fn read(file: &Path, trust: &Trust) -> Result<Passphrase, KekError> {
    let unreadable = |error: std::io::Error| {
        KekError::PassphraseUnreadable(format!("{}: {error}", file.display()))
    };
    // Sized beforehand: a buffer that grows would leave copies behind.
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
