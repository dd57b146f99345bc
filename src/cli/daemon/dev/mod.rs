//! `keyhatch dev`: a whole broker, as in production, in a fresh directory.
//!
//! It starts the broker as `init` and `serve` do. It speaks to the broker over the same sockets as everybody else: as the
//! operator who seeds, as the executor that opens a step, and as that step.

mod tour;

use std::ffi::OsString;
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
use crate::cli::io::output::say;
use crate::cli::operator::apply::apply;
use crate::cli::operator::explain;
use crate::cli::operator::seed;
use crate::cli::operator::seed::{AllowedReads, Seed, SeedContext};
use crate::config::Config;
use crate::daemon::{Daemon, InitOptions, Initialised, init};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::{Clock, TrustDomain, WorkflowName};
use tour::Tour;

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
    /// The filter of the log, which goes to stderr.
    #[arg(long, env = "KEYHATCH_LOG", value_name = "FILTER", default_value = "warn")]
    log: String,
    /// A command to run as the step, instead of the tour.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The seed file of the tour.
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
/// The most refusals that are explained.
const MOST_REFUSALS: i32 = 5;

impl Dev {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let is_tour = self.command.is_empty();
        self.run_broker().map_err(|failure| match is_tour {
            true => failure,
            // A failure to run the command keeps its own code.
            false if failure.exit_code < exit::BEFORE_COMMAND => {
                failure.with_exit_code(exit::BEFORE_COMMAND)
            }
            false => failure,
        })
    }

    fn run_broker(self) -> Result<u8, Failure> {
        WorkflowName::parse(&self.workflow)?;
        let documents = self.documents(SAMPLE)?;
        start_log(LogFormat::Text, &self.log)?;
        // The directory is removed at the end, with everything in it.
        let private = std::fs::Permissions::from_mode(0o700);
        let directory =
            tempfile::Builder::new().prefix("keyhatch-dev-").permissions(private).tempdir()?;
        let (config, made) = make(directory.path(), &self.parents.shared_parent)?;
        let daemon = Daemon::start(&config, None, Clock::system())?;
        let outcome = if self.command.is_empty() {
            Tour { dev: &self, config: &config, made: &made }.run(&daemon, documents)
        } else {
            block_on(self.run_command(&made, documents))
        };
        drop(daemon.stop());
        outcome
    }

    /// The documents of the files that were given, or else those of `sample`.
    fn documents(&self, sample: &str) -> Result<Vec<Seed>, Failure> {
        let resolver = format!("workflow:{}", self.workflow);
        // The user's files seed a broker of the user's own.
        let allowed = AllowedReads::everything();
        let (workflow, default_resolver) = (Some(self.workflow.as_str()), Some(resolver.as_str()));
        let context = SeedContext { workflow, default_resolver, allowed: &allowed };
        if self.file.is_empty() {
            return seed::parse_text(sample, "the sample", &context);
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

    /// Says which resources `dev` opened to its workflow because their documents name nobody. `None` if there is none.
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
        (!named.is_empty()).then(|| {
            format!("dev lets {workflow} use {named}, because the seed names nobody for it")
        })
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
}

/// Explains the step's refusals now, because the broker is gone when the command has ended.
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
