//! `keyhatch step`: what an executor does.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use clap::Subcommand;
use rustix::process::Pid;
use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::child;
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::get::parse_duration;
use super::output::{moment, print, properties, say, table};
use super::pages;
use super::placeholder::{MOUNT_PATH, filled_in, is_for_a_container};
use super::signals::Signals;
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;

/// `keyhatch step …`
#[derive(Subcommand)]
pub enum Step {
    /// Open a step: make the directory to mount into it
    Open(Open),
    /// Close a step: end its connections, revoke its leases, remove its directory
    Close(Selected),
    /// Say that a step that was opened with --heartbeat still runs
    Renew(Selected),
    /// List open steps
    List(List),
    /// Open a step, run a command as it, close it whatever happens
    Run(Run),
}

/// Which step.
#[derive(clap::Args)]
pub struct Names {
    /// The workflow.
    #[arg(long, value_name = "NAME")]
    workflow: String,
    /// The run of the workflow.
    #[arg(long, value_name = "NAME")]
    run: String,
    /// The step of the run.
    #[arg(long, value_name = "NAME")]
    step: String,
}

/// How to open it.
#[derive(clap::Args)]
pub struct How {
    /// Which try at the step; one more than the last if not given.
    #[arg(long, value_name = "N")]
    attempt: Option<i32>,
    /// On whose behalf it runs, such as user:alice or team:ops; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    run_as: Vec<String>,
    /// The Unix user that the step's processes run as, which this does not switch to; the daemon's own if not
    /// given. "any" lets whoever has the directory mounted be the step.
    #[arg(long, value_name = "UID", value_parser = parse_uid)]
    uid: Option<StepUid>,
    /// A Unix group whose members may use the directory, where no --uid is given.
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// What the step may ask for at most: aws/prod, 'aws/*', group:NAME, secret:NAME, default:slack; may be
    /// given more than once.
    #[arg(long, value_name = "REF")]
    allow: Vec<String>,
    /// The longest the step may live, such as 30m.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepUid {
    Any,
    Only(u32),
}

fn parse_uid(text: &str) -> Result<StepUid, String> {
    match text {
        "any" => Ok(StepUid::Any),
        number => {
            number.parse().map(StepUid::Only).map_err(|_| "a uid is a number, or any".to_owned())
        }
    }
}

/// Arguments of `step open`.
#[derive(clap::Args)]
pub struct Open {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    how: How,
    /// How often `step renew` will be called, such as 60s; after three that are missed the step is closed.
    #[arg(long, value_parser = parse_duration)]
    heartbeat: Option<Duration>,
    /// What this request is called: the same step asked for again under the same id is the same opening.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Where the directory will be mounted in the step, or "host" if the step reads it where it is.
    #[arg(long, value_name = "PATH", default_value = "/run/keyhatch")]
    mount_path: String,
}

