//! Channels to a daemon, and the state that clients see through them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::secret_service_client::SecretServiceClient;
use keyhatch::identity::ClientIdentity;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::daemon::{DEADLINE, Serving};
use super::history::{Form, access, is_secret, reference, stamp};
use crate::harness::{Got, identity_in, open_request, request, resolve_on};

/// Channels to a daemon.
#[derive(Clone)]
pub struct Channels {
    pub operator: Channel,
    pub executor: Channel,
    /// The channel of a step that resolves values.
    pub look: Channel,
}

/// The connections and secrets of a broker, by name.
#[derive(Default)]
pub struct Seen {
    pub connections: BTreeMap<String, pb::Connection>,
    pub secrets: BTreeMap<String, pb::Secret>,
}

/// The message for a call without an answer in time.
pub const UNANSWERED: &str = "nobody answered in time";

/// Waits for a call, at most this long.
pub async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let answered = tokio::time::timeout(patience, call).await;
    answered.unwrap_or_else(|_| Err(Status::deadline_exceeded(UNANSWERED)))
}

/// Waits for a call, at most [`DEADLINE`].
pub async fn in_time<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    within(DEADLINE, call).await.map(tonic::Response::into_inner)
}

impl Seen {
    pub async fn look(operator: &Channel) -> Result<Self, Status> {
        let mut seen = Self::default();
        let mut connections = ConnectionServiceClient::new(operator.clone());
        let mut page_token = String::new();
        loop {
            let asked =
                pb::ListConnectionsRequest { page_size: 1000, page_token, ..Default::default() };
            let page = in_time(connections.list_connections(asked)).await?;
            seen.connections
                .extend(page.connections.into_iter().map(|one| (one.name.clone(), one)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut secrets = SecretServiceClient::new(operator.clone());
        let asked = pb::ListSecretsRequest {
            workflow: "w".to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let page = in_time(secrets.list_secrets(asked)).await?;
        assert_eq!(page.next_page_token, "");
        seen.secrets = page.secrets.into_iter().map(|one| (one.name.clone(), one)).collect();
        Ok(seen)
    }

    pub fn form(&self, name: &str) -> Option<Form> {
        if is_secret(name) {
            let secret = self.secrets.get(name)?;
            let stamp = Some((String::new(), secret.version, String::new()));
            return Some(Form { value: 0, is_allowed: true, stamp });
        }
        let connection = self.connections.get(name)?;
        // The creator is also an editor.
        let resolvers: Vec<_> = connection
            .access
            .iter()
            .filter(|binding| binding.relation() == pb::Relation::Resolver)
            .cloned()
            .collect();
        let is_allowed = resolvers == access(true);
        assert!(is_allowed || resolvers == access(false), "{name}: half an access");
        Some(Form { value: 0, is_allowed, stamp: stamp(connection) })
    }
}

impl Channels {
    /// Connects, and opens a step of workflow w that resolves values.
    pub async fn open(serving: &Serving) -> Result<Self, String> {
        Self::open_as(serving, serving.operator(), serving.executor()).await
    }

    /// Connects with these identities.
    pub async fn open_as(
        serving: &Serving,
        operator: ClientIdentity,
        executor: ClientIdentity,
    ) -> Result<Self, String> {
        let operator = serving.connect(operator).await?;
        let executor = serving.connect(executor).await?;
        let mut asked = open_request("w", "look");
        asked.run = "look".to_owned();
        let opened = in_time(ExecutorServiceClient::new(executor.clone()).open_step(asked)).await;
        let look = step_channel(&opened.map_err(|error| error.to_string())?).await?;
        Ok(Self { operator, executor, look })
    }

    /// Connects without opening a step.
    pub async fn of_admin(serving: &Serving) -> Result<Self, String> {
        let operator = serving.connect(serving.operator()).await?;
        let executor = serving.connect(serving.executor()).await?;
        Ok(Self { look: executor.clone(), operator, executor })
    }
}

pub async fn step_channel(opened: &pb::OpenedStep) -> Result<Channel, String> {
    let directory = Path::new(&opened.directory);
    // A daemon that was killed while it closed a step leaves no directory.
    if !directory.join("ca.crt").exists() {
        return Err("its directory is gone".to_owned());
    }
    let socket = directory.join("keyhatch.sock");
    channel(&socket, identity_in(directory)).await.map_err(|error| error.to_string())
}

/// The answer to the step's request for this resource.
pub async fn ask(step: &Channel, name: &str) -> Result<Got, Status> {
    within(DEADLINE, resolve_on(step.clone(), request(&reference(name)))).await
}

/// The value that the step gets, or the reason of the refusal.
pub async fn resolved(step: &Channel, name: &str) -> Result<String, String> {
    match ask(step, name).await {
        Ok(got) => Ok(got.fields.into_values().collect()),
        Err(status) => Err(reason_of(&status).unwrap_or_else(|| status.to_string())),
    }
}

/// The reason of an answer. `None` if nobody answered.
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_error_details().error_info().map(|info| info.reason.clone())
}
