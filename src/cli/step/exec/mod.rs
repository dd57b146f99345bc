//! `keyhatch exec`: runs a command with credentials in its environment, in files, or at an address of its own.
//!
//! | file | |
//! |---|---|
//! | `arguments` | the options that name credentials |
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
use super::listener::{HttpServed, Place, RelayInput, inherited_entries, parse_address};
use super::mask::mask_values;
use super::served::{ServeArgument, Served};
use crate::cli::identity::session::{FieldSelection, Session};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::io::signals::ForwardedSignals;
use crate::cli::io::time::parse_duration;
use crate::cli::{Common, block_on};
use crate::mask::Masks;
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
    /// Variables to set; may be given more than once. REF: every field under its customary name, such as
    /// AWS_ACCESS_KEY_ID. PREFIX=REF:A,B: these fields as PREFIX_A and PREFIX_B.
    /// PREFIX=REF: every field, where the integration fixes their names. NAME=REF:FIELD: one field;
    /// DATABASE_URL=postgres/NAME:uri the address with the login in it, of mysql, too. NAME=secret:SECRET: a secret.
    #[arg(long, value_name = "WHAT")]
    env: Vec<String>,
    /// A file of arguments of --env, one a line, and of lines with #. It holds references and no values, so it can be
    /// committed; - is stdin. May be given more than once; --env wins.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A file of mode 0600 that exists while the command runs: PATH=REF:FIELD or PATH=secret:SECRET; may be given more
    /// than once.
    #[arg(long, value_name = "PATH=WHAT")]
    file: Vec<String>,
    /// An address on this machine that the command's tools find by their own variables, with a token for this
    /// command alone; may be given more than once. http=REF: requests to an API, whose credential the command does not
    /// get, in KEYHATCH_HTTP_URL and the integration's variable, such as GITHUB_API_URL; http=VARIABLE=REF names another.
    /// git=REF or git=HOST=REF: git clone, fetch and push by https, without the credential. aws=REF (or aws, for the
    /// default connection) for AWS SDKs. relay for Puppet Relay's steps. Or an agent that signs the logins of ssh without
    /// giving the command the key: ssh=REF; git uses it, and ssh with -F "$KEYHATCH_SSH_CONFIG" accepts the connection's
    /// known_hosts alone.
    #[arg(long, value_name = "WHAT")]
    serve: Vec<String>,
    /// The user that the command becomes, if it is another user: what is served is for this user only.
    #[arg(long, value_name = "UID", requires = "serve")]
    serve_uid: Option<u32>,
    /// Another IPv4 address of this machine to serve at, for a container with a network of its own. There the token
    /// alone protects the credentials. AWS SDKs take 169.254.170.2 and 169.254.170.23 beside 127.0.0.1.
    #[arg(long, value_name = "IP[:PORT]", requires = "serve", value_parser = parse_address, default_value = "127.0.0.1")]
    serve_address: SocketAddrV4,
    /// The spec of a step for --serve relay, as in a Relay workflow, or the whole step.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// A parameter of the run for --spec, JSON or a text; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", requires = "spec")]
    parameter: Vec<String>,
    /// Hand the command nothing of this environment but PATH, HOME, USER, LOGNAME, SHELL, TERM, TMPDIR, TZ and
    /// the language.
    #[arg(long)]
    pristine: bool,
    /// Mask values in the output of the command. auto: in pipes and sockets, in a file that stdout and stderr share, in
    /// the file of stderr and, if CI, BUILDKITE or JENKINS_URL is set, on terminals. A file of stdout alone is data and
    /// left alone. Masking is for logs: it does not find other encodings, encrypted or compressed output, and short or
    /// common values. In documents it masks members with secret names, and any other text that looks random and has 16
    /// characters or more.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_value = "auto", default_missing_value = "always")]
    mask: MaskMode,
    /// Follow new versions of what --env and --file name. Files are replaced, each as a whole. If a value has changed,
    /// HOW can also be a signal to send, such as HUP, or restart: end the command by TERM and start it again. Variables
    /// of a running command do not change, so new ones need restart. If a credential is revoked or deleted, stderr says
    /// so, and the command keeps the old values.
    #[arg(long, value_parser = Follow::parse, value_name = "HOW", num_args = 0..=1, default_missing_value = "files")]
    follow: Option<Follow>,
    /// How long the command may take to end before a restart; then it is killed.
    #[arg(long, value_parser = parse_duration, default_value = "30s", requires = "follow")]
    stop_timeout: Duration,
    /// The same as --mask never.
    #[arg(long, conflicts_with = "mask")]
    no_mask: bool,
    /// How long the broker may take before the command runs.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// The command to run. It ignores the signals that this program was started to ignore, except PIPE, which acts as
    /// on any program.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The parsed options.
