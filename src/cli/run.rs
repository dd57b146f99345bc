//! `keyhatch run`: what a run has received, and its end.

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::output::{moment, print, properties, table};
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;

/// `keyhatch run …`
#[derive(Subcommand)]
pub enum Run {
    /// Show every step of a run, open or closed, and each credential it was given
    Show(Which),
    /// Close every open step of a run
    Close(Which),
}

/// Which run.
#[derive(clap::Args)]
pub struct Which {
    /// The run.
    run: String,
    /// Its workflow; needed only where several have a run of this name.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

impl Run {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = connect(Caller::Executor, common.state.as_deref()).await?;
        match self {
            Self::Show(which) => {
                let run = which.find(channel).await?;
                let answer: Vec<_> = run.steps.iter().map(to_json).collect();
                let names = || {
                    let names = run.steps.iter().flat_map(|step| &step.received);
                    names.map(|received| received.name.clone()).collect::<Vec<_>>().join("\n")
                };
                print(common.output, &answer, || describe(&run), names)
            }
            Self::Close(which) => which.close(common, channel).await,
        }
    }
}

impl Which {
    async fn find(&self, channel: Channel) -> Result<pb::Run, Failure> {
        let (workflow, run) = (self.workflow.clone().unwrap_or_default(), self.run.clone());
        let request = pb::GetRunRequest { workflow, run };
        Ok(ExecutorServiceClient::new(channel).get_run(request).await?.into_inner())
    }

    async fn close(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let workflow = match self.workflow.clone() {
            Some(workflow) => workflow,
            None => {
                let steps = self.find(channel.clone()).await?.steps;
                let mut workflows: Vec<_> = steps.into_iter().map(|step| step.workflow).collect();
                workflows.sort();
                workflows.dedup();
                match workflows.as_slice() {
                    [only] => only.clone(),
                    several => {
                        let text = format!(
                            "several workflows have a run {}; say --workflow: {}",
                            self.run,
                            several.join(", ")
                        );
                        return Err(Failure::new("RUN_AMBIGUOUS", text, exit::USAGE));
                    }
                }
            }
        };
        let request = pb::CloseRunRequest { workflow, run: self.run.clone() };
        let closed = ExecutorServiceClient::new(channel).close_run(request).await?.into_inner();
        let (steps, leases) = (closed.closed_steps, closed.revoked_leases);
        let answer = json!({ "closed_steps": steps, "revoked_leases": leases });
        let text = || format!("{steps} step(s) closed, {leases} lease(s) revoked");
        print(common.output, &answer, text, || self.run.clone())
    }
}

fn short(name: &str) -> String {
    let short = name.strip_prefix("connections/").map(ToOwned::to_owned);
    // A secret is named by its workflow, which is the run's own.
    let secret = || name.split_once("/secrets/").map(|(_, secret)| format!("secret:{secret}"));
    short.or_else(secret).unwrap_or_else(|| name.to_owned())
}

fn state(received: &pb::ReceivedCredential) -> String {
    let until = moment(received.expire_time.as_ref());
    match received.state() {
        pb::LeaseState::Live => format!("live until {until}"),
        pb::LeaseState::Expired => "expired".to_owned(),
        pb::LeaseState::Revoked => "revoked".to_owned(),
        pb::LeaseState::Unspecified => "unknown".to_owned(),
    }
}

fn describe(run: &pb::Run) -> String {
    let steps = run.steps.iter().map(|step| {
        let end = match step.close_reason.as_str() {
            "" => "still open".to_owned(),
            reason => format!("{} ({reason})", moment(step.close_time.as_ref())),
        };
        let mut rows = vec![
            ("step", format!("{} of run {} of {}", step.step, step.run, step.workflow)),
            ("attempt", step.attempt.to_string()),
            ("opened", format!("{} by {}", moment(step.open_time.as_ref()), step.executor)),
            ("closed", end),
        ];
        if !step.run_as.is_empty() {
            rows.push(("run as", step.run_as.join(", ")));
        }
        let received = step.received.iter().map(|one| {
            let mut name = short(&one.name);
            if !one.target.is_empty() {
                name = format!("{name} by {}", one.target);
            }
            let fields = one.fields.join(", ");
            let (version, times) = (one.version.to_string(), one.times.to_string());
            vec![name, version, fields, moment(one.first_time.as_ref()), times, state(one)]
        });
        let received: Vec<_> = received.collect();
        let received = match received.is_empty() {
            true => "received nothing".to_owned(),
            false => table(&["received", "version", "fields", "first", "times", "lease"], received),
        };
        format!("{}\n{received}", properties(&rows))
    });
    steps.collect::<Vec<_>>().join("\n\n")
}

fn to_json(step: &pb::RunStep) -> serde_json::Value {
    let received = step.received.iter().map(|one| {
        json!({
            "resource": one.name,
            "target": if one.target.is_empty() { &one.name } else { &one.target },
            "version": one.version,
            "fields": one.fields,
            "lease": one.lease,
            "first_time": moment(one.first_time.as_ref()),
            "last_time": moment(one.last_time.as_ref()),
            "times": one.times,
            "expire_time": moment(one.expire_time.as_ref()),
            "state": one.state().as_str_name().trim_start_matches("LEASE_STATE_").to_lowercase(),
        })
    });
    json!({
        "opening": step.name,
        "executor": step.executor,
        "workflow": step.workflow,
        "run": step.run,
        "step": step.step,
        "attempt": step.attempt,
        "run_as": step.run_as,
        "open_time": moment(step.open_time.as_ref()),
        "close_time": moment(step.close_time.as_ref()),
        "close_reason": step.close_reason,
        "received": received.collect::<Vec<_>>(),
    })
}
