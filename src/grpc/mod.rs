//! The edge: the only room that knows tonic, protobuf and status codes.
//!
//! Two doors, each with services of its own. A request is parsed into the model here, handed to the
//! broker, and its outcome turned into a message or a status; nothing else happens in this room.

mod apply;
mod call;
pub mod client;
mod connection;
mod convert;
mod executor;
mod group;
mod integration;
mod padding;
mod peer;
mod registry;
#[doc(hidden)]
pub mod requests;
mod secret;
mod status;
mod step;
mod system;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use peer::{AdminConnection, StepConnection};

use crate::broker::Broker;
use crate::model::limits::{MAX_ADMIN_REQUEST_BYTES, MAX_STEP_REQUEST_BYTES};
use call::AdminDoor;
use pb::apply_service_server::ApplyServiceServer;
use pb::connection_service_server::ConnectionServiceServer;
use pb::executor_registry_service_server::ExecutorRegistryServiceServer;
use pb::executor_service_server::ExecutorServiceServer;
use pb::group_service_server::GroupServiceServer;
use pb::integration_service_server::IntegrationServiceServer;
use pb::operator_service_server::OperatorServiceServer;
use pb::secret_service_server::SecretServiceServer;
use pb::step_service_server::StepServiceServer;
use pb::system_service_server::SystemServiceServer;

/// The messages and services of `proto/keyhatch/v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::too_many_lines,
    reason = "generated from the protos, which hold the documentation"
)]
pub mod pb {
    tonic::include_proto!("keyhatch.v1");

    /// The protos as descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// Requests and replies in flight on one connection. A client that reads nothing holds that many replies.
const MAX_STREAMS: u32 = 32;
/// The longest that one request may take; only an Apply of very many documents needs more than a moment.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// Header lists are names, a path and a few words of metadata.
const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// A connection that answers no ping for this long is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The settings of both doors.
pub fn server() -> Server {
    Server::builder()
        .timeout(REQUEST_DEADLINE)
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// Serves the step door: every opening's connections come through here.
///
/// # Errors
/// If the server fails; a bad client is no such failure.
pub async fn serve_steps(
    broker: Arc<Broker>,
    connections: mpsc::Receiver<StepConnection>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<StepServiceServer<step::Steps>>().await;
    let steps = StepServiceServer::new(step::Steps::new(broker))
        .max_decoding_message_size(MAX_STEP_REQUEST_BYTES);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    server()
        .add_service(steps)
        .add_service(health)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// Serves the admin door: operators and executors.
///
/// # Errors
/// If the server fails; a bad client is no such failure.
pub async fn serve_admin(
    broker: Arc<Broker>,
    connections: mpsc::Receiver<AdminConnection>,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<SystemServiceServer<AdminDoor>>().await;
    let door = AdminDoor::new(broker);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    macro_rules! admin_service {
        ($server:ident) => {
            $server::new(door.clone()).max_decoding_message_size(MAX_ADMIN_REQUEST_BYTES)
        };
    }
    server()
        .add_service(admin_service!(ApplyServiceServer))
        .add_service(admin_service!(ConnectionServiceServer))
        .add_service(admin_service!(ExecutorRegistryServiceServer))
        .add_service(admin_service!(ExecutorServiceServer))
        .add_service(admin_service!(GroupServiceServer))
        .add_service(admin_service!(IntegrationServiceServer))
        .add_service(admin_service!(OperatorServiceServer))
        .add_service(admin_service!(SecretServiceServer))
        .add_service(admin_service!(SystemServiceServer))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
