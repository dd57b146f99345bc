//! `keyhatch exec`: a command with credentials in its environment, in files, or from an address of its own.
//!
//! | file | |
//! |---|---|
//! | `arguments` | what the options name |
//! | `environment`, `files` | the command's variables and files |
//! | `follow` | new versions of both |
//! | `running` | the command from its start to its end |
//! | `streams`, `output` | which of the command's streams are masked, and the way there |

mod arguments;
mod environment;
mod files;
mod follow;
mod output;
mod running;
mod streams;

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use arguments::{EnvArgument, MAX_FILE_BYTES, ValueReference};

use super::credential::Credential;
use super::get::within;
use super::listener::{Listener, RelayInput, ServeArgument, parse_address};
use super::mask::{Masks, mask_values};
use crate::cli::identity::session::{FieldSelection, Session};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::io::signals::ForwardedSignals;
use crate::cli::io::time::parse_duration;
use crate::cli::{Common, block_on};
use arguments::FileArgument;
use environment::Environment;
use files::CommandFiles;
use follow::{Follow, Followed};
use running::Running;
use streams::{MaskMode, MaskedStreams};

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
    /// committed; - is stdin. May be given more than once; --env wins.
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
    /// Another IPv4 address of this machine to serve at, for a container with a network of its own; whoever has the token
    /// may ask from there. AWS SDKs take 169.254.170.2 and 169.254.170.23 beside 127.0.0.1.
    #[arg(long, value_name = "IP[:PORT]", requires = "serve", value_parser = parse_address, default_value = "127.0.0.1")]
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
    /// common values are not found. Of documents what is secret by name is masked, and of the rest what looks random and
    /// has 16 characters or more.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_value = "auto", default_missing_value = "always")]
    mask: MaskMode,
    /// Follow new versions of what --env and --file name: write the files anew, each replaced as a whole, and, if a value
    /// has changed, send the command a signal such as HUP, or end it by TERM and begin it again: restart. Variables of a
    /// command that runs stay as they are, so new ones take restart. What is revoked or removed is said on stderr, and the
    /// command keeps what it has.
    #[arg(long, value_parser = Follow::parse, value_name = "HOW", num_args = 0..=1, default_missing_value = "files")]
    follow: Option<Follow>,
    /// How long the command may take to end before it is begun again; then it is killed.
    #[arg(long, value_parser = parse_duration, default_value = "30s", requires = "follow")]
    stop_timeout: Duration,
    /// The same as --mask never.
    #[arg(long, conflicts_with = "mask")]
    no_mask: bool,
    /// How long the broker may take before the command is run.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// The command to run. It ignores the signals that this program was started to ignore, but for PIPE, which does
    /// to it what it does to any program.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the options ask for.
struct ExecArguments {
    wanted: Vec<EnvArgument>,
    files: Vec<FileArgument>,
    served: Vec<ServeArgument>,
    relay: Option<RelayInput>,
}

impl Exec {
    pub(crate) fn run(self, common: &Common) -> Result<u8, Failure> {
        block_on(async {
            let prepared = within(self.timeout, self.prepare(common)).await;
            let prepared =
                prepared.map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
            prepared.run().await
        })
    }

    fn asked(&self) -> Result<ExecArguments, Failure> {
        let of_files = self.env_file.iter().map(|file| EnvArgument::read(file));
        let of_files = of_files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let said = self.env.iter().map(|text| EnvArgument::parse(text));
        let mut wanted = Vec::new();
        for one in of_files.chain(said.collect::<Result<Vec<_>, _>>()?) {
            // The same once more is no other variable.
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
        let files = self.file.iter().map(|text| FileArgument::parse(text));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let served = self.serve.iter().map(|text| ServeArgument::parse(text));
        let served = served.collect::<Result<Vec<_>, _>>()?;
        let serves_relay = served.contains(&ServeArgument::Relay);
        let relay = RelayInput::read(serves_relay, self.spec.as_deref(), &self.parameter)?;
        let has_variables = self.follow == Some(Follow::Restart) && !wanted.is_empty();
        if self.follow.is_some() && files.is_empty() && !has_variables {
            return Err(Failure::usage(
                "--follow is for --file, since the variables of a command that runs do not change; for --env write \
                 --follow restart",
            ));
        }
        Ok(ExecArguments { wanted, files, served, relay })
    }

    /// Everything that is wanted, and what comes after that if it is followed.
    async fn take(
        &self,
        common: &Common,
        session: &Arc<Session>,
        wants: &[FieldSelection<'_>],
    ) -> Result<(Vec<Arc<Credential>>, Option<(Follow, Followed)>), Failure> {
        let Some(how) = self.follow else { return Ok((session.resolve_all(wants).await?, None)) };
        let followed = Followed::begin(common, self.timeout, session, wants).await?;
        Ok((followed.given().to_vec(), Some((how, followed))))
    }

    async fn prepare(&self, common: &Common) -> Result<Running, Failure> {
        let ExecArguments { wanted, files, served, relay } = self.asked()?;
        let mask = if self.no_mask { MaskMode::Never } else { self.mask };
        let MaskedStreams { masked: streams, spares_a_file } = MaskedStreams::of_this_process(mask);
        let masks = Arc::<Masks>::default();
        let masked = (!streams.is_empty()).then_some(masks.as_ref());
        let session = Arc::new(Session::open(common, self.timeout).await?);
        let for_env = wanted.iter().map(|wanted| (&wanted.reference, wanted.fields.as_slice()));
        let for_files = files.iter().map(|file| file.value.want());
        let wants: Vec<_> = for_env.chain(for_files).collect();
        let (taken, following) = self.take(common, &session, &wants).await?;
        for credential in &taken {
            mask_values(masked, credential)?;
        }
        let (for_env, for_files) = taken.split_at_checked(wanted.len()).unwrap_or_default();
        let listener = match served.is_empty() {
            true => None,
            false => Some({
                let masks = masked.map(|_| Arc::clone(&masks));
                let place = (self.serve_address, self.serve_uid);
                Listener::start(served, relay, Arc::clone(&session), masks, place).await?
            }),
        };
        let environment =
            Environment::of(self.pristine, wanted.into(), for_env, listener.as_ref())?;
        // Last: what goes wrong before leaves nothing behind, and what ends this afterwards is heard.
        let signals = ForwardedSignals::listen().map_err(Failure::from)?;
        let files = CommandFiles::write(files, for_files)?;
        if spares_a_file {
            say(
                "stdout is a file, and nothing that is written to it is masked; --mask always masks that, too",
            );
        }
        let (command, stop_timeout) = (self.command.clone(), self.stop_timeout);
        Ok(Running {
            command,
            environment,
            files,
            following,
            stop_timeout,
            listener,
            masks,
            streams,
            signals,
        })
    }
}
