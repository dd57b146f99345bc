//! The directory of an operator's or executor's identity, for its owner where the broker is another user's.

use std::path::Path;

use super::certificates::Certificate;
use super::diagnosis::{Diagnosis, Remedy, quoted};
use crate::cli::daemon::healthcheck::{ANSWER_LIMIT, is_serving, silence};
use crate::cli::identity::endpoint::Endpoint;
use crate::identity::CertificateRole;
use crate::model::{SpiffeId, Timestamp};

const BROKER: &str = "broker";

pub(super) async fn check(directory: &Path, now: Timestamp) -> Vec<Diagnosis> {
    let identity = Endpoint::in_directory(directory).and_then(|endpoint| endpoint.identity());
    let who = if matches!(identity, Ok(SpiffeId::Executor(_))) { "executor" } else { "operator" };
    let certificate = Certificate {
        what: "certificate",
        path: &directory.join("tls.crt"),
        role: CertificateRole::Client,
        replace: &Remedy::from(format!("ask an administrator for another: keyhatch {who} add")),
        renew: &Remedy::Run(format!("KEYHATCH_DIR={} keyhatch {who} renew", quoted(directory))),
    };
    vec![certificate.check(&directory.join("ca.crt"), now), broker(directory).await]
}

async fn broker(directory: &Path) -> Diagnosis {
    let asked = async { is_serving(Endpoint::in_directory(directory)?.reach().await?).await };
    let problem = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Err(_) => silence(),
        Ok(Err(failure)) => failure.message,
        Ok(Ok(false)) => "answers, and does not serve".to_owned(),
        Ok(Ok(true)) => return Diagnosis::ok(BROKER, "answers, and serves"),
    };
    Diagnosis::fail(BROKER, problem, "have its administrator run keyhatch doctor")
}
