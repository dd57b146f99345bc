//! `IntegrationService`.

use tonic::{Request, Response, Status};

use super::call::AdminService;
use crate::broker::{Deletion, Error, ListedIntegration};
use crate::grpc::pb::integration_service_server::IntegrationService;
use crate::grpc::{convert, pb};
use crate::integration::{CredentialKind, FieldRule, Integration, Problem, ValueForm};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{IntegrationName, Invalid, KindName, ResourceName};

#[tonic::async_trait]
impl IntegrationService for AdminService {
    async fn get_integration(
        &self,
        request: Request<pb::GetIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let (call, request) = self.begin(request, "GetIntegration", |one| one.name.clone())?;
        call.answer(async {
            let name = integration_name(&request.name)?;
            Ok(to_message(&call.broker.integration(&call.caller, &name)?))
        })
        .await
    }

    async fn list_integrations(
        &self,
        request: Request<pb::ListIntegrationsRequest>,
    ) -> Result<Response<pb::ListIntegrationsResponse>, Status> {
        let (call, request) = self.begin(request, "ListIntegrations", |_| String::new())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let all = broker.integrations(caller)?;
            let all = all.iter().map(to_message).collect();
            let (size, token) = (request.page_size, &request.page_token);
            let (integrations, next_page_token) =
                convert::page_of(all, size, token, |one: &pb::Integration| one.name.clone())?;
            let newer = broker.newer("integrations/", &next_page_token);
            Ok(pb::ListIntegrationsResponse { integrations, next_page_token, newer })
        })
        .await
    }

    async fn create_integration(
        &self,
        request: Request<pb::CreateIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let name = |request: &pb::CreateIntegrationRequest| name_of(request.integration.as_ref());
        let (call, request) = self.begin(request, "CreateIntegration", name)?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let integration = from_message(request.integration.unwrap_or_default())?;
            let caller = call.caller.clone();
            let created = call.broker.create_integration(caller, integration, options).await?;
            Ok(to_message(&created))
        })
        .await
    }

    async fn update_integration(
        &self,
        request: Request<pb::UpdateIntegrationRequest>,
    ) -> Result<Response<pb::Integration>, Status> {
        let name = |request: &pb::UpdateIntegrationRequest| name_of(request.integration.as_ref());
        let (call, request) = self.begin(request, "UpdateIntegration", name)?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let integration = request.integration.unwrap_or_default();
            let etag = convert::given(&integration.etag);
            let integration = from_message(integration)?;
            let (caller, allow_missing) = (call.caller.clone(), request.allow_missing);
            let updated =
                call.broker.update_integration(caller, integration, etag, allow_missing, options);
            Ok(to_message(&updated.await?))
        })
        .await
    }

    async fn delete_integration(
        &self,
        request: Request<pb::DeleteIntegrationRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.begin(request, "DeleteIntegration", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let name = integration_name(&request.name)?;
            let (etag, allow_missing) = (convert::given(&request.etag), request.allow_missing);
            let deletion = Deletion { etag, force: false, allow_missing };
            call.broker.delete_integration(call.caller.clone(), name, deletion, options).await
        })
        .await
    }
}

fn name_of(integration: Option<&pb::Integration>) -> String {
    integration.map_or_else(String::new, |integration| integration.name.clone())
}

pub(crate) fn integration_name(name: &str) -> Result<IntegrationName, Error> {
    match name.parse()? {
        ResourceName::Integration(integration) => Ok(integration),
        _ => Err(Invalid::new("integration name", name, "for example integrations/aws").into()),
    }
}

/// An operators' own integration, as a message describes it.
pub(crate) fn from_message(message: pb::Integration) -> Result<Integration, Error> {
    let mut kinds = Vec::with_capacity(message.kinds.len());
    for kind in message.kinds {
        let mut fields = Vec::with_capacity(kind.fields.len());
        for field in kind.fields {
            fields.push(rule(field)?);
        }
        kinds.push(CredentialKind {
            name: KindName::parse(&kind.name)?,
            title: kind.title,
            fields,
        });
    }
    let name = integration_name(&message.name)?;
    Ok(Integration { name, title: message.title, tile: false, shadowing: Vec::new(), kinds })
}

fn rule(field: pb::FieldSchema) -> Result<FieldRule, Error> {
    if field.generated {
        let text = "only integrations that come with the broker have values that it makes";
        return Err(Error::IntegrationInvalid(vec![Problem::new(&field.name, text)]));
    }
    let form = match field.form() {
        pb::FieldForm::Unspecified => None,
        pb::FieldForm::Certificate => Some(ValueForm::Certificate),
        pb::FieldForm::PrivateKey => Some(ValueForm::PrivateKey),
        pb::FieldForm::Json => Some(ValueForm::Json),
        pb::FieldForm::Url => Some(ValueForm::Url),
    };
    Ok(FieldRule {
        name: field.name,
        description: field.description,
        example: field.example,
        sensitive: field.sensitive,
        required: field.required,
        destination: field.destination,
        template: field.template,
        generated: false,
        aliases: field.aliases,
        env: field.env,
        also_env: Vec::new(),
        form,
        forbidden: Vec::new(),
        pattern: Some(field.pattern).filter(|pattern| !pattern.is_empty()),
        part_of: None,
    })
}

fn to_message(listed: &ListedIntegration) -> pb::Integration {
    let kind = |kind: &CredentialKind| pb::CredentialKind {
        name: kind.name.to_string(),
        title: kind.title.clone(),
        fields: kind.fields.iter().map(field).collect(),
    };
    let integration = &listed.integration;
    pb::Integration {
        name: ResourceName::Integration(integration.name.clone()).to_string(),
        title: integration.title.clone(),
        kinds: integration.kinds.iter().map(kind).collect(),
        built_in: listed.etag.is_none(),
        etag: listed.etag.clone().unwrap_or_default(),
    }
}

fn field(rule: &FieldRule) -> pb::FieldSchema {
    let form = match rule.form {
        None => pb::FieldForm::Unspecified,
        Some(ValueForm::Certificate) => pb::FieldForm::Certificate,
        Some(ValueForm::PrivateKey) => pb::FieldForm::PrivateKey,
        Some(ValueForm::Json) => pb::FieldForm::Json,
        Some(ValueForm::Url) => pb::FieldForm::Url,
    };
    pb::FieldSchema {
        name: rule.name.clone(),
        description: rule.description.clone(),
        sensitive: rule.sensitive,
        required: rule.required,
        destination: rule.destination,
        aliases: rule.aliases.clone(),
        env: rule.env.clone(),
        also_env: rule.also_env.clone(),
        example: rule.example.clone(),
        pattern: rule.pattern.clone().unwrap_or_default(),
        template: rule.template,
        generated: rule.generated,
        form: form.into(),
    }
}
