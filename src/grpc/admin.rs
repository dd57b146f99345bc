//! The operators' services.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::pb::apply_service_server::ApplyService;
use super::pb::connection_service_server::ConnectionService;
use super::pb::integration_service_server::IntegrationService;
use super::pb::system_service_server::SystemService;
use super::{convert, pb, peer};
use crate::access::Principal;
use crate::broker::{Action, Applied, Broker, ConnectionDocument, Document, Error, SecretDocument};
use crate::integration;
use crate::model::limits::{MAX_APPLY_BYTES, MAX_APPLY_DOCUMENTS};
use crate::model::{
    IntegrationName, Invalid, ResourceName, SecretName, SecretRef, Value, WorkflowName,
};

#[derive(Clone)]
pub(super) struct Admin {
    broker: Arc<Broker>,
}

impl Admin {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// An operator, for the methods that show nothing of any one resource.
    fn operator<T>(&self, request: &Request<T>, method: &str) -> Result<Principal, Status> {
        match peer::admin(&self.broker, request)? {
            operator @ Principal::Operator(..) => Ok(operator),
            other => {
                let error = Error::OperatorRequired;
                Err(peer::refuse(&self.broker, &other, method, "", &error))
            }
        }
    }
}

#[tonic::async_trait]
impl ConnectionService for Admin {
    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let connection = request.into_inner().connection.unwrap_or_default();
        let name = connection.name.clone();
        let refuse = |error| peer::refuse(&self.broker, &caller, "CreateConnection", &name, &error);
        let document = creation(connection).map_err(refuse)?;
        let created =
            self.broker.create_connection(caller.clone(), document).await.map_err(refuse)?;
        Ok(Response::new(convert::connection(&created, self.broker.groups_of(&created))))
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let name = request.into_inner().name;
        let found = convert::connection_name(&name)
            .and_then(|name| self.broker.connection(&caller, &name))
            .map_err(|error| peer::refuse(&self.broker, &caller, "GetConnection", &name, &error))?;
        Ok(Response::new(convert::connection(&found, self.broker.groups_of(&found))))
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse = |error| peer::refuse(&self.broker, &caller, "ListConnections", "", &error);
        let after = convert::from_page_token(&request.page_token).map_err(refuse)?;
        let integration = Some(request.integration.as_str()).filter(|name| !name.is_empty());
        let size = convert::page_size(request.page_size);
        let listed =
            self.broker.connections(&caller, integration, after.as_ref(), size).map_err(refuse)?;
        Ok(Response::new(convert::connection_page(&listed, |one| self.broker.groups_of(one))))
    }

    async fn delete_connection(
        &self,
        request: Request<pb::DeleteConnectionRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse =
            |error| peer::refuse(&self.broker, &caller, "DeleteConnection", &request.name, &error);
        let name = convert::connection_name(&request.name).map_err(refuse)?;
        let etag = Some(request.etag.clone()).filter(|etag| !etag.is_empty());
        self.broker
            .delete_connection(caller.clone(), name, etag, request.force)
            .await
            .map_err(refuse)?;
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl IntegrationService for Admin {
    async fn get_integration(
        &self,
        request: Request<pb::GetIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let caller = self.operator(&request, "GetIntegration")?;
        let name = request.into_inner().name;
        let refuse = |error| peer::refuse(&self.broker, &caller, "GetIntegration", &name, &error);
        let parsed = integration_name(&name).map_err(refuse)?;
        let absent = || Error::NotFound(ResourceName::Integration(parsed.clone()));
        let found = integration::find(&parsed).ok_or_else(absent).map_err(refuse)?;
        Ok(Response::new(convert::integration(found)))
    }

    async fn list_integrations(
        &self,
        request: Request<pb::ListIntegrationsRequest>,
    ) -> Result<Response<pb::ListIntegrationsResponse>, Status> {
        self.operator(&request, "ListIntegrations")?;
        let integrations = integration::built_in().values().map(convert::integration).collect();
        Ok(Response::new(pb::ListIntegrationsResponse { integrations }))
    }
}

#[tonic::async_trait]
impl ApplyService for Admin {
    async fn apply(
        &self,
        request: Request<Streaming<pb::ApplyRequest>>,
    ) -> Result<Response<pb::ApplyResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let refuse = |error| peer::refuse(&self.broker, &caller, "Apply", "", &error);
        // Before anything is read: what is refused should not be held in memory first.
        Broker::check_may_apply(&caller).map_err(refuse)?;
        let mut stream = request.into_inner();
        let mut documents = Vec::new();
        let mut bytes = 0;
        while let Some(message) = stream.message().await? {
            bytes += prost::Message::encoded_len(&message);
            if documents.len() == MAX_APPLY_DOCUMENTS || bytes > MAX_APPLY_BYTES {
                let text = format!(
                    "an Apply has at most {MAX_APPLY_DOCUMENTS} documents of {MAX_APPLY_BYTES} bytes together"
                );
                return Err(refuse(Error::TooLarge(text)));
            }
            documents.push(document(message).map_err(refuse)?);
        }
        let applied = self.broker.apply(caller.clone(), documents).await.map_err(refuse)?;
        Ok(Response::new(pb::ApplyResponse { results: applied.iter().map(result).collect() }))
    }
}

