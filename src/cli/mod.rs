//! Every command. Commands talk to a running daemon by gRPC only; those that work offline, such as `init`, call the rooms.
//! `io/mod.rs` says how to write a command.

mod admin;
mod daemon;
mod executor;
mod help;
mod identity;
mod io;
mod operator;
mod step;

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use tonic::transport::Channel;

use identity::endpoint::{Caller, Endpoint, Place};
use io::failure::Failure;
use io::output::Output;

/// A secrets broker beside a workflow executor: steps get the credentials they may have, over mutual
/// TLS, under short leases.
#[derive(Parser)]
#[command(name = "keyhatch", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the options of every command, in its help.
const GLOBAL: &str = "Global options";

/// The options of every command.
#[derive(clap::Args)]
struct Common {
    /// The broker's state directory.
    #[arg(long, global = true, env = "KEYHATCH_STATE", value_name = "DIR", help_heading = GLOBAL)]
    state: Option<PathBuf>,
    /// Whether it is that of the flag.
    #[arg(skip)]
    is_state_flag: bool,
    /// The context whose broker an operator's command is for; by default the current one.
    #[arg(long, global = true, env = "KEYHATCH_CONTEXT", value_name = "NAME", help_heading = GLOBAL)]
    context: Option<String>,
    /// The format of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = GLOBAL)]
    output: Output,
}

impl Common {
    /// The broker that the command is for.
    fn place(&self) -> Place<'_> {
        Place {
            state: self.state.as_deref(),
            is_state_flag: self.is_state_flag,
            context: self.context.as_deref(),
        }
    }

    /// Connects as an operator.
    async fn operator(&self) -> Result<Channel, Failure> {
        Endpoint::find(Caller::Operator, self.place())?.connect().await
    }
}