/// Which open step.
#[derive(clap::Args)]
pub struct Selected {
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

impl Selected {
    /// The opening's name, or empty; workflow, run and step, or empty.
    fn names(self) -> Result<(String, [String; 3]), Failure> {
        if self.opening.is_none() && self.workflow.is_none() {
            return Err(Failure::usage("name the opening, or say --workflow, --run and --step"));
        }
        // Without its collection it is as well known.
        let opening = self.opening.map(|name| match name.contains('/') {
            true => name,
            false => format!("openings/{name}"),
        });
        let names = [self.workflow, self.run, self.step].map(Option::unwrap_or_default);
        Ok((opening.unwrap_or_default(), names))
    }
}

/// Arguments of `step list`.
#[derive(clap::Args)]
pub struct List {
    /// Only this workflow's steps.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

/// Arguments of `step run`.
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    how: How,
    /// The command. {mount} in it becomes DIRECTORY:/run/keyhatch:ro, for `docker run -v {mount}`, and
    /// {env-file} the file with the step's variables, for `docker run --env-file {env-file}`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How often `step run` says that its step still runs.
const HEARTBEAT: Duration = Duration::from_secs(60);

impl Step {
    pub(super) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let connected = connect(Caller::Executor, common.state.as_deref());
        match self {
            Self::Open(open) => open.run(common, connected.await?).await.map(|()| 0),
            Self::Close(step) => close_selected(common, step, connected).await.map(|()| 0),
            Self::Renew(step) => renew_selected(common, step, connected).await.map(|()| 0),
            Self::List(list) => list.run(common, connected.await?).await.map(|()| 0),
            Self::Run(run) => match connected.await {
                Ok(channel) => run.run(channel).await,
                Err(failure) => Err(failure.with_exit_code(exit::BEFORE_COMMAND)),
            },
        }
    }
}

impl Open {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let (heartbeat, request_id) = (self.heartbeat, self.request_id.unwrap_or_default());
        let request = pb::OpenStepRequest {
            heartbeat: heartbeat.map(to_message),
            request_id,
            ..request(self.names, &self.how, self.mount_path)
        };
        let opened = open(channel, request).await?;
        let expire_time = moment(opened.expire_time.as_ref());
        let answer = json!({
            "directory": opened.directory,
            "spiffe_id": opened.spiffe_id,
            "env": opened.env,
            "expire_time": expire_time,
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
                ("until", expire_time.clone()),
            ];
            rows.extend(opened.env.iter().map(|(name, value)| ("env", format!("{name}={value}"))));
            properties(&rows)
        };
        print(common.output, &answer, table, || opened.name.clone())
    }
}

async fn renew_selected(
    common: &Common,
    step: Selected,
    connected: impl Future<Output = Result<Channel, Failure>>,
) -> Result<(), Failure> {
    let (name, [workflow, run, step]) = step.names()?;
    let request = pb::RenewStepRequest { name, workflow, run, step };
    let mut client = ExecutorServiceClient::new(connected.await?);
    let renewed = client.renew_step(request.clone()).await?.into_inner();
    let until = moment(renewed.expire_time.as_ref());
    let answer = json!({ "opening": request.name, "expire_time": until });
    print(common.output, &answer, || format!("open until {until}"), || request.name.clone())
}

async fn close_selected(
    common: &Common,
    step: Selected,
    connected: impl Future<Output = Result<Channel, Failure>>,
) -> Result<(), Failure> {
    let (name, [workflow, run, step]) = step.names()?;
    let request = pb::CloseStepRequest { name, workflow, run, step };
    let closed = close(connected.await?, request).await?;
    let answer = json!({ "closed": closed.closed, "revoked_leases": closed.revoked_leases });
    let text = if closed.closed {
        format!("closed; {} lease(s) revoked", closed.revoked_leases)
    } else {
        "nothing to close: no such step is open".to_owned()
    };
    print(common.output, &answer, || text.clone(), || text.clone())
}

impl List {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let client = ExecutorServiceClient::new(channel);
        let workflow = self.workflow.unwrap_or_default();
        let steps = pages::all(|page_token| {
            let workflow = workflow.clone();
            let request = pb::ListStepsRequest { page_size: 1000, page_token, workflow };
            let mut client = client.clone();
            async move {
                let page = client.list_steps(request).await?.into_inner();
                Ok((page.steps, page.next_page_token))
            }
        });
        let mut steps = steps.await?;
        let by_name =
            |step: &pb::Step| (step.workflow.clone(), step.run.clone(), step.step.clone());
        steps.sort_by_cached_key(by_name);
        let answer: Vec<_> = steps.iter().map(to_json).collect();
        let rows = || {
            let rows = steps.iter().map(|step| {
                vec![
                    step.workflow.clone(),
                    step.run.clone(),
                    step.step.clone(),
                    step.attempt.to_string(),
                    step.live_leases.to_string(),
                    moment(step.expire_time.as_ref()),
                    step.name.clone(),
                ]
            });
            let header = ["workflow", "run", "step", "attempt", "leases", "until", "opening"];
            if steps.is_empty() {
                "no open steps".to_owned()
            } else {
                table(&header, rows.collect())
            }
        };
        let names = || steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>().join("\n");
        print(common.output, &answer, rows, names)
    }
}