#[tonic::async_trait]
impl SystemService for Admin {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::Status>, Status> {
        let caller = self.operator(&request, "GetStatus")?;
        let health = self
            .broker
            .health()
            .map_err(|error| peer::refuse(&self.broker, &caller, "GetStatus", "", &error))?;
        let state = match (health.journal_writable, health.store_writable) {
            (false, _) => "no-secrets",
            (true, false) => "read-only",
            (true, true) => "serving",
        };
        Ok(Response::new(pb::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: health.trust_domain,
            start_time: convert::timestamp(health.start_time),
            state: state.to_owned(),
            connections: convert::count(health.connections),
            secrets: convert::count(health.secrets),
            open_steps: convert::count(health.open_steps),
            live_leases: convert::count(health.live_leases),
            head: convert::count(health.head),
            journal_position: health.journal_position,
            kek_id: health.kek_id,
        }))
    }
}

fn creation(connection: pb::Connection) -> Result<ConnectionDocument, Error> {
    let name = convert::connection_name(&connection.name)?;
    if !connection.integration.is_empty() && connection.integration != name.integration.as_str() {
        let rule = "it is not the integration in the connection's name";
        return Err(Invalid::new("integration", &connection.integration, rule).into());
    }
    Ok(ConnectionDocument {
        name,
        kind: convert::kind_name(&connection.kind)?,
        fields: convert::values(connection.fields),
        tags: convert::tags(&connection.tags)?,
        access: convert::bindings(&connection.access)?,
    })
}

fn integration_name(name: &str) -> Result<IntegrationName, Error> {
    match name.parse()? {
        ResourceName::Integration(integration) => Ok(integration),
        _ => Err(Invalid::new("integration name", name, "for example integrations/aws").into()),
    }
}

fn document(message: pb::ApplyRequest) -> Result<Document, Error> {
    use pb::apply_request::Document as Given;
    match message.document {
        Some(Given::Connection(given)) => Ok(Document::Connection(convert::document(given)?)),
        Some(Given::Secret(given)) => Ok(Document::Secret(SecretDocument {
            name: SecretRef {
                workflow: WorkflowName::parse(&given.workflow)?,
                name: SecretName::parse(&given.name)?,
            },
            value: Value::new(given.value),
        })),
        None => Err(Error::TargetInvalid("a message without a document".to_owned())),
    }
}

fn result(applied: &Applied) -> pb::ApplyResult {
    let action = match applied.action {
        Action::Changed => pb::ApplyAction::Changed,
        Action::Created => pb::ApplyAction::Created,
        Action::Unchanged => pb::ApplyAction::Unchanged,
    };
    pb::ApplyResult { name: applied.name.to_string(), action: action.into() }
}
