//! `SecretService`.

use tonic::{Request, Response, Status};

use super::call::AdminService;
use crate::broker::{Deletion, Error, SecretDocument};
use crate::catalog::SecretMetadata;
use crate::grpc::pb::secret_service_server::SecretService;
use crate::grpc::{convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{Invalid, ResourceName, SecretRef, Value, WorkflowName};

#[tonic::async_trait]
impl SecretService for AdminService {
    async fn put_secret(
        &self,
        request: Request<pb::PutSecretRequest>,
    ) -> Result<Response<pb::Secret>, Status> {
        let (call, request) = self.begin(request, "PutSecret", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let value = Some(Value::new(request.value));
            let document = SecretDocument { name: secret_name(&request.name)?, value };
            let put = call.broker.put_secret(call.caller.clone(), document, options).await?;
            Ok(pb::Secret { findings: convert::findings(put.1), ..to_message(&put.0) })
        })
        .await
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Result<Response<pb::ListSecretsResponse>, Status> {
        let (call, request) = self.begin(request, "ListSecrets", |one| one.workflow.clone())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let workflow = workflow(&request.workflow)?;
            let after = after(&request.page_token)?;
            let size = convert::page_size(request.page_size);
            let (secrets, more) =
                broker.secrets(caller, workflow.as_ref(), after.as_ref(), size)?;
            let next = secrets.last().filter(|_| more);
            let next_page_token = next.map(|last| convert::to_page_token(&full(last)));
            let next_page_token = next_page_token.unwrap_or_default();
            let of = workflow.map_or_else(
                || "workflows/".to_owned(),
                |workflow| format!("workflows/{workflow}/secrets/"),
            );
            Ok(pb::ListSecretsResponse {
                secrets: secrets.iter().map(to_message).collect(),
                newer: broker.newer(&of, &next_page_token),
                next_page_token,
            })
        })
        .await
    }

    async fn delete_secret(
        &self,
        request: Request<pb::DeleteSecretRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.begin(request, "DeleteSecret", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let name = secret_name(&request.name)?;
            let deletion = Deletion { allow_missing: request.allow_missing, ..Deletion::default() };
            call.broker.delete_secret(call.caller.clone(), name, deletion, options).await
        })
        .await
    }
}

/// Whose secrets are asked for; none for everybody's.
pub(crate) fn workflow(name: &str) -> Result<Option<WorkflowName>, Error> {
    match name {
        "-" => Ok(None),
        name => Ok(Some(WorkflowName::parse(name)?)),
    }
}

pub(crate) fn secret_name(name: &str) -> Result<SecretRef, Error> {
    match name.parse()? {
        ResourceName::Secret(secret) => Ok(secret),
        _ => {
            Err(Invalid::new("secret name", name, "for example workflows/deploy/secrets/token")
                .into())
        }
    }
}

/// Where a page begins.
pub(crate) fn after(page_token: &str) -> Result<Option<SecretRef>, Error> {
    let name: Option<String> = convert::from_page_token(page_token)?;
    name.map(|name| secret_name(&name)).transpose().map_err(|_| Error::PageTokenInvalid)
}

fn full(secret: &SecretMetadata) -> String {
    ResourceName::Secret(secret.name.clone()).to_string()
}

fn to_message(secret: &SecretMetadata) -> pb::Secret {
    pb::Secret {
        name: full(secret),
        version: convert::count(secret.version),
        update_time: convert::timestamp(secret.update_time),
        updated_by: secret.updated_by.clone(),
        findings: Vec::new(),
    }
}