struct ExecArguments {
    env: Vec<EnvArgument>,
    files: Vec<FileArgument>,
    serve: Vec<ServeArgument>,
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

    fn arguments(&self) -> Result<ExecArguments, Failure> {
        let of_files = self.env_file.iter().map(|file| EnvArgument::read(file));
        let of_files = of_files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let of_options = parse_all(&self.env, EnvArgument::parse)?;
        let mut env = Vec::new();
        for argument in of_files.chain(of_options) {
            // A repeated argument sets no second variable.
            if !env.contains(&argument) {
                env.push(argument);
            }
        }
        let files = parse_all(&self.file, FileArgument::parse)?;
        let serve = parse_all(&self.serve, ServeArgument::parse)?;
        let serves_relay = serve.contains(&ServeArgument::Http(HttpServed::Relay));
        let relay = RelayInput::read(serves_relay, self.spec.as_deref(), &self.parameter)?;
        let has_variables = self.follow == Some(Follow::Restart) && !env.is_empty();
        if self.follow.is_some() && files.is_empty() && !has_variables {
            return Err(Failure::usage(
                "--follow is for --file, since the variables of a running command do not change; for --env write \
                 --follow restart",
            ));
        }
        Ok(ExecArguments { env, files, serve, relay })
    }

    /// Resolves these selections, and follows them with --follow.
    async fn resolve(
        &self,
        common: &Common,
        session: &Arc<Session>,
        selections: &[FieldSelection<'_>],
    ) -> Result<(Vec<Arc<Credential>>, Option<(Follow, Followed)>), Failure> {
        let Some(how) = self.follow else {
            return Ok((session.resolve_all(selections).await?, None));
        };
        let followed = Followed::begin(common, self.timeout, session, selections).await?;
        Ok((followed.current().to_vec(), Some((how, followed))))
    }

    async fn prepare(&self, common: &Common) -> Result<Running, Failure> {
        let ExecArguments { env, files, serve, relay } = self.arguments()?;
        let mask = if self.no_mask { MaskMode::Never } else { self.mask };
        let MaskedStreams { masked: streams, spares_a_file } = MaskedStreams::of_this_process(mask);
        let masks = Arc::<Masks>::default();
        let masked = (!streams.is_empty()).then_some(masks.as_ref());
        let session = Arc::new(Session::open(common, self.timeout).await?);
        let for_env = env.iter().map(|argument| (&argument.reference, argument.fields.as_slice()));
        let for_files = files.iter().map(|file| file.value.selection());
        let selections: Vec<_> = for_env.chain(for_files).collect();
        let (credentials, following) = self.resolve(common, &session, &selections).await?;
        for credential in &credentials {
            mask_values(masked, credential)?;
        }
        let (for_env, for_files) = credentials.split_at_checked(env.len()).unwrap_or_default();
        let served = match serve.is_empty() {
            true => None,
            false => Some({
                let masks = masked.map(|_| Arc::clone(&masks));
                let git_entries = if self.pristine { 0 } else { inherited_entries()? };
                let (address, uid) = (self.serve_address, self.serve_uid);
                let place = Place { address, uid, git_entries };
                Served::start(serve, relay, &session, masks, place).await?
            }),
        };
        let environment = Environment::new(self.pristine, env.into(), for_env, served.as_ref())?;
        // Files come last: an earlier failure leaves nothing behind, and a later signal is caught and removes them.
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
            served,
            masks,
            streams,
            signals,
        })
    }
}

fn parse_all<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    texts.iter().map(|text| parse(text)).collect()
}