/// The parsers of texts that others write, for the fuzz targets.
#[doc(hidden)]
pub mod parsers {
    pub use super::executor::placeholder::fill_in;
    pub use super::identity::endpoint::address_in_text;
    pub use super::io::time::parse_duration;
    pub use super::operator::seed::{AllowedReads, SeedContext, parse_text};
    pub use super::step::exec::EnvArgument;
    pub use crate::mask::{Masks, Unmasked};
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole broker in a fresh directory: a tour, or COMMAND as a step of it
    Dev(daemon::dev::Dev),
    /// Make a new broker: keys, CA, journal, store, and the first operator
    Init(daemon::init::Init),
    /// Run the broker
    Serve(daemon::serve::Serve),
    /// Show the state of the broker
    Status,
    /// Check within 2 seconds whether the broker serves: for probes
    Healthcheck,
    /// Find problems of this host's broker, or of this step, and how to repair them
    Doctor(daemon::doctor::Doctor),
    /// Print the daemon's options, and the files that start it
    #[command(subcommand)]
    Config(daemon::configuration::Configuration),
    /// Print a shell's completion of this program's commands
    Completion(help::completion::Completion),
    /// Print the manual page, or write the pages of all commands
    Man(help::manual::Manual),
    /// Resolve a credential, as a step
    Get(step::get::Get),
    /// Send an HTTP request with a credential that this step does not see, as a step
    Send(step::send::Send),
    /// Run a command with credentials in its environment, as a step
    Exec(step::exec::Exec),
    /// Replace the references in a template with their values, as a step
    Inject(step::inject::Inject),
    /// Answer git, docker, kubectl or an AWS profile in its own protocol, as a step
    Helper(step::helper::Helper),
    /// Print a token that names this step to others, signed by the broker, as a step
    Token(step::token::Token),
    /// Show who this step, or this operator, is to the broker
    Whoami,
    /// Open, close and run steps, as an executor
    #[command(subcommand, alias = "steps")]
    Step(executor::step::StepCommand),
    /// List runs and show what they have received, or, as an executor, close their steps
    #[command(subcommand, alias = "runs")]
    Run(executor::run::RunCommand),
    /// List the workflows that have had steps, as an operator
    #[command(subcommand, alias = "workflows")]
    Workflow(operator::workflow::WorkflowCommand),
    /// Create, show, change, test and delete connections, as an operator
    #[command(subcommand, aliases = ["conn", "connections"])]
    Connection(operator::connection::ConnectionCommand),
    /// Create, show and change groups of connections, as an operator
    #[command(subcommand, alias = "groups")]
    Group(operator::group::GroupCommand),
    /// Give and take away access to a connection or group, as an operator
    #[command(subcommand)]
    Access(operator::access::AccessCommand),
    /// Show the types of connections
    #[command(subcommand, alias = "integrations")]
    Integration(operator::integration::IntegrationCommand),
    /// Put, list and delete a workflow's secrets, as an operator
    #[command(subcommand, alias = "secrets")]
    Secret(operator::secret::SecretCommand),
    /// Seed connections, groups, secrets and integrations from files, as an operator
    Apply(operator::apply::Apply),
    /// Check whether workflow files will get what they ask for, before they run
    Check(operator::check::Check),
    /// Show what apply would change; exit code 1 if that is anything
    Diff(operator::diff::Diff),
    /// Print everything but sensitive values as seed files for apply
    Export(operator::export::Export),
    /// Import credentials that are kept elsewhere, as an operator
    Import(operator::import::Import),
    /// Explain why a step was refused, or would be, as an operator
    Explain(operator::explain::Explain),
    /// Stream a sealed copy of everything to a file, as an administrator
    Backup(admin::backup::BackupCommand),
    /// Make a broker from a backup, or confirm a restored broker
    Restore(admin::backup::RestoreCommand),
    /// List and revoke the live leases of all steps, as an operator
    #[command(subcommand, alias = "leases")]
    Lease(operator::incident::lease::LeaseCommand),
    /// List short-lived credentials whose ending upstream is not over, as an operator
    #[command(subcommand, alias = "endings")]
    Ending(operator::ending::EndingCommand),
    /// Read the journal, as an operator, or verify it offline
    #[command(subcommand)]
    Journal(operator::journal::JournalCommand),
    /// List and rotate the keys that seal the store, as an administrator
    #[command(subcommand, alias = "keys")]
    Key(admin::key::KeyCommand),
    /// Publish the keys that sign the tokens of steps, and rotate them
    #[command(subcommand)]
    Issuer(admin::issuer::IssuerCommand),
    /// Add, list and remove operators, as an administrator
    #[command(subcommand, alias = "operators")]
    Operator(admin::registry::OperatorCommand),
    /// Add, list and remove executors, as an administrator
    #[command(subcommand, alias = "executors")]
    Executor(admin::registry::ExecutorCommand),
    /// Take, choose, list and remove the brokers elsewhere that you operate
    #[command(subcommand, alias = "contexts")]
    Context(admin::context::ContextCommand),
    /// Renew the certificates of operators and executors
    Renew(admin::renew::Renew),
}

/// Runs the command line, and returns the process's exit code.
pub fn run() -> ExitCode {
    crate::daemon::protect_memory();
    let Cli { common, command } = match parse(step::helper::as_called(std::env::args_os())) {
        Ok(parsed) => parsed,
        Err(error) => return misused(&error),
    };
    match dispatch(&common, command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            io::output::say(&failure.to_string());
            ExitCode::from(failure.exit_code)
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = help::tree::with_help();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let is_flag = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
    // clap would count variables, too. A flag comes before them.
    cli.common.is_state_flag = is_flag("state");
    match (cli.common.is_state_flag, is_flag("context")) {
        (true, true) => {
            let text = "--state and --context name two brokers: give one of the two";
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
        (true, false) => cli.common.context = None,
        (false, _) => {}
    }
    Ok(cli)
}

/// The whole command line, for completion and manual pages.
fn command() -> clap::Command {
    let mut command = help::tree::tree();
    command.build();
    command
}

/// Prints clap's answer: help and version to stdout; an error to stderr, with the line that scripts read at the end.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
    } else if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        io::output::say(
            &Failure::usage("a command is missing: choose one of those above").to_string(),
        );
    } else {
        // The usage comes first: scripts read the last line.
        let text = error.to_string();
        let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let what: Vec<&str> = what.lines().map(str::trim).collect();
        io::output::say(help::tree::usage_of_words(rest).trim_end());
        io::output::say(&Failure::usage(what.join(" ").trim_start_matches("error: ")).to_string());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(io::failure::exit::USAGE))
}