impl Run {
    async fn run(self, channel: Channel) -> Result<u8, Failure> {
        let mount_path = if is_for_a_container(&self.command) { MOUNT_PATH } else { "host" };
        let request = pb::OpenStepRequest {
            heartbeat: Some(to_message(HEARTBEAT)),
            ..request(self.names, &self.how, mount_path.to_owned())
        };
        let opened = open(channel.clone(), request)
            .await
            .map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
        let ran = tokio::select! {
            ran = run_as(&opened, &self.command) => ran,
            never = beat(channel.clone(), opened.name.clone()) => match never {},
        };
        let request = pb::CloseStepRequest { name: opened.name.clone(), ..Default::default() };
        // The command's end is what matters; a step that cannot be closed ends by itself in time.
        match close(channel, request).await {
            Ok(closed) if closed.closed => {}
            Ok(_) => say(
                "warning: the step had ended before its command did: its ttl was over, or it was closed",
            ),
            Err(failure) => say(&format!(
                "warning: {} could not be closed, and stays open until {}: {}: {}",
                opened.name,
                moment(opened.expire_time.as_ref()),
                failure.reason,
                failure.message
            )),
        }
        ran
    }
}

/// Runs a command as an open step.
pub(super) async fn run_as(opened: &pb::OpenedStep, words: &[OsString]) -> Result<u8, Failure> {
    let words: Vec<_> = words.iter().map(|word| filled_in(word, &opened.directory)).collect();
    let directory = match opened.mount_path.as_str() {
        "host" => &opened.directory,
        mounted => mounted,
    };
    let set_up = |command: &mut Command| {
        child::become_step(command, directory, opened.env.iter());
        Ok(())
    };
    let mut signals = Signals::listen()?;
    let child = child::start(&words, set_up, Command::spawn)?;
    signals.pass_on(Pid::from_child(&child)).await
}

/// Says again and again that the step still runs. A daemon that is away is tried again: its downtime does
/// not count.
async fn beat(channel: Channel, opening: String) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let request = pb::RenewStepRequest { name: opening.clone(), ..Default::default() };
        let _ = ExecutorServiceClient::new(channel.clone()).renew_step(request).await;
    }
}

fn to_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(super) fn request(names: Names, how: &How, mount_path: String) -> pb::OpenStepRequest {
    pb::OpenStepRequest {
        workflow: names.workflow,
        run: names.run,
        step: names.step,
        attempt: how.attempt,
        run_as: how.run_as.clone(),
        uid: how.uid.and_then(|uid| match uid {
            StepUid::Any => None,
            StepUid::Only(uid) => Some(uid),
        }),
        any_uid: how.uid == Some(StepUid::Any),
        gid: how.gid,
        allowed_targets: how.allow.clone(),
        ttl: how.ttl.map(to_message),
        mount_path,
        ..Default::default()
    }
}

pub(super) async fn open(
    channel: Channel,
    request: pb::OpenStepRequest,
) -> Result<pb::OpenedStep, Failure> {
    Ok(ExecutorServiceClient::new(channel).open_step(request).await?.into_inner())
}

pub(super) async fn close(
    channel: Channel,
    request: pb::CloseStepRequest,
) -> Result<pb::CloseStepResponse, Failure> {
    Ok(ExecutorServiceClient::new(channel).close_step(request).await?.into_inner())
}

fn to_json(step: &pb::Step) -> serde_json::Value {
    json!({
        "opening": step.name,
        "spiffe_id": step.spiffe_id,
        "workflow": step.workflow,
        "run": step.run,
        "step": step.step,
        "attempt": step.attempt,
        "executor": step.executor,
        "directory": step.directory,
        "open_time": moment(step.open_time.as_ref()),
        "expire_time": moment(step.expire_time.as_ref()),
        "live_leases": step.live_leases,
        "run_as": step.run_as,
    })
}

impl Names {
    pub(super) fn new(workflow: &str, run: &str, step: &str) -> Self {
        Self { workflow: workflow.to_owned(), run: run.to_owned(), step: step.to_owned() }
    }
}

impl How {
    pub(super) const fn default_for_dev() -> Self {
        Self {
            attempt: None,
            run_as: Vec::new(),
            uid: None,
            gid: None,
            allow: Vec::new(),
            ttl: None,
        }
    }
}
