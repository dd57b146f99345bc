//! `keyhatch step`: what an executor does.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::step_run::Run;
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::patience::PATIENCE;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{moment, print, properties, table};
use crate::cli::io::pages;
use crate::cli::step::get::parse_duration;
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;

/// The column of executors in the list.
const EXECUTOR: usize = 3;

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
    #[command(alias = "ls")]
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
    /// The Unix user that the step's processes run as; if not given, the user of this command where the step reads the
    /// directory where it is, else the daemon's own. "any" lets whoever has the directory mounted be the step.
    #[arg(long, value_name = "UID", value_parser = parse_uid)]
    pub(crate) uid: Option<StepUid>,
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
pub(crate) enum StepUid {
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

impl Step {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let endpoint = Endpoint::find(Caller::Executor, common.state.as_deref());
        match self {
            Self::Open(open) => open.run(common, &endpoint?).await.map(|()| 0),
            Self::Close(step) => close_selected(common, step, endpoint).await.map(|()| 0),
            Self::Renew(step) => renew_selected(common, step, endpoint).await.map(|()| 0),
            Self::List(list) => list.run(common).await.map(|()| 0),
            Self::Run(run) => match endpoint {
                Ok(endpoint) => run.run(&endpoint).await,
                Err(failure) => Err(failure.with_exit_code(exit::BEFORE_COMMAND)),
            },
        }
    }
}

impl Open {
    async fn run(self, common: &Common, endpoint: &Endpoint) -> Result<(), Failure> {
        let (heartbeat, request_id) = (self.heartbeat, self.request_id.unwrap_or_default());
        let how = self.how.here(&self.mount_path, endpoint);
        let request = pb::OpenStepRequest {
            heartbeat: heartbeat.map(to_message),
            request_id,
            ..request(self.names, &how, self.mount_path)
        };
        let opened = open(endpoint.connect().await?, request).await?;
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
    endpoint: Result<Endpoint, Failure>,
) -> Result<(), Failure> {
    let (name, [workflow, run, step]) = step.names()?;
    let request = pb::RenewStepRequest { name, workflow, run, step };
    let renew = async |channel| {
        Ok(ExecutorServiceClient::new(channel).renew_step(request.clone()).await?.into_inner())
    };
    let renewed = endpoint?.insist(PATIENCE, renew).await?;
    let until = moment(renewed.expire_time.as_ref());
    let answer = json!({ "opening": request.name, "expire_time": until });
    print(common.output, &answer, || format!("open until {until}"), || request.name.clone())
}

async fn close_selected(
    common: &Common,
    step: Selected,
    endpoint: Result<Endpoint, Failure>,
) -> Result<(), Failure> {
    let (name, [workflow, run, step]) = step.names()?;
    let request = pb::CloseStepRequest { name, workflow, run, step };
    let close = async |channel| close(channel, request.clone()).await;
    let closed = endpoint?.insist(PATIENCE, close).await?;
    let answer = json!({ "closed": closed.closed, "revoked_leases": closed.revoked_leases });
    let text = if closed.closed {
        format!("closed; {} lease(s) revoked", closed.revoked_leases)
    } else {
        "nothing to close: no such step is open".to_owned()
    };
    print(common.output, &answer, || text.clone(), || text.clone())
}

impl List {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        // Operators see every executor's.
        let endpoint = Endpoint::find_any(common.state.as_deref())?;
        let mut steps = pages::steps(&endpoint.connect().await?, self.workflow.as_deref()).await?;
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
                    step.executor.clone(),
                    step.attempt.to_string(),
                    step.live_leases.to_string(),
                    moment(step.expire_time.as_ref()),
                    step.name.clone(),
                ]
            });
            let mut header = vec![
                "workflow", "run", "step", "executor", "attempt", "leases", "until", "opening",
            ];
            let mut rows: Vec<Vec<String>> = rows.collect();
            match (steps.is_empty(), endpoint.executor()) {
                (true, Some(executor)) => format!("no open steps of {executor}"),
                (true, None) => "no open steps".to_owned(),
                (false, None) => table(&header, rows),
                (false, Some(_)) => {
                    // All are its own.
                    header.remove(EXECUTOR);
                    rows.iter_mut().for_each(|row| drop(row.remove(EXECUTOR)));
                    table(&header, rows)
                }
            }
        };
        let names = || steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>().join("\n");
        print(common.output, &answer, rows, names)
    }
}

pub(crate) fn to_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(crate) fn request(names: Names, how: &How, mount_path: String) -> pb::OpenStepRequest {
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

pub(crate) async fn open(
    channel: Channel,
    request: pb::OpenStepRequest,
) -> Result<pb::OpenedStep, Failure> {
    Ok(ExecutorServiceClient::new(channel).open_step(request).await?.into_inner())
}

pub(crate) async fn close(
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
    pub(crate) fn new(workflow: &str, run: &str, step: &str) -> Self {
        Self { workflow: workflow.to_owned(), run: run.to_owned(), step: step.to_owned() }
    }
}

impl How {
    /// The same for who opens a step by this endpoint: where the directory is used where it is, and nobody is named, the
    /// user of this process is let in, who is about to use it. The daemon's own user is in anyway.
    pub(crate) fn here(self, mount_path: &str, endpoint: &Endpoint) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let is_for_us = mount_path == "host" && self.uid.is_none() && self.gid.is_none();
        let daemon = std::fs::metadata(endpoint.socket()).map(|socket| socket.uid());
        match is_for_us && !daemon.is_ok_and(|daemon| daemon == own) {
            true => Self { uid: Some(StepUid::Only(own)), ..self },
            false => self,
        }
    }

    pub(crate) const fn default_for_dev() -> Self {
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