fn dispatch(common: &Common, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Dev(dev) => dev.run(),
        Command::Init(init) => init.run(common).map(|()| 0),
        Command::Serve(serve) => serve.run(common).map(|()| 0),
        Command::Exec(exec) => exec.run(common),
        Command::Inject(inject) => block_on(inject.run(common)).map(|()| 0),
        Command::Helper(helper) => block_on(helper.run(common)),
        Command::Step(step) => block_on(step.run(common)),
        Command::Key(key) => key.run(common).map(|()| 0),
        Command::Issuer(issuer) => block_on(issuer.run(common)).map(|()| 0),
        Command::Healthcheck => block_on(daemon::healthcheck::run(common)).map(|()| 0),
        Command::Doctor(doctor) => block_on(doctor.run(common)).map(|()| 0),
        Command::Config(configuration) => configuration.run(common).map(|()| 0),
        Command::Renew(renew) => block_on(renew.run(common)).map(|()| 0),
        Command::Completion(completion) => completion.run().map(|()| 0),
        Command::Man(manual) => manual.run().map(|()| 0),
        Command::Status => block_on(daemon::status::run(common)).map(|()| 0),
        Command::Get(get) => block_on(get.run(common)).map(|()| 0),
        Command::Send(send) => block_on(send.run(common)).map(|()| 0),
        Command::Token(token) => block_on(token.run(common)).map(|()| 0),
        Command::Whoami => block_on(identity::whoami::run(common)).map(|()| 0),
        Command::Connection(connection) => block_on(connection.run(common)).map(|()| 0),
        Command::Group(group) => block_on(group.run(common)).map(|()| 0),
        Command::Run(run) => block_on(run.run(common)).map(|()| 0),
        Command::Workflow(workflow) => block_on(workflow.run(common)).map(|()| 0),
        Command::Access(access) => block_on(access.run(common)).map(|()| 0),
        Command::Explain(explain) => block_on(explain.run(common)).map(|()| 0),
        Command::Lease(lease) => block_on(lease.run(common)).map(|()| 0),
        Command::Ending(ending) => block_on(ending.run(common)).map(|()| 0),
        Command::Backup(backup) => block_on(backup.run(common)).map(|()| 0),
        Command::Restore(restore) => restore.run(common).map(|()| 0),
        Command::Journal(journal) => journal.run(common).map(|()| 0),
        Command::Operator(operator) => block_on(operator.run(common)).map(|()| 0),
        Command::Context(context) => context.run(common).map(|()| 0),
        Command::Executor(executor) => block_on(executor.run(common)).map(|()| 0),
        Command::Integration(integration) => block_on(integration.run(common)).map(|()| 0),
        Command::Secret(secret) => block_on(secret.run(common)).map(|()| 0),
        Command::Apply(apply) => block_on(apply.run(common)).map(|()| 0),
        Command::Check(check) => block_on(check.run(common)),
        Command::Diff(diff) => block_on(diff.run(common)),
        Command::Export(export) => block_on(export.run(common)).map(|()| 0),
        Command::Import(import) => block_on(import.run(common)).map(|()| 0),
    }
}

/// Runs work to its end. It is boxed so that tokio's code is compiled once for all commands, and the work once instead of
/// wherever tokio polls it: the program is 2.5 MB smaller.
fn block_on<'a, T>(work: impl Future<Output = Result<T, Failure>> + 'a) -> Result<T, Failure> {
    let work: Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>> = Box::pin(work);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
