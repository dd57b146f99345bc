//! The directory of an operator's or executor's identity, as its owner sees it where the broker is another user's.

use std::path::Path;

use super::certificates::Certificate;
use super::diagnosis::{Diagnosis, Remedy, quoted};
use crate::cli::daemon::healthcheck::{ANSWER_LIMIT, is_serving, silence};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::identity::CertificateRole;
use crate::model::{SpiffeId, Timestamp};

const BROKER: &str = "broker";

pub(super) async fn look(directory: &Path, now: Timestamp) -> Vec<Diagnosis> {
    let identity = Endpoint::in_directory(directory).and_then(|endpoint| endpoint.identity());
    let who = if matches!(identity, Ok(SpiffeId::Executor(_))) { "executor" } else { "operator" };
    let certificate = Certificate {
        what: "certificate",
        path: &directory.join("tls.crt"),
        role: CertificateRole::Client,
        replace: &Remedy::Do(format!("ask an administrator for another: keyhatch {who} add")),
        renew: &Remedy::Run(format!("KEYHATCH_DIR={} keyhatch {who} renew", quoted(directory))),
    };
    vec![certificate.look(&directory.join("ca.crt"), now), broker(directory).await]
}

async fn broker(directory: &Path) -> Diagnosis {
    let host = || Remedy::Do("have its administrator run keyhatch doctor".to_owned());
    match tokio::time::timeout(ANSWER_LIMIT, ask(directory)).await {
        Err(_) => Diagnosis::fail(BROKER, silence(), host()),
        Ok(Err(failure)) => Diagnosis::fail(BROKER, failure.message, host()),
        Ok(Ok(false)) => Diagnosis::fail(BROKER, "answers, and does not serve", host()),
        Ok(Ok(true)) => Diagnosis::ok(BROKER, "answers, and serves"),
    }
}

async fn ask(directory: &Path) -> Result<bool, Failure> {
    is_serving(Endpoint::in_directory(directory)?.reach().await?).await
}
