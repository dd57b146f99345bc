//! `SecretService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::pb::secret_service_server::SecretService;
use super::{convert, pb, peer};
use crate::broker::{Broker, Document, Error, SecretDocument};
use crate::catalog::SecretMetadata;
use crate::model::{Invalid, ResourceName, SecretName, SecretRef, Value, WorkflowName};

pub(super) struct Secrets {
    broker: Arc<Broker>,
}

impl Secrets {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl SecretService for Secrets {
    async fn put_secret(
        &self,
        request: Request<pb::PutSecretRequest>,
    ) -> Result<Response<pb::Secret>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let pb::PutSecretRequest { name, value } = request.into_inner();
        let refuse = |error| peer::refuse(&self.broker, &caller, "PutSecret", &name, &error);
        let parsed = secret_name(&name).map_err(refuse)?;
        let value = Value::new(value);
        let document = Document::Secret(SecretDocument { name: parsed.clone(), value });
        self.broker.apply_one(caller.clone(), document).await.map_err(refuse)?;
        let put = self.broker.secret(&caller, &parsed).map_err(refuse)?;
        Ok(Response::new(to_message(&put)))
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Result<Response<pb::ListSecretsResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse =
            |error| peer::refuse(&self.broker, &caller, "ListSecrets", &request.workflow, &error);
        let workflow =
            WorkflowName::parse(&request.workflow).map_err(|error| refuse(error.into()))?;
        let after: Option<String> =
            convert::from_page_token(&request.page_token).map_err(refuse)?;
        let after = after.map(|name| SecretName::parse(&name)).transpose();
        let after = after.map_err(|_| refuse(Error::PageTokenInvalid))?;
        let size = convert::page_size(request.page_size);
        let (secrets, more) =
            self.broker.secrets(&caller, &workflow, after.as_ref(), size).map_err(refuse)?;
        let next = secrets.last().filter(|_| more);
        let next = next.map(|last| convert::to_page_token(last.name.name.as_str()));
        Ok(Response::new(pb::ListSecretsResponse {
            secrets: secrets.iter().map(to_message).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn delete_secret(
        &self,
        request: Request<pb::DeleteSecretRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let name = request.into_inner().name;
        let refuse = |error| peer::refuse(&self.broker, &caller, "DeleteSecret", &name, &error);
        let parsed = secret_name(&name).map_err(refuse)?;
        self.broker.delete_secret(caller.clone(), parsed).await.map_err(refuse)?;
        Ok(Response::new(()))
    }
}

fn secret_name(name: &str) -> Result<SecretRef, Error> {
    match name.parse()? {
        ResourceName::Secret(secret) => Ok(secret),
        _ => {
            Err(Invalid::new("secret name", name, "for example workflows/deploy/secrets/token")
                .into())
        }
    }
}

fn to_message(secret: &SecretMetadata) -> pb::Secret {
    pb::Secret {
        name: ResourceName::Secret(secret.name.clone()).to_string(),
        version: convert::count(secret.version),
        update_time: convert::timestamp(secret.update_time),
        updated_by: secret.updated_by.clone(),
    }
}
