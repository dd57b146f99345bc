//! `keyhatch exec`: a command with credentials in its environment, in files, or from an address of its own.
//!
//! | file | |
//! |---|---|
//! | `wanted` | what is asked for |
//! | `environment` | the command's variables |
//! | `streams` | which of the command's streams are masked |
//! | `parts`, `pem` | what of a value is secret |
//! | `forms` | how programs print it |
//! | `mask`, `escapes`, `output` | what the command prints, without values |

mod environment;
mod escapes;
mod forms;
mod literals;
mod mask;
mod output;
mod parts;
mod pem;
mod streams;
mod wanted;

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

pub use mask::Masks;
pub use parts::{LEAST_BYTES, Unmasked};
pub use wanted::{Served, Wanted, WantedFile};

use super::child;
use super::credential::Credential;
use super::failure::{Failure, exit};
use super::get::{parse_duration, within};
use super::listener::{Listener, RelayInput, parse_place};
use super::output::say;
use super::private_file::TemporaryFile;
use super::session::Session;
use super::signals::Signals;
use super::{Common, block_on};
use environment::Environment;
use output::Outputs;
use streams::{Mask, Stream, Streams};

/// Arguments of `exec`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["env", "env_file", "file", "serve"]))]
pub struct Exec {
    /// What to put into the environment; may be given more than once. REF: every field under its
    /// customary name, such as AWS_ACCESS_KEY_ID. PREFIX=REF:A,B: these fields as PREFIX_A and PREFIX_B.
    /// PREFIX=REF: every field, where the integration fixes their names. NAME=REF:FIELD: one field;
    /// DATABASE_URL=postgres/NAME:uri the address with the login in it, of mysql, too. NAME=secret:SECRET: a secret.
    #[arg(long, value_name = "WHAT")]
    env: Vec<String>,
    /// A file of what --env takes, one a line, and lines with #: references only and no values, so that it can be
    /// committed. May be given more than once; --env wins.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A file to make for as long as the command runs, of mode 0600: PATH=REF:FIELD or PATH=secret:SECRET; may
    /// be given more than once.
    #[arg(long, value_name = "PATH=WHAT")]
    file: Vec<String>,
    /// An address on this machine that the command's tools find by their own variables, with a token for this
    /// command alone: aws=REF (or aws, for the default connection) for AWS SDKs, relay for Puppet Relay's steps.
    #[arg(long, value_name = "WHAT")]
    serve: Vec<String>,
    /// The user that the command becomes, if it is another one: what is served is for this user and nobody else.
    #[arg(long, value_name = "UID", requires = "serve")]
    serve_uid: Option<u32>,
    /// Another address of this machine to serve at, for a container with a network of its own; whoever has the token
    /// may ask from there. AWS SDKs take 169.254.170.2 and 169.254.170.23 beside 127.0.0.1.
    #[arg(long, value_name = "IP[:PORT]", requires = "serve", value_parser = parse_place, default_value = "127.0.0.1")]
    serve_address: SocketAddrV4,
    /// What --serve relay serves: a step's spec as in a Relay workflow, or the whole step.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// A parameter of the run, for --spec; JSON, or else a text. May be given more than once.
    #[arg(long, value_name = "NAME=VALUE", requires = "spec")]
    parameter: Vec<String>,
    /// Hand the command nothing of this environment but PATH, HOME, USER, LOGNAME, SHELL, TERM, TMPDIR, TZ and
    /// the language.
    #[arg(long)]
    pristine: bool,
    /// Mask values in what the command prints. auto: in pipes and sockets, in a file that stdout and stderr share, in
    /// stderr's file and, where CI, BUILDKITE or JENKINS_URL is set, on terminals; a file that stdout alone goes to is
    /// data and left alone. Masking is for logs: other encodings, encrypted or compressed output, and short or
    /// common values are not found.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_value = "auto", default_missing_value = "always")]
    mask: Mask,
    /// The same as --mask never.
    #[arg(long, conflicts_with = "mask")]
    no_mask: bool,
    /// How long the broker may take before the command is run.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// The command to run.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the options ask for.
struct Asked {
    wanted: Vec<Wanted>,
    files: Vec<WantedFile>,
    served: Vec<Served>,
    relay: Option<RelayInput>,
}

/// What the command is run with, and what outlives its start.
struct Prepared {
    command: Vec<OsString>,
    environment: Environment,
    files: Vec<TemporaryFile>,
    listener: Option<Listener>,
    masks: Arc<Masks>,
    /// What is masked.
    streams: Vec<Stream>,
    signals: Signals,
}

impl Exec {
    pub(super) fn run(self, common: &Common) -> Result<u8, Failure> {
        block_on(async {
            let prepared = within(self.timeout, self.prepare(common)).await;
            let prepared =
                prepared.map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
            prepared.run().await
        })
    }

