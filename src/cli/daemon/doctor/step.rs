//! The directory of a step, as the step sees it.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Access, access};

use super::certificates::Certificate;
use super::diagnosis::{Diagnosis, Remedy};
use crate::cli::daemon::healthcheck::{ANSWER_LIMIT, is_serving, silence};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::identity::CertificateRole;
use crate::model::Timestamp;
use crate::model::limits::MAX_SOCKET_PATH_BYTES;

const DIRECTORY: &str = "step's directory";
const SOCKET: &str = "step's socket";
const BROKER: &str = "broker";
const REOPEN: &str = "have the executor open the step again";

pub(super) async fn check(directory: &Path, now: Timestamp) -> Vec<Diagnosis> {
    let certificate = Certificate {
        what: "step's certificate",
        path: &directory.join("tls.crt"),
        role: CertificateRole::Client,
        replace: &Remedy::from(REOPEN),
        renew: &Remedy::from("the broker renews it; if it does not, see to its log"),
    };
    vec![
        owner(directory),
        socket(&directory.join("keyhatch.sock")),
        certificate.check(&directory.join("ca.crt"), now),
        broker(directory).await,
    ]
}

fn owner(directory: &Path) -> Diagnosis {
    let us = rustix::process::geteuid().as_raw();
    let Ok(metadata) = std::fs::metadata(directory.join("tls.key")) else {
        let text = format!("{} has no tls.key", directory.display());
        return Diagnosis::fail(
            DIRECTORY,
            text,
            "mount the whole directory that the executor was given",
        );
    };
    let text = format!("{} is uid {}'s, and this is uid {us}", directory.display(), metadata.uid());
    match access(directory.join("tls.key"), Access::READ_OK) {
        Ok(()) => Diagnosis::ok(DIRECTORY, text),
        Err(_) => Diagnosis::fail(
            DIRECTORY,
            format!("{text}: its key cannot be read"),
            format!("have the executor open the step with: keyhatch step open --uid {us} …"),
        ),
    }
}

fn socket(path: &Path) -> Diagnosis {
    let length = path.as_os_str().len();
    let text = format!("{} has a path of {length} bytes", path.display());
    if length > MAX_SOCKET_PATH_BYTES {
        let text = format!("{text}, and Unix allows {MAX_SOCKET_PATH_BYTES}");
        let advice = "mount the step's directory at a shorter path, such as /run/keyhatch";
        return Diagnosis::fail(SOCKET, text, advice);
    }
    match std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        true => Diagnosis::ok(SOCKET, text),
        false => Diagnosis::fail(SOCKET, format!("{} is no socket", path.display()), REOPEN),
    }
}

async fn broker(directory: &Path) -> Diagnosis {
    let problem = match tokio::time::timeout(ANSWER_LIMIT, ask(directory)).await {
        Err(_) => silence(),
        Ok(Err(failure)) => failure.message,
        Ok(Ok((_, false))) => "hands out nothing now".to_owned(),
        Ok(Ok((me, true))) => {
            let end = moment(me.step_expire_time.as_ref());
            let text = format!("answers {}, which is open until {end}", me.spiffe_id);
            return Diagnosis::ok(BROKER, text);
        }
    };
    Diagnosis::fail(BROKER, problem, "see to the daemon on its host with: keyhatch doctor")
}

async fn ask(directory: &Path) -> Result<(pb::WhoAmIResponse, bool), Failure> {
    let channel = Endpoint::in_directory(directory)?.reach().await?;
    let is_serving = is_serving(channel.clone()).await?;
    let me = StepServiceClient::new(channel).who_am_i(pb::WhoAmIRequest {}).await?;
    Ok((me.into_inner(), is_serving))
}
