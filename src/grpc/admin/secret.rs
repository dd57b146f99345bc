//! `SecretService`.

use tonic::Request;

use super::call::AdminService;
use crate::broker::{Deletion, Error, ListedSecret, Order, OrderBy, SecretDocument, SecretQuery};
use crate::catalog::{Filter, FilterField, SecretMetadata};
use crate::grpc::convert::page::ListRequest;
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
    asked: ListRequest<SecretRef>,
    filter: Filter<SecretMetadata>,
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
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let SecretList { workflow, asked, filter } = asked;
            let query = SecretQuery { filter, page: asked.page.clone() };
            let answer = asked.answer(&broker.secrets(caller, &query, is_cancelled)?, to_message);
            let of = workflow.map(|workflow| format!("workflows/{workflow}/secrets/"));
            let of = of.as_deref().unwrap_or("workflows/");
            let newer = broker.newer(of, &answer.next_page_token);
            Ok(pb::ListSecretsResponse {
                secrets: answer.messages,
                next_page_token: answer.next_page_token,
                newer,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
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
    let mut filter = convert::filter::<SecretMetadata>(&request.filter)?;
    if let Some(workflow) = &workflow {
        filter.with(FilterField::Workflow, workflow.as_str());
    }
    let order = Order::parse(&request.order_by, &OrderBy::OF_SECRETS)?;
    let query = ("secrets", &request.filter, &request.workflow);
    let asked = ListRequest::parse(request.page_size, &request.page_token, order, query)?;
    Ok(SecretList { workflow, asked, filter })
}

fn to_message(listed: &ListedSecret) -> pb::Secret {
    let secret = &listed.metadata;
    pb::Secret {
        name: ResourceName::Secret(secret.name.clone()).to_string(),
        version: convert::count(secret.version),
        update_time: convert::timestamp(secret.update_time),
        updated_by: secret.updated_by.clone(),
        findings: Vec::new(),
        live_leases: convert::count(listed.live_leases),
        last_use_time: listed.used.and_then(|used| convert::timestamp(used.last)),
        use_count: convert::count(listed.used.map_or(0, |used| used.times)),
    }
}
