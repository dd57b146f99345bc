//! The edge: the only room that knows tonic, protobuf and status codes.
//!
//! Two doors, each with services of its own. A request is parsed into the model here, handed to the
//! broker, and its outcome turned into a message or a status; nothing else happens in this room.

mod admin;
pub mod client;
mod convert;
pub mod edge;
pub mod request;
mod step;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use admin::apply::document_name;
pub use edge::count::metrics;
pub use edge::peer::{AdminConnection, StepConnection};

use crate::broker::{Broker, StepSession};
use crate::metrics::EndpointMetrics;
use crate::model::Limits;
use crate::model::limits::{MAX_ADMIN_REQUEST_BYTES, MAX_DOCUMENT_BYTES, MAX_STEP_REQUEST_BYTES};
use admin::call::AdminService;
use edge::admission::AdmissionLayer;
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

/// What a method of a service returns.
type Reply<T> = Result<tonic::Response<T>, tonic::Status>;

/// Requests and replies in flight on one connection, Watches among them. A client beyond it is told by
/// HTTP/2 itself to wait, before anything is made for its request.
const MAX_STREAMS: u32 = 32;
/// Header lists are names, a path and a few words of metadata. h2 decodes no more than it and ends a
/// connection that sends CONTINUATION without end.
const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// The largest frame, which is also the smallest that HTTP/2 lets a server ask for.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Streams that the client has reset before anybody looked at them ("rapid reset"); beyond it the connection
/// ends.
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that were reset for a fault of the client's, in the life of a connection; beyond it it ends. A
/// client that is in order makes none, but for data that crosses the answer to a request that was shed.
const MAX_FAULTS: usize = 1024;
/// What a step may have sent that was not read yet: on one stream a message and its head, on a connection
/// enough for several. Its other flow is bounded by h2: empty and tiny DATA frames by a budget, PING and
/// SETTINGS by one answer at a time, without which no more is read.
const STEP_WINDOW: u32 = 128 * 1024;
const STEP_CONNECTION_WINDOW: u32 = 256 * 1024;
/// The same for operators and executors. An Apply that waits for its turn is not read, and fills the window of its
/// stream: with as many as may wait there is room for others on its connection.
const ADMIN_WINDOW: u32 = 64 * 1024;
const ADMIN_CONNECTION_WINDOW: u32 = MAX_STREAMS * ADMIN_WINDOW;

/// The settings of HTTP/2 on both doors.
///
/// Connections have no greatest age: certificates and openings are looked at on every request, a Watch ends
/// with its certificate, and what is idle ends by itself. An age would only cut Watches.
pub fn server(limits: &Limits) -> Server {
    let keepalive = Duration::from_secs(limits.keepalive_seconds.into());
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_max_pending_accept_reset_streams(Some(MAX_UNSEEN_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_FAULTS))
        .http2_keepalive_interval(Some(keepalive))
        .http2_keepalive_timeout(Some(keepalive))
}

/// Serves the step door: every opening's connections come through here.
///
/// # Errors
/// If the server fails; a bad client is no such failure.
pub async fn serve_steps(
    broker: Arc<Broker>,
    connections: mpsc::Receiver<StepConnection>,
    metrics: Arc<EndpointMetrics>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let health = edge::health::of_steps(broker.readiness()).await;
    let limits = broker.limits().clone();
    let door =
        AdmissionLayer::<Arc<StepSession>>::new(&broker, limits.step_request_seconds, metrics);
    let steps = StepServiceServer::new(step::Steps::new(broker))
        .max_decoding_message_size(MAX_STEP_REQUEST_BYTES);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    server(&limits)
        .initial_stream_window_size(STEP_WINDOW)
        .initial_connection_window_size(STEP_CONNECTION_WINDOW)
        .layer(door)
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
    metrics: Arc<EndpointMetrics>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let health = edge::health::of_admin(broker.readiness()).await;
    let limits = broker.limits().clone();
    let entrance = AdmissionLayer::<()>::new(&broker, limits.admin_request_seconds, metrics);
    let door = AdminService::new(broker);
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    macro_rules! admin_service {
        ($server:ident) => {
            admin_service!($server, MAX_ADMIN_REQUEST_BYTES)
        };
        ($server:ident, $bytes:expr) => {
            $server::new(door.clone()).max_decoding_message_size($bytes)
        };
    }
    server(&limits)
        .initial_stream_window_size(ADMIN_WINDOW)
        .initial_connection_window_size(ADMIN_CONNECTION_WINDOW)
        .layer(entrance)
        .add_service(admin_service!(ApplyServiceServer, MAX_DOCUMENT_BYTES))
        .add_service(admin_service!(ConnectionServiceServer))
        .add_service(admin_service!(ExecutorRegistryServiceServer))
        .add_service(admin_service!(ExecutorServiceServer))
        .add_service(admin_service!(GroupServiceServer))
        .add_service(admin_service!(IntegrationServiceServer))
        .add_service(admin_service!(OperatorServiceServer))
        .add_service(admin_service!(SecretServiceServer))
        .add_service(admin_service!(SystemServiceServer))
        .add_service(health)
        .add_service(edge::reflection::v1())
        .add_service(edge::reflection::v1alpha())
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
