//! The request to open a step, and the checks of its fields.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::broker::error::Error;
use crate::broker::registry::operators::Executor;
use crate::model::limits::{MAX_HEARTBEAT, MAX_PATH_BYTES, MIN_TTL};
use crate::model::{
    AllowedTarget, NamedRequest, RunAs, RunName, StepKey, StepName, StepOwner, WorkflowName,
};

/// Where steps find their directory by default.
const DEFAULT_MOUNT_PATH: &str = "/run/keyhatch";
/// The mount path of a step that uses the directory where it is.
pub(super) const HOST_MOUNT: &str = "host";

/// A request of an executor to open a step.
#[derive(Clone, Debug)]
pub struct StepRequest {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The run.
    pub run: RunName,
    /// The step.
    pub step: StepName,
    /// The number of the attempt; one more than the last if unset.
    pub attempt: Option<i32>,
    /// The principals on whose behalf the step runs.
    pub run_as: BTreeSet<RunAs>,
    /// The step's Unix user; the daemon's own if unset.
    pub uid: Option<u32>,
    /// A Unix group that may use the step's directory, too.
    pub gid: Option<u32>,
    /// Whether all users may use the step's directory.
    pub any_uid: bool,
    /// The longest that the step may live; the default if unset.
    pub ttl: Option<Duration>,
    /// How often the executor sends heartbeats; never if unset.
    pub heartbeat: Option<Duration>,
    /// The targets that the step may ask for; everything if empty.
    pub allowed_targets: Vec<AllowedTarget>,
    /// The request's id and MAC, if its executor gave it an id.
    pub named: Option<NamedRequest>,
    /// An absolute path, `host`, or empty for the default.
    pub mount_path: String,
}

impl StepRequest {
    /// The key of the step.
    pub(super) fn key(&self, executor: &Executor) -> StepKey {
        StepKey {
            executor: executor.name.clone(),
            executor_uid: executor.uid,
            workflow: self.workflow.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
        }
    }

    /// The owner of the step's directory, which is mounted at `mount_path`: the given user, or else the daemon's. With only
    /// a group, the peer's uid is not checked.
    ///
    /// # Errors
    /// If `any_uid` is given together with a user or group, or for a directory that is not mounted.
    pub(super) fn owner(&self, mount_path: &str) -> Result<StepOwner, Error> {
        let Self { uid, gid, any_uid, .. } = *self;
        if any_uid && (uid.is_some() || gid.is_some()) {
            let text = "any_uid goes with neither a uid nor a gid";
            return Err(Error::TargetInvalid(text.to_owned()));
        }
        if any_uid && mount_path == HOST_MOUNT {
            let text = "any_uid is for a directory that is mounted, and mount_path is \"host\"; name the step's uid";
            return Err(Error::TargetInvalid(text.to_owned()));
        }
        // To the kernel, -1 is not an id.
        if [uid, gid].contains(&Some(u32::MAX)) {
            return Err(Error::UidNotPermitted("uid or gid -1 is not an id".to_owned()));
        }
        Ok(StepOwner {
            uid: uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
            gid,
            // If only a group is given, the kernel decides by the group's bits who connects.
            is_uid_checked: !any_uid && (uid.is_some() || gid.is_none()),
            is_for_anybody: any_uid,
        })
    }
}

/// A heartbeat in whole seconds.
pub(super) fn heartbeat_seconds(asked: Option<Duration>) -> Result<Option<u32>, Error> {
    let Some(asked) = asked else { return Ok(None) };
    if !(MIN_TTL..=MAX_HEARTBEAT).contains(&asked) {
        return Err(Error::TtlOutOfRange {
            what: "heartbeat",
            least: MIN_TTL,
            most: MAX_HEARTBEAT,
        });
    }
    Ok(u32::try_from(asked.as_secs()).ok())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The path where the step finds its directory.
pub(super) fn mount_path(asked: &str) -> Result<String, Error> {
    match asked {
        "" => Ok(DEFAULT_MOUNT_PATH.to_owned()),
        HOST_MOUNT => Ok(HOST_MOUNT.to_owned()),
        path if path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !has_control(path) => {
            Ok(path.trim_end_matches('/').to_owned())
        }
        other => Err(Error::MountPathInvalid(other.chars().take(64).collect())),
    }
}
