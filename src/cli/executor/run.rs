//! `keyhatch run`: what a run has received, and closing all its steps.

use std::collections::BTreeSet;

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::run_list::RunList;
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::endings::{ending_json, ending_words, pending_json, pending_lines};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::print;
use crate::cli::io::text::table;
use crate::cli::io::time::{moment, second};
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;
use crate::model::{Reference, ResourceName};

/// `keyhatch run …`
#[derive(Subcommand)]
pub enum RunCommand {
    /// List past and current runs, as an operator
    #[command(alias = "ls")]
    List(RunList),
    /// Show every step of a run, open or closed, and each credential that it received
    Show(RunArgument),
    /// Close every open step of a run, as its executor; or, with --reason, of any executor, as an administrator
    Close(RunClose),
}

/// Arguments of `run close`.
#[derive(clap::Args)]
pub struct RunClose {
    #[command(flatten)]
    of: RunArgument,
    /// As an administrator: why, for the journal. The run is blocked, too: no step of it is opened any more.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// As an administrator: do not block the run.
    #[arg(long, requires = "reason")]
    no_block: bool,
}

/// The run that a command is about.
#[derive(clap::Args)]
pub struct RunArgument {
    /// The run.
    run: String,
    /// Its workflow; needed only if several workflows have a run of this name.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

impl RunCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(common).await,
            Self::Show(which) => which.show(common).await,
            Self::Close(close) => close.run(common).await,
        }
    }
}

impl RunArgument {
    /// Shows the run. An operator sees the runs of this name of every executor.
    async fn show(&self, common: &Common) -> Result<(), Failure> {
        let channel = Endpoint::find_any(common.place())?.connect().await?;
        let run = self.find(channel).await?;
        let answer: Vec<_> = run.steps.iter().map(to_json).collect();
        let names = || {
            let names = run.steps.iter().flat_map(|step| &step.received);
            let names: BTreeSet<&str> = names.map(|one| one.name.as_str()).collect();
            names.into_iter().collect::<Vec<_>>().join("\n")
        };
        print(common.output, &answer, || describe(&run), names)
    }

    async fn find(&self, channel: Channel) -> Result<pb::Run, Failure> {
        let (workflow, run) = (self.workflow.clone().unwrap_or_default(), self.run.clone());
        let request = pb::GetRunRequest { workflow, run };
        Ok(ExecutorServiceClient::new(channel).get_run(request).await?.into_inner())
    }

    /// The run's workflow, which may be left out.
    async fn workflow(&self, channel: &Channel) -> Result<String, Failure> {
        match self.workflow.clone() {
            Some(workflow) => Ok(workflow),
            None => only_workflow(&self.find(channel.clone()).await?),
        }
    }

    async fn close(self, common: &Common) -> Result<(), Failure> {
        let endpoint = Endpoint::find(Caller::Executor, common.place())?;
        let channel = endpoint.connect().await?;
        let workflow = match self.workflow(&channel).await {
            Ok(workflow) => workflow,
            Err(failure) => return Err(self.not_own(failure, common, &endpoint).await),
        };
        let run = self.run.clone();
        let request = pb::CloseRunRequest { workflow, run, ..Default::default() };
        let mut client = ExecutorServiceClient::new(channel.clone());
        let closed = client.close_run(request).await?.into_inner();
        // Closed steps are fine. A run that never existed is an error of the user.
        if closed.closed_steps == 0
            && let Err(failure) = self.find(channel).await
        {
            return Err(self.not_own(failure, common, &endpoint).await);
        }
        print_closed(common, &closed, &self.run)
    }

    /// Explains that this executor has no such run, and names its executors if there is an operator's identity to ask
    /// with.
    async fn not_own(&self, failure: Failure, common: &Common, own: &Endpoint) -> Failure {
        if failure.reason != "RUN_NOT_FOUND" {
            return failure;
        }
        let who = own.executor().unwrap_or_else(|| "this executor".to_owned());
        let asked = async {
            let operator = Endpoint::find(Caller::Operator, common.place())?;
            self.find(operator.connect().await?).await
        };
        let others = match asked.await {
            Ok(run) => {
                let others: BTreeSet<_> = run.steps.into_iter().map(|step| step.executor).collect();
                let others: Vec<_> = others.iter().map(|name| format!("executor:{name}")).collect();
                format!("it is a run of {}, which closes it", others.join(", "))
            }
            Err(_) => "an operator sees every executor's with: keyhatch run list".to_owned(),
        };
        Failure { message: format!("{who} has no run {}; {others}", self.run), ..failure }
    }
}