    fn asked(&self) -> Result<Asked, Failure> {
        let of_files = self.env_file.iter().map(|file| Wanted::read(file));
        let of_files = of_files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let said = self.env.iter().map(|text| Wanted::parse(text));
        let mut wanted = Vec::new();
        for one in of_files.chain(said.collect::<Result<Vec<_>, _>>()?) {
            // The same once more is no other variable.
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
        let files = self.file.iter().map(|text| WantedFile::parse(text));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let served = self.serve.iter().map(|text| Served::parse(text));
        let served = served.collect::<Result<Vec<_>, _>>()?;
        let serves_relay = served.contains(&Served::Relay);
        let relay = RelayInput::read(serves_relay, self.spec.as_deref(), &self.parameter)?;
        Ok(Asked { wanted, files, served, relay })
    }

    async fn prepare(&self, common: &Common) -> Result<Prepared, Failure> {
        let Asked { wanted, files, served, relay } = self.asked()?;
        let mask = if self.no_mask { Mask::Never } else { self.mask };
        let Streams { masked: streams, spares_a_file } = Streams::of_this_process(mask);
        let masks = Arc::<Masks>::default();
        let masked = (!streams.is_empty()).then_some(masks.as_ref());
        let session = Arc::new(Session::open(common, self.timeout).await?);
        let mut environment = Environment::inherited(self.pristine);
        let for_env = wanted.iter().map(|wanted| (&wanted.reference, wanted.fields.as_slice()));
        let for_files = files.iter().map(|file| (&file.reference, file.field.as_slice()));
        let taken = session.resolve_all(&for_env.chain(for_files).collect::<Vec<_>>()).await?;
        for credential in &taken {
            mask_values(masked, credential)?;
        }
        let (for_env, for_files) = taken.split_at_checked(wanted.len()).unwrap_or_default();
        for (wanted, credential) in wanted.iter().zip(for_env) {
            environment.add(wanted, credential)?;
        }
        let listener = match served.is_empty() {
            true => None,
            false => Some({
                let masks = masked.map(|_| Arc::clone(&masks));
                let place = (self.serve_address, self.serve_uid);
                Listener::start(served, relay, Arc::clone(&session), masks, place).await?
            }),
        };
        if let Some(listener) = &listener {
            environment.serve(listener)?;
        }
        // Last: what goes wrong before leaves nothing behind, and what ends this afterwards is heard.
        let signals = Signals::listen().map_err(Failure::from)?;
        let mut written = Vec::new();
        for (file, credential) in files.iter().zip(for_files) {
            for (_, value) in credential.values_of(file.field.as_deref()) {
                written.push(TemporaryFile::write(&file.path, value.expose())?);
            }
        }
        if spares_a_file {
            say(
                "stdout is a file, and nothing that is written to it is masked; --mask always masks that, too",
            );
        }
        let command = self.command.clone();
        Ok(Prepared { command, environment, files: written, listener, masks, streams, signals })
    }
}

impl Prepared {
    async fn run(mut self) -> Result<u8, Failure> {
        let before = |failure: Failure| failure.with_exit_code(exit::BEFORE_COMMAND);
        if self.files.is_empty() && self.listener.is_none() && self.streams.is_empty() {
            // Nothing has to outlive the start of the command, so this process becomes it.
            let set_up = |command: &mut Command| {
                self.environment.apply(command);
                Ok(())
            };
            return child::start(&self.command, set_up, |command| Err(command.exec()));
        }
        let mut outputs = Outputs::open(&self.streams, &self.masks).map_err(before)?;
        let set_up = |command: &mut Command| {
            self.environment.apply(command);
            outputs.attach(command)
        };
        let child = child::start(&self.command, set_up, Command::spawn)?;
        outputs.begun();
        let code = self.signals.pass_on(Pid::from_child(&child)).await?;
        // Whoever reads it may take long; a signal means this process now.
        let rest = tokio::task::spawn_blocking(|| outputs.finish());
        tokio::select! {
            _ = rest => Ok(code),
            signal = self.signals.ending() => {
                // The files go, the thread does not: it would be waited for.
                drop(self.files);
                std::process::exit(128 + signal?.as_raw())
            }
        }
    }
}

/// Masks what is sensitive of a credential from now on.
///
/// # Errors
/// If it cannot be masked.
pub(super) fn mask_values(masks: Option<&Masks>, credential: &Credential) -> Result<(), Failure> {
    let Some(masks) = masks else { return Ok(()) };
    for (field, value) in &credential.fields {
        if !credential.is_sensitive(field) {
            continue;
        }
        let unmasked = masks.add(value.expose())?;
        let what = format!("{field} of {}", credential.reference);
        let said = match unmasked {
            Some(Unmasked::Short) => format!("{what} has fewer than {LEAST_BYTES} bytes and"),
            Some(Unmasked::Common) => format!("{what} is a word, a short number or a ruler, and"),
            Some(Unmasked::Parts) => {
                format!("{what} has parts that are short or common; what stands alone of those")
            }
            None => continue,
        };
        if !value.is_empty() && masks.is_newly_unmasked(what) {
            say(&format!("{said} is not masked in what the command prints"));
        }
    }
    Ok(())
}
