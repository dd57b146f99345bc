//! `keyhatch dev`: a whole broker, as in production, in a fresh directory.
//!
//! It goes the way of `init` and `serve`, and speaks to the broker over the same sockets as everybody
//! else: as the operator to seed it, as the executor to open a step, as that step to resolve.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tonic::transport::Channel;

use super::broker_args::SharedParents;
use super::serve::{LogFormat, start_log};
use crate::cli::block_on;
use crate::cli::executor::open_step::{close, open};
use crate::cli::executor::step_run::run_as;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{line, say};
use crate::cli::operator::apply::apply;
use crate::cli::operator::explain;
use crate::cli::operator::plan::action_name;
use crate::cli::operator::seed;
use crate::cli::operator::seed::{AllowedReads, Seed, SeedContext};
use crate::cli::step::credential::Credential;
use crate::config::Config;
use crate::daemon::{Daemon, Hangup, InitOptions, Initialised, init};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::{Clock, Reference, TrustDomain, WorkflowName};

/// Arguments of `dev`.
#[derive(clap::Args)]
pub struct Dev {
    /// A seed file or directory instead of the sample; may be given more than once.
    #[arg(short, long, value_name = "SEED")]
    file: Vec<PathBuf>,
    /// The workflow whose step is opened; it may resolve every seeded connection that names nobody.
    #[arg(long, value_name = "NAME", default_value = "dev")]
    workflow: String,
    #[command(flatten)]
    parents: SharedParents,
    /// What the broker logs, on stderr.
    #[arg(long, env = "KEYHATCH_LOG", value_name = "FILTER", default_value = "warn")]
    log: String,
    /// A command to run as the step, instead of the tour.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is seeded where no file is given.
const SAMPLE: &str = "\
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: sample}
spec:
  integration: aws
  fields:
    access_key_id: AKIAIOSFODNN7EXAMPLE
    secret_access_key: not-a-real-secret-access-key
    region: eu-west-1
";
/// How many refusals are explained.
const MOST_REFUSALS: i32 = 5;
/// A connection that no step of the tour may resolve.
const REFUSED: &str = "slack/somebody-elses";

impl Dev {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let is_tour = self.command.is_empty();
        self.run_broker().map_err(|failure| match is_tour {
            true => failure,
            // What the command itself failed with keeps its code.
            false if failure.exit_code < exit::BEFORE_COMMAND => {
                failure.with_exit_code(exit::BEFORE_COMMAND)
            }
            false => failure,
        })
    }

    fn run_broker(self) -> Result<u8, Failure> {
        WorkflowName::parse(&self.workflow)?;
        let documents = self.documents()?;
        start_log(LogFormat::Text, &self.log)?;
        // Removed, with everything in it, when this ends.
        let private = std::fs::Permissions::from_mode(0o700);
        let directory =
            tempfile::Builder::new().prefix("keyhatch-dev-").permissions(private).tempdir()?;
        let (config, made) = make(directory.path(), &self.parents.shared_parent)?;
        let daemon = Daemon::start(&config, None, Clock::system())?;
        let outcome = if self.command.is_empty() {
            self.tour(&daemon, &config, &made, documents)
        } else {
            block_on(self.run_command(&made, documents))
        };
        daemon.stop();
        outcome
    }

    fn documents(&self) -> Result<Vec<Seed>, Failure> {
        let resolver = format!("workflow:{}", self.workflow);
        // The broker is theirs whose files these are.
        let allowed = AllowedReads::everything();
        let (workflow, default_resolver) = (Some(self.workflow.as_str()), Some(resolver.as_str()));
        let context = SeedContext { workflow, default_resolver, allowed: &allowed };
        if self.file.is_empty() {
            return seed::parse_text(SAMPLE, "the sample", &context);
        }
        seed::read_all(&self.file, &context)
    }

    async fn run_command(&self, made: &Initialised, documents: Vec<Seed>) -> Result<u8, Failure> {
        let operator = Endpoint::in_directory(&made.operator)?.connect().await?;
        if let Some(granted) = self.granted(&documents) {
            say(&granted);
        }
        apply(operator.clone(), documents).await?;
        let executor = Endpoint::in_directory(&made.executor)?.connect().await?;
        let opened = self.open(executor.clone()).await?;
        let ran = run_as(&opened, None, &self.command).await;
        let request = pb::CloseStepRequest { name: opened.name, ..Default::default() };
        close(executor, request).await?;
        explain_refusals(operator).await?;
        ran
    }

    /// Whom `dev` lets use what the files give to nobody; nothing if there is no such thing.
    fn granted(&self, documents: &[Seed]) -> Option<String> {
        let workflow = format!("workflow:{}", self.workflow);
        let is_ours = |access: &[pb::AccessBinding]| matches!(access, [only] if only.principals.as_slice() == [workflow.as_str()]);
        let named = documents.iter().filter_map(|seed| match &seed.document {
            Document::Connection(one) => {
                is_ours(&one.access).then(|| format!("{}/{}", one.integration, one.name))
            }
            Document::Group(one) => is_ours(&one.access).then(|| format!("group:{}", one.name)),
            Document::Integration(_) | Document::Secret(_) => None,
        });
        let named = named.collect::<Vec<_>>().join(", ");
        (!named.is_empty())
            .then(|| format!("dev lets {workflow} use what names nobody else: {named}"))
    }

    async fn open(&self, executor: Channel) -> Result<pb::OpenedStep, Failure> {
        let request = pb::OpenStepRequest {
            workflow: self.workflow.clone(),
            run: "1".to_owned(),
            step: "step".to_owned(),
            mount_path: "host".to_owned(),
            ..Default::default()
        };
        open(executor, request).await
    }