impl RunClose {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let Some(reason) = self.reason else { return self.of.close(common).await };
        let channel = common.operator().await?;
        let workflow = self.of.workflow(&channel).await?;
        let (run, block) = (self.of.run.clone(), Some(!self.no_block));
        let request = pb::CloseRunRequest { workflow, run, reason, block };
        let closed = ExecutorServiceClient::new(channel).close_run(request).await?.into_inner();
        print_closed(common, &closed, &self.of.run)
    }
}

fn print_closed(common: &Common, closed: &pb::CloseRunResponse, run: &str) -> Result<(), Failure> {
    let (steps, leases) = (closed.closed_steps, closed.revoked_leases);
    let answer = json!({
        "closed_steps": steps,
        "revoked_leases": leases,
        "blocked": closed.blocked,
        "pending_endings": pending_json(&closed.pending_endings),
    });
    let text = || {
        let blocked = if closed.blocked { "; the run is blocked" } else { "" };
        let done = format!("{steps} step(s) closed, {leases} lease(s) revoked{blocked}");
        let lines = std::iter::once(done).chain(pending_lines(&closed.pending_endings));
        lines.collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, text, || run.to_owned())
}

/// The workflow of a run. Fails if several workflows have a run of this name.
fn only_workflow(run: &pb::Run) -> Result<String, Failure> {
    let workflows: BTreeSet<_> = run.steps.iter().map(|step| step.workflow.as_str()).collect();
    let workflows: Vec<_> = workflows.into_iter().collect();
    match workflows.as_slice() {
        [only] => Ok((*only).to_owned()),
        several => {
            let text = format!(
                "several workflows have a run of this name; give --workflow: {}",
                several.join(", ")
            );
            Err(Failure::new("RUN_AMBIGUOUS", text, exit::USAGE))
        }
    }
}

fn short(name: &str) -> String {
    match name.parse() {
        Ok(ResourceName::Connection(connection)) => connection.to_string(),
        // The workflow of a secret is that of the run.
        Ok(ResourceName::Secret(secret)) => Reference::Secret(secret.name).to_text(),
        _ => name.to_owned(),
    }
}

fn state(received: &pb::ReceivedCredential) -> String {
    match received.state() {
        pb::LeaseState::Live => format!("live until {}", second(received.expire_time.as_ref())),
        pb::LeaseState::Expired => "expired".to_owned(),
        pb::LeaseState::Revoked => "revoked".to_owned(),
        pb::LeaseState::Unspecified => "unknown".to_owned(),
    }
}

