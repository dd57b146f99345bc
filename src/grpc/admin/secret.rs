//! `SecretService`.

use tonic::Request;

use super::call::AdminService;
use crate::broker::{Deletion, Error, SecretDocument};
use crate::catalog::SecretMetadata;
use crate::grpc::convert::page::{PageRequest, page};
use crate::grpc::pb::secret_service_server::SecretService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ResourceName, SecretRef, Value, WorkflowName};

parse_requests! {
    DeleteSecretRequest [request_id validate_only] -> (SecretRef, Deletion) = |one| {
        let deletion = Deletion { allow_missing: one.allow_missing, ..Deletion::default() };
        Ok((convert::secret_name(&one.name)?, deletion))
    };
    ListSecretsRequest -> SecretList = |one| secret_list(&one);
    PutSecretRequest [request_id validate_only] -> SecretDocument = |one| {
        let value = Some(Value::new(one.value));
        Ok(SecretDocument { name: convert::secret_name(&one.name)?, value })
    };
}

/// Which secrets a list shows: those of one workflow, or of every workflow if `workflow` is `None`.
pub struct SecretList {
    workflow: Option<WorkflowName>,
    after: Option<SecretRef>,
    size: usize,
}

#[tonic::async_trait]
impl SecretService for AdminService {
    async fn put_secret(&self, request: Request<pb::PutSecretRequest>) -> Reply<pb::Secret> {
        let (call, document) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            let (secret, findings) = call.broker.put_secret(caller, document, options).await?;
            Ok(pb::Secret { findings: convert::findings(findings), ..to_message(&secret) })
        })
        .await
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Reply<pb::ListSecretsResponse> {
        let (call, asked) = self.begin_on(request, |one| one.workflow.clone())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let SecretList { workflow, after, size } = asked;
            let (secrets, has_more) =
                broker.secrets(caller, workflow.as_ref(), after.as_ref(), size)?;
            let (secrets, next_page_token) =
                page(secrets.iter().map(to_message), has_more, |one| &one.name);
            let of = workflow.map(|workflow| format!("workflows/{workflow}/secrets/"));
            let newer = broker.newer(of.as_deref().unwrap_or("workflows/"), &next_page_token);
            Ok(pb::ListSecretsResponse { secrets, next_page_token, newer })
        })
        .await
    }

    async fn delete_secret(&self, request: Request<pb::DeleteSecretRequest>) -> Reply<()> {
        let (call, (name, deletion)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(call.broker.delete_secret(caller, name, deletion, options)).await
    }
}

fn secret_list(request: &pb::ListSecretsRequest) -> Result<SecretList, Error> {
    let workflow = match request.workflow.as_str() {
        "-" => None,
        name => Some(WorkflowName::parse(name)?),
    };
    let PageRequest { after, size } = PageRequest::parse(request.page_size, &request.page_token)?;
    let after = match after {
        None => None,
        Some(ResourceName::Secret(name)) => Some(name),
        Some(_) => return Err(Error::PageTokenInvalid),
    };
    Ok(SecretList { workflow, after, size })
}

fn to_message(secret: &SecretMetadata) -> pb::Secret {
    pb::Secret {
        name: ResourceName::Secret(secret.name.clone()).to_string(),
        version: convert::count(secret.version),
        update_time: convert::timestamp(secret.update_time),
        updated_by: secret.updated_by.clone(),
        findings: Vec::new(),
    }
}