    fn tour(
        &self,
        daemon: &Daemon,
        config: &Config,
        made: &Initialised,
        documents: Vec<Seed>,
    ) -> Result<u8, Failure> {
        let signals = Hangup::catch()?.catch_termination()?;
        let state = config.state.display();
        line(&format!("A broker, made as `keyhatch init --state {state}` would:"))?;
        line(&format!("  state     {state}"))?;
        line(&format!("  operator  {}", made.operator.display()))?;
        line(&format!("  executor  {}", made.executor.display()))?;
        line(&format!("  serving   {}", daemon.admin_socket().display()))?;
        let opened = block_on(self.show(made, documents))?;
        let (directory, operator) = (&opened.directory, made.operator.display());
        line("\nTo be that step, in another terminal:")?;
        line(&format!("  export KEYHATCH_DIR={directory}"))?;
        let program = program();
        for command in ["whoami", "get REF", "exec --env REF -- env"] {
            line(&format!("  {program} {command}"))?;
        }
        line("\nTo be the operator:")?;
        for command in ["status", "connection list", "step list"] {
            line(&format!("  KEYHATCH_DIR={operator} {program} {command}"))?;
        }
        line(&format!(
            "\nWhat happened stands in {}",
            config.state.join("journal/000001.jsonl").display()
        ))?;
        line("Serving until Ctrl-C; then all of it is removed.")?;
        signals.wait(|| ControlFlow::Break(()));
        say("stopping");
        Ok(0)
    }

    /// Seeds, opens a step, resolves as it, and is refused once.
    async fn show(
        &self,
        made: &Initialised,
        documents: Vec<Seed>,
    ) -> Result<pb::OpenedStep, Failure> {
        let operator = Endpoint::in_directory(&made.operator)?.connect().await?;
        line("\nThe operator seeds it (what is sensitive can never be read back):")?;
        let granted = self.granted(&documents);
        let references: Vec<Reference> =
            documents.iter().filter_map(|seed| reference_of(&seed.document)).collect();
        for result in apply(operator, documents).await? {
            line(&format!("  {} {}", result.name, action_name(result.action())))?;
        }
        if let Some(granted) = granted {
            line(&format!("  {granted}"))?;
        }
        let executor = Endpoint::in_directory(&made.executor)?.connect().await?;
        let opened = self.open(executor).await?;
        line("\nThe executor opens a step, and would mount its directory into the container:")?;
        line(&format!("  {}", opened.spiffe_id))?;
        line(&format!("  {}", opened.directory))?;

        let step = Endpoint::in_directory(Path::new(&opened.directory))?.connect().await?;
        line("\nThe step resolves over mutual TLS on its own socket:")?;
        for reference in references {
            let shown = reference.to_string();
            match Credential::resolve(step.clone(), reference, Vec::new(), None).await {
                Ok(credential) => {
                    line(&format!("  {shown}"))?;
                    for (name, value) in &credential.fields {
                        line(&format!("    {name} = {} ({} bytes)", "*".repeat(8), value.len()))?;
                    }
                    line(&format!("    lease until {}", credential.expire_time()))?;
                }
                Err(failure) => {
                    line(&format!("  {shown}: {}: {}", failure.reason, failure.message))?;
                }
            }
        }
        line(
            "\nWhat it may not have is refused, and what does not exist is refused in the same words:",
        )?;
        let refused = Credential::resolve(step, REFUSED.parse()?, Vec::new(), None).await;
        match refused {
            Err(failure) => line(&format!("  {REFUSED}: {}: {}", failure.reason, failure.message))?,
            Ok(_) => line(&format!("  {REFUSED} was not refused: your seed file allows it"))?,
        }
        Ok(opened)
    }
}

/// Tells why the step was refused something: the broker that could be asked later is gone then.
async fn explain_refusals(operator: Channel) -> Result<(), Failure> {
    let request = pb::TailJournalRequest {
        last: MOST_REFUSALS,
        denied: true,
        events: vec!["resolve".to_owned()],
        ..Default::default()
    };
    let mut client = SystemServiceClient::new(operator.clone());
    let mut lines = client.tail_journal(request).await?.into_inner();
    while let Some(line) = lines.message().await? {
        if !line.stopped {
            let told = explain::ask(operator.clone(), Question::DecisionId(line.id)).await?;
            say(&format!("\n{}", explain::describe(&told)));
        }
    }
    Ok(())
}

fn make(directory: &Path, parents: &[PathBuf]) -> Result<(Config, Initialised), Failure> {
    let config = Config {
        shared_parents: parents.to_vec(),
        ..Config::in_directories(directory.join("state"), directory.join("run"))
    };
    let made = init(&InitOptions {
        state: config.state.clone(),
        shared_parents: config.shared_parents.clone(),
        runtime: config.runtime.clone(),
        kek: None,
        trust_domain: TrustDomain::parse(TrustDomain::DEFAULT)?,
        name: "dev".to_owned(),
        clock: Clock::system(),
    })?;
    Ok((config, made))
}

fn reference_of(document: &Document) -> Option<Reference> {
    let text = match document {
        Document::Connection(connection) => {
            format!("{}/{}", connection.integration, connection.name)
        }
        Document::Secret(secret) => format!("secret:{}", secret.name),
        // What they are good for is seen by their members and connections.
        Document::Group(_) | Document::Integration(_) => return None,
    };
    text.parse().ok()
}

/// How this program was called, for commands to copy.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("keyhatch"));
    path.display().to_string()
}
