//! `keyhatch healthcheck`: an exit code and one line without waiting, for probes of containers.

use std::time::Duration;

use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cli::Common;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::identity::retry::RetryDeadline;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::line;

/// The time limit for the answer of a daemon.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(2);

pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    let asked = async {
        // Connects with renewal: if only probes use the identity, they must renew its certificate.
        let endpoint = Endpoint::find_any(common.place())?;
        let channel = endpoint.connect_within(&mut RetryDeadline::after(Duration::ZERO)).await?;
        is_serving(channel).await
    };
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(true)) => line("serving"),
        Ok(Ok(false)) => Err(unhealthy(
            "the broker does not do all of its work now; keyhatch status shows its state",
        )),
        Ok(Err(failure)) => Err(failure.with_exit_code(exit::FAILED)),
        Err(_) => Err(unhealthy(&format!("{}; restart it", silence()))),
    }
}

/// The text about a daemon that does not answer.
pub(crate) fn silence() -> String {
    format!("the broker does not answer within {} seconds", ANSWER_LIMIT.as_secs())
}

/// Whether the whole server reports that it serves.
pub(super) async fn is_serving(channel: Channel) -> Result<bool, Failure> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status() == ServingStatus::Serving)
}

fn unhealthy(message: &str) -> Failure {
    Failure::new("NOT_SERVING", message, exit::FAILED)
}
