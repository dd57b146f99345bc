//! The daemon, as it answers.

use std::path::Path;

use tokio::net::UnixStream;

use super::Site;
use super::certificates::SET_CLOCK;
use super::diagnosis::{Diagnosis, Remedy};
use super::limits::{self, Granted};
use super::socket::admin_socket;
use crate::cli::daemon::healthcheck::{ANSWER_LIMIT, is_serving, silence};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

const DAEMON: &str = "daemon";
const VERSION: &str = "version";
const RECORDS: &str = "records";

/// What a daemon has said.
struct DaemonAnswer {
    is_serving: bool,
    /// Only operators are told.
    status: Option<pb::Status>,
}

/// What was heard of a daemon that has a socket.
pub(super) struct Heard {
    granted: Option<Granted>,
    answer: Result<DaemonAnswer, Diagnosis>,
}

impl Heard {
    /// What it tells of itself.
    pub(super) fn status(&self) -> Option<&pb::Status> {
        self.answer.as_ref().ok()?.status.as_ref()
    }
}

/// Asks the daemon; nothing where nobody listens.
pub(super) async fn hear(site: &Site) -> Option<Heard> {
    let socket = admin_socket(site);
    if !socket.exists() {
        return None;
    }
    let granted = tokio::time::timeout(ANSWER_LIMIT, granted_at(&socket)).await.ok().flatten();
    let answer = match tokio::time::timeout(ANSWER_LIMIT, ask(site)).await {
        Err(_) => Err(Diagnosis::fail(DAEMON, silence(), restart())),
        Ok(Err(failure)) => {
            let remedy = match failure.reason.as_str() {
                "CERTIFICATE_NOT_YET_VALID" => Remedy::Do(SET_CLOCK.to_owned()),
                _ if granted.is_some() => restart(),
                _ => Remedy::Run(site.keyhatch("serve")),
            };
            Err(Diagnosis::fail(DAEMON, failure.message, remedy))
        }
        Ok(Ok(answer)) => Ok(answer),
    };
    Some(Heard { granted, answer })
}

pub(super) fn look(site: &Site, heard: Option<Heard>) -> Vec<Diagnosis> {
    let Some(Heard { granted, answer }) = heard else {
        // That nobody listens has been said.
        return limits::look(site, Granted::here(), None);
    };
    let (first, status) = match answer {
        Ok(answer) => (state(&answer), answer.status),
        Err(finding) => (finding, None),
    };
    let mut findings = vec![first];
    findings.extend(status.as_ref().map(|status| version(&status.version)));
    findings.extend(status.as_ref().and_then(newer));
    let memory = status.as_ref().map(|status| status.key_memory.as_str());
    findings.extend(limits::look(site, granted.unwrap_or_else(Granted::here), memory));
    findings
}

fn restart() -> Remedy {
    Remedy::Do("restart the daemon".to_owned())
}

async fn ask(site: &Site) -> Result<DaemonAnswer, Failure> {
    let found = Endpoint::find_any(Some(&site.state));
    // A variable that names no identity has been told of.
    let endpoint = found.or_else(|_| Endpoint::of_host(&site.state))?;
    let channel = endpoint.reach().await?;
    let is_serving = is_serving(channel.clone()).await?;
    let status = SystemServiceClient::new(channel).get_status(pb::GetStatusRequest {}).await;
    Ok(DaemonAnswer { is_serving, status: status.ok().map(tonic::Response::into_inner) })
}

/// The limits of the process that listens here, if there is one and the system tells of it.
async fn granted_at(socket: &Path) -> Option<Granted> {
    let stream = UnixStream::connect(socket).await.ok()?;
    Granted::of_process(stream.peer_cred().ok()?.pid()?)
}

fn state(answer: &DaemonAnswer) -> Diagnosis {
    let state = answer.status.as_ref().map_or("serving", |status| status.state.as_str());
    match (state, answer.is_serving) {
        ("quarantined", _) => Diagnosis::fail(
            DAEMON,
            "was restored from a backup, and resolves nothing until that is confirmed",
            Remedy::Run("keyhatch restore --confirm".to_owned()),
        ),
        (_, true) => Diagnosis::ok(DAEMON, "answers, and serves"),
        (_, false) => Diagnosis::fail(
            DAEMON,
            format!("answers, and does not serve ({state}): journal or store cannot be written"),
            Remedy::Do(
                "see to the disk as above and in the daemon's log, then restart it".to_owned(),
            ),
        ),
    }
}

/// What the daemon's version uses nothing of, if there is anything.
fn newer(status: &pb::Status) -> Option<Diagnosis> {
    let names = status.newer.join(", ");
    (!names.is_empty()).then(|| {
        Diagnosis::warn(
            RECORDS,
            format!("a newer keyhatch has written {names}: the daemon uses nothing of it"),
            Remedy::Do("run the newer keyhatch".to_owned()),
        )
    })
}

fn version(theirs: &str) -> Diagnosis {
    let ours = env!("CARGO_PKG_VERSION");
    match theirs == ours {
        true => Diagnosis::ok(VERSION, format!("{ours}, the daemon's and this program's")),
        false => Diagnosis::warn(
            VERSION,
            format!("the daemon is {theirs}, this program {ours}"),
            Remedy::Do("restart the daemon with this program, or use the daemon's".to_owned()),
        ),
    }
}
