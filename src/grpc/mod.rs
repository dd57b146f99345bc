//! The edge: the only room that uses tonic, protobuf and status codes.
//!
//! Each of the two doors has services of its own. A service parses a request into the model, passes it to the broker,
//! and turns the outcome into a message or a status. It does nothing else.

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
use pb::block_service_server::BlockServiceServer;
use pb::connection_service_server::ConnectionServiceServer;
use pb::executor_registry_service_server::ExecutorRegistryServiceServer;
use pb::executor_service_server::ExecutorServiceServer;
use pb::group_service_server::GroupServiceServer;
use pb::impact_service_server::ImpactServiceServer;
use pb::integration_service_server::IntegrationServiceServer;
use pb::lease_service_server::LeaseServiceServer;
use pb::operator_service_server::OperatorServiceServer;
use pb::run_service_server::RunServiceServer;
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

    /// The descriptors of the protos, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// The result of a method of a service.
type Reply<T> = Result<tonic::Response<T>, tonic::Status>;

/// Requests and replies in flight on one connection, Watches included. HTTP/2 makes a client wait before it opens more
/// streams.
const MAX_STREAMS: u32 = 32;
/// The largest header list. gRPC sends names, a path and a few words of metadata. h2 decodes no more and ends
/// connections that send CONTINUATION frames without end.
const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// The largest frame: the smallest that HTTP/2 lets a server require.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Streams that a client has reset before they were read ("rapid reset"). The connection ends beyond this number.
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that the server has reset for a fault of the client, over the life of a connection. The connection ends
/// beyond this number. A correct client causes none, except by data that crosses the refusal of its request.
const MAX_FAULTS: usize = 1024;
/// Unread bytes of a step: a message and its head on one stream, and several messages on a connection. h2 bounds other
/// frames: empty and tiny DATA frames by a budget, PING and SETTINGS by one answer at a time.
const STEP_WINDOW: u32 = 128 * 1024;
const STEP_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Unread bytes of an operator or executor. An Apply that waits for its turn fills the window of its stream. As many as
/// may wait leave room for other requests on the connection.
const ADMIN_WINDOW: u32 = 64 * 1024;
const ADMIN_CONNECTION_WINDOW: u32 = MAX_STREAMS * ADMIN_WINDOW;

/// The HTTP/2 settings of both doors.
///
/// Connections have no maximum age. Certificates and openings are checked on every request, a Watch ends with its
/// certificate, and idle connections end. A maximum age would only interrupt Watches.
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

/// Serves the step door: the connections of every opening.
///
/// # Errors
/// If the server fails. A bad client is no failure.
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
/// If the server fails. A bad client is no failure.
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
        .add_service(admin_service!(BlockServiceServer))
        .add_service(admin_service!(ConnectionServiceServer))
        .add_service(admin_service!(ExecutorRegistryServiceServer))
        .add_service(admin_service!(ExecutorServiceServer))
        .add_service(admin_service!(GroupServiceServer))
        .add_service(admin_service!(ImpactServiceServer))
        .add_service(admin_service!(IntegrationServiceServer))
        .add_service(admin_service!(LeaseServiceServer))
        .add_service(admin_service!(OperatorServiceServer))
        .add_service(admin_service!(RunServiceServer))
        .add_service(admin_service!(SecretServiceServer))
        .add_service(admin_service!(SystemServiceServer))
        .add_service(health)
        .add_service(edge::reflection::v1())
        .add_service(edge::reflection::v1alpha())
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