/// What the upstream's log calls the credentials, with their ends and how they ended; empty for stored values.
fn minted(received: &pb::ReceivedCredential) -> String {
    let one = |mint: &pb::MintedCredential| {
        let name = if mint.handle.is_empty() { &mint.mint } else { &mint.handle };
        let end = mint.credential_expire_time.as_ref();
        match &mint.ending {
            None => format!("{name} until {}", second(end)),
            Some(ending) => format!("{name} {}", ending_words(ending, end)),
        }
    };
    received.mints.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The runs of this name, one for each workflow and executor: the steps, and below them what they received.
pub(crate) fn describe(run: &pb::Run) -> String {
    let key = |step: &pb::RunStep| (step.workflow.clone(), step.executor.clone());
    let mut groups: Vec<((String, String), Vec<&pb::RunStep>)> = Vec::new();
    for step in &run.steps {
        match groups.iter_mut().find(|(other, _)| *other == key(step)) {
            Some((_, group)) => group.push(step),
            None => groups.push((key(step), vec![step])),
        }
    }
    groups.iter().map(|(_, steps)| describe_steps(steps)).collect::<Vec<_>>().join("\n\n")
}

fn describe_steps(steps: &[&pb::RunStep]) -> String {
    let rows = steps.iter().map(|step| {
        let (closed, why) = match step.close_reason.as_str() {
            "" => ("open".to_owned(), String::new()),
            _ if !step.closed_by.is_empty() => {
                (second(step.close_time.as_ref()), format!("by {}", step.closed_by))
            }
            reason => (second(step.close_time.as_ref()), reason.replace('_', " ")),
        };
        let (attempt, opened) = (step.attempt.to_string(), second(step.open_time.as_ref()));
        let received = step.received.len().to_string();
        vec![step.step.clone(), attempt, opened, closed, why, received, step.run_as.join(", ")]
    });
    let mut header = vec!["step", "attempt", "opened", "closed", "why", "received", "run as"];
    let mut rows: Vec<Vec<String>> = rows.collect();
    if steps.iter().all(|step| step.run_as.is_empty()) {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    let title = steps.first().map_or_else(String::new, |first| {
        format!("run {} of {}, by {}", first.run, first.workflow, first.executor)
    });
    let parts = [Some(title), Some(table(&header, rows)), Some(describe_received(steps))];
    let parts: Vec<_> = parts.into_iter().chain([describe_used(steps)]).flatten().collect();
    parts.join("\n\n")
}

fn describe_received(steps: &[&pb::RunStep]) -> String {
    let received = steps.iter().flat_map(|step| step.received.iter().map(move |one| (step, one)));
    let received = received.map(|(step, one)| {
        let (attempt, version) = (step.attempt.to_string(), one.version.to_string());
        let (first, times) = (second(one.first_time.as_ref()), one.times.to_string());
        let (step, name) = (step.step.clone(), short_by(&one.name, &one.target));
        let fields = one.fields.join(", ");
        vec![step, attempt, name, version, fields, first, times, state(one), minted(one)]
    });
    let mut received: Vec<_> = received.collect();
    if received.is_empty() {
        return "nothing was received".to_owned();
    }
    let mut header = vec![
        "step", "attempt", "received", "version", "fields", "first", "times", "lease", "minted",
    ];
    if received.iter().all(|row| row.last().is_some_and(String::is_empty)) {
        header.pop();
        received.iter_mut().for_each(|row| drop(row.pop()));
    }
    table(&header, received)
}

/// What was used without being received; `None` if nothing was.
fn describe_used(steps: &[&pb::RunStep]) -> Option<String> {
    let used = steps.iter().flat_map(|step| step.used.iter().map(move |one| (step, one)));
    let rows = used.map(|(step, one)| {
        let (attempt, version) = (step.attempt.to_string(), one.version.to_string());
        let (first, times) = (second(one.first_time.as_ref()), one.times.to_string());
        let (step, name) = (step.step.clone(), short_by(&one.name, &one.target));
        vec![step, attempt, name, version, purpose(one), first, times]
    });
    let rows: Vec<_> = rows.collect();
    let header = ["step", "attempt", "used", "version", "for", "first", "times"];
    (!rows.is_empty()).then(|| table(&header, rows))
}

/// What a connection was used for.
fn purpose(used: &pb::UsedConnection) -> String {
    match &used.ssh_login {
        Some(login) if login.user.is_empty() => "its public key".to_owned(),
        Some(login) if login.host_key.is_empty() => {
            format!("ssh as {}, by {}, at any host", login.user, login.key)
        }
        Some(login) => {
            format!("ssh as {}, by {}, at {}", login.user, login.key, login.host_key)
        }
        None => used.http_request.as_ref().map(request).unwrap_or_default(),
    }
}

/// A request, and how it ended the last time.
fn request(one: &pb::HttpRequestUse) -> String {
    let end = match (one.last_fault.as_str(), one.last_status) {
        ("", status) => status.to_string(),
        (fault, 0) => fault.to_owned(),
        (fault, status) => format!("{status}, {fault}"),
    };
    format!("{} {}{}: {end}", one.method, one.host, one.path)
}

/// A name, with the target that it was asked for by, if that is another.
fn short_by(name: &str, target: &str) -> String {
    match target {
        "" => short(name),
        target => format!("{} by {target}", short(name)),
    }
}

fn mint_json(mint: &pb::MintedCredential) -> serde_json::Value {
    json!({
        "mint": mint.mint,
        "source": mint.source,
        "handle": mint.handle,
        "credential_expire_time": moment(mint.credential_expire_time.as_ref()),
        "ending": ending_json(mint.ending.as_ref()),
    })
}

fn used_json(used: &pb::UsedConnection) -> serde_json::Value {
    let login = used
        .ssh_login
        .as_ref()
        .map(|login| json!({ "user": login.user, "key": login.key, "host_key": login.host_key }));
    json!({
        "resource": used.name,
        "target": if used.target.is_empty() { &used.name } else { &used.target },
        "version": used.version,
        "first_time": moment(used.first_time.as_ref()),
        "last_time": moment(used.last_time.as_ref()),
        "times": used.times,
        "ssh_login": login,
        "http_request": used.http_request.as_ref().map(|request| json!({
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "last_status": request.last_status,
            "last_fault": request.last_fault,
            "sent_bytes": request.sent_bytes,
            "received_bytes": request.received_bytes,
        })),
    })
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
            "mints": one.mints.iter().map(mint_json).collect::<Vec<_>>(),
            "state": one.state().as_str_name().trim_start_matches("LEASE_STATE_").to_lowercase(),
        })
    });
    let used = step.used.iter().map(used_json);
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
        "closed_by": step.closed_by,
        "received": received.collect::<Vec<_>>(),
        "used": used.collect::<Vec<_>>(),
    })
}
