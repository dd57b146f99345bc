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

pub(super) async fn look(directory: &Path, now: Timestamp) -> Vec<Diagnosis> {
    let again = Remedy::Do("have the executor open the step again".to_owned());
    let certificate = Certificate {
        what: "step's certificate",
        path: &directory.join("tls.crt"),
        role: CertificateRole::Client,
        replace: &again,
        renew: &Remedy::Do("the broker renews it; if it does not, see to its log".to_owned()),
    };
    vec![
        owner(directory),
        socket(&directory.join("keyhatch.sock"), &again),
        certificate.look(&directory.join("ca.crt"), now),
        broker(directory).await,
    ]
}

fn owner(directory: &Path) -> Diagnosis {
    let us = rustix::process::geteuid().as_raw();
    let Ok(metadata) = std::fs::metadata(directory.join("tls.key")) else {
        let advice = "mount the whole directory that the executor was given";
        let text = format!("{} has no tls.key", directory.display());
        return Diagnosis::fail(DIRECTORY, text, Remedy::Do(advice.to_owned()));
    };
    let text = format!("{} is uid {}'s, and this is uid {us}", directory.display(), metadata.uid());
    match access(directory.join("tls.key"), Access::READ_OK) {
        Ok(()) => Diagnosis::ok(DIRECTORY, text),
        Err(_) => {
            let advice =
                format!("have the executor open the step with: keyhatch step open --uid {us} …");
            Diagnosis::fail(
                DIRECTORY,
                format!("{text}: its key cannot be read"),
                Remedy::Do(advice),
            )
        }
    }
}

fn socket(path: &Path, again: &Remedy) -> Diagnosis {
    let length = path.as_os_str().len();
    let text = format!("{} has a path of {length} bytes", path.display());
    if length > MAX_SOCKET_PATH_BYTES {
        let advice = "mount the step's directory at a shorter path, such as /run/keyhatch";
        let text = format!("{text}, and Unix allows {MAX_SOCKET_PATH_BYTES}");
        return Diagnosis::fail(SOCKET, text, Remedy::Do(advice.to_owned()));
    }
    match std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        true => Diagnosis::ok(SOCKET, text),
        false => Diagnosis::fail(SOCKET, format!("{} is no socket", path.display()), again.clone()),
    }
}

async fn broker(directory: &Path) -> Diagnosis {
    let executor = || Remedy::Do("see to the daemon on its host with: keyhatch doctor".to_owned());
    match tokio::time::timeout(ANSWER_LIMIT, ask(directory)).await {
        Err(_) => Diagnosis::fail(BROKER, silence(), executor()),
        Ok(Err(failure)) => Diagnosis::fail(BROKER, failure.message, executor()),
        Ok(Ok((_, false))) => Diagnosis::fail(BROKER, "hands out nothing now", executor()),
        Ok(Ok((me, true))) => {
            let end = moment(me.step_expire_time.as_ref());
            Diagnosis::ok(BROKER, format!("answers {}, which is open until {end}", me.spiffe_id))
        }
    }
}

async fn ask(directory: &Path) -> Result<(pb::WhoAmIResponse, bool), Failure> {
    let channel = Endpoint::in_directory(directory)?.reach().await?;
    let is_serving = is_serving(channel.clone()).await?;
    let me = StepServiceClient::new(channel).who_am_i(pb::WhoAmIRequest {}).await?;
    Ok((me.into_inner(), is_serving))
}
