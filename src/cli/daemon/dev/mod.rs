//! `keyhatch dev`: a whole broker, as in production, in a fresh directory.
//!
//! It starts the broker as `init` and `serve` do. It speaks to the broker over the same sockets as everybody else: as the
//! operator who seeds, as the executor that opens a step, and as that step.

mod arguments;
mod tour;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tonic::transport::Channel;

use super::serve::{LogFormat, start_log};
use crate::cli::block_on;
use crate::cli::executor::open_step::close;
use crate::cli::executor::step_run::run_as;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::operator::apply::apply;
use crate::cli::operator::explain;
use crate::cli::operator::seed::Seed;
use crate::config::Config;
use crate::daemon::{Daemon, InitOptions, Initialised, init};
use crate::grpc::pb;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::{Clock, TrustDomain, WorkflowName};
use arguments::SAMPLE;
use tour::Tour;

pub use arguments::Dev;

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
