//! Opening and closing a step, for every command that does so.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use tonic::transport::Channel;

use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::cli::io::time::parse_duration;
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;

/// The step to open.
#[derive(clap::Args)]
pub struct NewStep {
    /// The workflow.
    #[arg(long, value_name = "NAME")]
    workflow: String,
    /// The run of the workflow.
    #[arg(long, value_name = "NAME")]
    run: String,
    /// The step of the run.
    #[arg(long, value_name = "NAME")]
    step: String,
    /// The number of this attempt at the step; by default one more than the last.
    #[arg(long, value_name = "N")]
    attempt: Option<i32>,
    /// On whose behalf the step runs, such as user:alice or team:ops; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    run_as: Vec<String>,
    /// The Unix user that the step's processes run as. By default the user of this command if the step reads the
    /// directory on this host, else the daemon's own. With "any" every user who can read the directory can be the step.
    #[arg(long, value_name = "UID", value_parser = parse_uid)]
    pub(super) uid: Option<StepUid>,
    /// A Unix group whose members may use the directory, if no --uid is given.
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// The most that the step may ask for: aws/prod, 'aws/*', group:NAME, secret:NAME, default:slack; may be
    /// given more than once.
    #[arg(long, value_name = "REF")]
    allow: Vec<String>,
    /// The longest that the step may live, such as 30m.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
}

/// The Unix users who may connect to the socket of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepUid {
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

impl NewStep {
    /// The request that opens this step by an endpoint. If the directory is used on this host and neither --uid nor
    /// --gid is given, the request names the user of this process. The daemon's own user is always admitted.
    pub(super) fn request(self, mount_path: String, endpoint: &Endpoint) -> pb::OpenStepRequest {
        let own = rustix::process::geteuid().as_raw();
        let is_for_us = mount_path == "host" && self.uid.is_none() && self.gid.is_none();
        let daemon = endpoint.socket().and_then(|socket| std::fs::metadata(socket).ok());
        let daemon = daemon.map(|socket| socket.uid());
        let uid = match is_for_us && daemon.is_none_or(|daemon| daemon != own) {
            true => Some(StepUid::Only(own)),
            false => self.uid,
        };
        pb::OpenStepRequest {
            workflow: self.workflow,
            run: self.run,
            step: self.step,
            attempt: self.attempt,
            run_as: self.run_as,
            uid: uid.and_then(|uid| match uid {
                StepUid::Any => None,
                StepUid::Only(uid) => Some(uid),
            }),
            any_uid: uid == Some(StepUid::Any),
            gid: self.gid,
            allowed_targets: self.allow,
            ttl: self.ttl.map(to_message),
            mount_path,
            ..Default::default()
        }
    }
}

/// A duration as the API has it.
pub(super) fn to_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
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
