//! `keyhatch step`: an executor opens, renews and closes steps.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::open_step::{NewStep, close, open, to_message};
use super::step_list::StepList;
use super::step_run::StepRun;
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::retry::RETRY_TIME;
use crate::cli::io::endings::{pending_json, pending_lines};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::print;
use crate::cli::io::text::properties;
use crate::cli::io::time::moment;
use crate::cli::io::time::parse_duration;
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;

/// `keyhatch step …`
#[derive(Subcommand)]
pub enum StepCommand {
    /// Open a step: make the directory to mount into it
    Open(StepOpen),
    /// Close a step: end its connections, revoke its leases, remove its directory; with --reason, of any executor, as an
    /// administrator
    Close(StepClose),
    /// Report that a step that was opened with --heartbeat still runs
    Renew(StepArgument),
    /// List open steps
    #[command(alias = "ls")]
    List(StepList),
    /// Open a step, run a command as the step, and close the step in any case
    Run(StepRun),
}

/// Arguments of `step open`.
#[derive(clap::Args)]
pub struct StepOpen {
    #[command(flatten)]
    step: NewStep,
    /// How often `step renew` will be called, such as 60s; the broker closes the step after three missed calls.
    #[arg(long, value_parser = parse_duration)]
    heartbeat: Option<Duration>,
    /// An id of this request: the same step with the same id again returns the same opening.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// The path where the step has the directory mounted, or "host" if the step reads it on this host.
    #[arg(long, value_name = "PATH", default_value = "/run/keyhatch")]
    mount_path: String,
}

/// Arguments of `step close`.
#[derive(clap::Args)]
pub struct StepClose {
    #[command(flatten)]
    of: StepArgument,
    /// As an administrator: why, for the journal.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// As an administrator: block the step, too, so that it is not opened any more.
    #[arg(long, requires = "reason")]
    block: bool,
}

/// The open step that a command is about.
#[derive(clap::Args)]
pub struct StepArgument {
    /// The opening, as `step open` named it.
    #[arg(value_name = "OPENING")]
    opening: Option<String>,
    /// The workflow, with --run and --step, instead of the opening.
    #[arg(long, value_name = "NAME", requires_all = ["run", "step"], conflicts_with = "opening")]
    workflow: Option<String>,
    /// The run.
    #[arg(long, value_name = "NAME", requires = "workflow")]
    run: Option<String>,
    /// The step.
    #[arg(long, value_name = "NAME", requires = "workflow")]
    step: Option<String>,
}

impl StepArgument {
    /// The opening or else an empty text, and workflow, run and step or else empty texts.
    fn names(self) -> Result<(String, [String; 3]), Failure> {
        if self.opening.is_none() && self.workflow.is_none() {
            return Err(Failure::usage("name the opening, or give --workflow, --run and --step"));
        }
        // The prefix may be left out.
        let opening = self.opening.map(|name| match name.contains('/') {
            true => name,
            false => format!("openings/{name}"),
        });
        let names = [self.workflow, self.run, self.step].map(Option::unwrap_or_default);
        Ok((opening.unwrap_or_default(), names))
    }

    async fn renew(
        self,
        common: &Common,
        endpoint: Result<Endpoint, Failure>,
    ) -> Result<(), Failure> {
        let (name, [workflow, run, step]) = self.names()?;
        let request = pb::RenewStepRequest { name, workflow, run, step };
        let renew = async |channel| {
            Ok(ExecutorServiceClient::new(channel).renew_step(request.clone()).await?.into_inner())
        };
        let renewed = endpoint?.with_retries(RETRY_TIME, renew).await?;
        let until = moment(renewed.expire_time.as_ref());
        let answer = json!({ "opening": request.name, "expire_time": until });
        print(common.output, &answer, || format!("open until {until}"), || request.name.clone())
    }
}

impl StepClose {
    async fn close(
        self,
        common: &Common,
        executor: Result<Endpoint, Failure>,
    ) -> Result<(), Failure> {
        let endpoint = match &self.reason {
            Some(_) => Endpoint::find(Caller::Operator, common.place()),
            None => executor,
        };
        let (name, [workflow, run, step]) = self.of.names()?;
        let (reason, block) = (self.reason.unwrap_or_default(), self.block);
        let request = pb::CloseStepRequest { name, workflow, run, step, reason, block };
        let close = async |channel| close(channel, request.clone()).await;
        let closed = endpoint?.with_retries(RETRY_TIME, close).await?;
        let answer = json!({
            "closed": closed.closed,
            "close_reason": closed.close_reason,
            "revoked_leases": closed.revoked_leases,
            "blocked": closed.blocked,
            "pending_endings": pending_json(&closed.pending_endings),
        });
        let done = match (closed.closed, closed.close_reason.as_str()) {
            (true, _) => format!("closed; {} lease(s) revoked", closed.revoked_leases),
            (false, "") => "nothing to close: no such step is open".to_owned(),
            (false, _) => "nothing to close: an administrator has closed the step".to_owned(),
        };
        let text = if closed.blocked { format!("{done}; the step is blocked") } else { done };
        let lines = std::iter::once(text.clone()).chain(pending_lines(&closed.pending_endings));
        print(common.output, &answer, || lines.collect::<Vec<_>>().join("\n"), || text.clone())
    }
}

impl StepCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let endpoint = Endpoint::find(Caller::Executor, common.place());
        match self {
            Self::Open(open) => open.run(common, &endpoint?).await.map(|()| 0),
            Self::Close(step) => step.close(common, endpoint).await.map(|()| 0),
            Self::Renew(step) => step.renew(common, endpoint).await.map(|()| 0),
            Self::List(list) => list.run(common).await.map(|()| 0),
            Self::Run(run) => match endpoint {
                Ok(endpoint) => run.run(&endpoint).await,
                Err(failure) => Err(failure.with_exit_code(exit::BEFORE_COMMAND)),
            },
        }
    }
}

impl StepOpen {
    async fn run(self, common: &Common, endpoint: &Endpoint) -> Result<(), Failure> {
        let request = pb::OpenStepRequest {
            heartbeat: self.heartbeat.map(to_message),
            request_id: self.request_id.unwrap_or_default(),
            ..self.step.request(self.mount_path, endpoint)
        };
        let opened = open(endpoint.connect().await?, request).await?;
        let until = moment(opened.expire_time.as_ref());
        let answer = json!({
            "directory": opened.directory,
            "spiffe_id": opened.spiffe_id,
            "env": opened.env,
            "expire_time": until,
            "opening": opened.name,
            "attempt": opened.attempt,
            "mount_path": opened.mount_path,
            "certificate_expire_time": moment(opened.certificate_expire_time.as_ref()),
        });
        let table = || {
            let mut rows = vec![
                ("opening", opened.name.clone()),
                ("directory", opened.directory.clone()),
                ("mount at", opened.mount_path.clone()),
                ("SPIFFE ID", opened.spiffe_id.clone()),
                ("attempt", opened.attempt.to_string()),
                ("until", until.clone()),
            ];
            rows.extend(opened.env.iter().map(|(name, value)| ("env", format!("{name}={value}"))));
            properties(&rows)
        };
        print(common.output, &answer, table, || opened.name.clone())
    }
}
