//! `grpc.health.v1` on both doors: whether the broker can serve requests.
//!
//! The whole server (the service "") and StepService are SERVING while the broker is [ready](crate::broker::Broker::readiness).
//! SystemService is SERVING as long as it answers, because it reports what is wrong.

use tokio::sync::watch::Receiver;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::grpc::admin::call::AdminService;
use crate::grpc::pb::step_service_server::StepServiceServer;
use crate::grpc::pb::system_service_server::SystemServiceServer;
use crate::grpc::step::Steps;

const STEP_SERVICE: &str = StepServiceServer::<Steps>::NAME;

/// The health service of the step door. It must be called on the door's runtime.
pub(crate) async fn of_steps(readiness: Receiver<bool>) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    reporter.set_serving::<StepServiceServer<Steps>>().await;
    tokio::spawn(follow(readiness, reporter, &["", STEP_SERVICE]));
    service
}

/// The health service of the admin door. It must be called on the door's runtime.
pub(crate) async fn of_admin(readiness: Receiver<bool>) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    reporter.set_serving::<SystemServiceServer<AdminService>>().await;
    tokio::spawn(follow(readiness, reporter, &[""]));
    service
}

/// Reports readiness until the broker is gone.
async fn follow(mut readiness: Receiver<bool>, reporter: HealthReporter, names: &[&str]) {
    loop {
        let is_ready = *readiness.borrow_and_update();
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in names {
            reporter.set_service_status(name, status).await;
        }
        if readiness.changed().await.is_err() {
            return;
        }
    }
}
