//! `IntegrationService`.

use tonic::Request;

use super::call::AdminService;
use crate::broker::{Deletion, Error, ListedIntegration};
use crate::grpc::convert::page::{PageRequest, page_of};
use crate::grpc::pb::integration_service_server::IntegrationService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::integration::{
    CredentialKind, FieldRule, Integration, Login, Problem, SendRule, ValueForm,
};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{IntegrationName, KindName, Release, ResourceName};

parse_requests! {
    CreateIntegrationRequest [request_id validate_only] -> Integration =
        |one| from_message(one.integration.unwrap_or_default());
    DeleteIntegrationRequest [request_id validate_only] -> (IntegrationName, Deletion) = |one| {
        let etag = convert::given(&one.etag);
        let deletion = Deletion { etag, force: false, allow_missing: one.allow_missing };
        Ok((convert::integration_name(&one.name)?, deletion))
    };
    GetIntegrationRequest -> IntegrationName = |one| convert::integration_name(&one.name);
    ListIntegrationsRequest -> PageRequest<String> =
        |one| PageRequest::parse(one.page_size, &one.page_token);
    UpdateIntegrationRequest [request_id validate_only] -> (Integration, Option<String>, bool) = |one| {
        let integration = one.integration.unwrap_or_default();
        let etag = convert::given(&integration.etag);
        Ok((from_message(integration)?, etag, one.allow_missing))
    };
}

#[tonic::async_trait]
impl IntegrationService for AdminService {
    async fn get_integration(
        &self,
        request: Request<pb::GetIntegrationRequest>,
    ) -> Reply<pb::Integration> {
        let (call, name) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async { Ok(to_message(&call.broker.integration(&call.caller, &name)?)) }).await
    }

    async fn list_integrations(
        &self,
        request: Request<pb::ListIntegrationsRequest>,
    ) -> Reply<pb::ListIntegrationsResponse> {
        let (call, asked) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let all = broker.integrations(caller)?;
            let (integrations, next_page_token) =
                page_of(all.iter().map(to_message), &asked, |one| &one.name);
            let newer = broker.newer("integrations/", &next_page_token);
            Ok(pb::ListIntegrationsResponse { integrations, next_page_token, newer })
        })
        .await
    }

    async fn create_integration(
        &self,
        request: Request<pb::CreateIntegrationRequest>,
    ) -> Reply<pb::Integration> {
        let (call, integration) =
            self.begin_on(request, |one| name_of(one.integration.as_ref()))?;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            let created = call.broker.create_integration(caller, integration, options).await?;
            Ok(to_message(&created))
        })
        .await
    }

    async fn update_integration(
        &self,
        request: Request<pb::UpdateIntegrationRequest>,
    ) -> Reply<pb::Integration> {
        let (call, update) = self.begin_on(request, |one| name_of(one.integration.as_ref()))?;
        let (integration, etag, allow_missing) = update;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            let updated =
                call.broker.update_integration(caller, integration, etag, allow_missing, options);
            Ok(to_message(&updated.await?))
        })
        .await
    }

    async fn delete_integration(
        &self,
        request: Request<pb::DeleteIntegrationRequest>,
    ) -> Reply<()> {
        let (call, (name, deletion)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(call.broker.delete_integration(caller, name, deletion, options)).await
    }
}

fn name_of(integration: Option<&pb::Integration>) -> String {
    integration.map_or_else(String::new, |integration| integration.name.clone())
}

/// Parses an operator's own integration.
pub(crate) fn from_message(message: pb::Integration) -> Result<Integration, Error> {
    let kind = |kind: pb::CredentialKind| {
        let name = KindName::parse(&kind.name)?;
        let is_minted =
            kind.release() != pb::Release::Unspecified || !kind.minted_fields.is_empty();
        let refused = |text: &str| {
            let place = format!("kinds.{name}");
            Err(Error::IntegrationInvalid(vec![Problem::new(&place, text)]))
        };
        if is_minted || kind.fields.iter().any(|field| field.root) {
            return refused(
                "the broker mints credentials of built-in integrations only; leave out release, minted_fields and root",
            );
        }
        if !kind.sends.is_empty() {
            return refused(
                "the broker sends requests with built-in integrations only; leave out sends, or use an http connection",
            );
        }
        let fields = kind.fields.into_iter().map(rule).collect::<Result<_, Error>>()?;
        Ok(CredentialKind {
            name,
            title: kind.title,
            source: None,
            release: Release::Stored,
            roots: Vec::new(),
            web_identity: None,
            fields,
            minted: Vec::new(),
            sends: Vec::new(),
        })
    };
    let kinds = message.kinds.into_iter().map(kind).collect::<Result<_, Error>>()?;
    let name = convert::integration_name(&message.name)?;
    Ok(Integration { name, title: message.title, tile: false, shadowing: Vec::new(), kinds })
}

fn rule(field: pb::FieldSchema) -> Result<FieldRule, Error> {
    if field.generated {
        let text = "only built-in integrations have values that the broker generates";
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
        pattern: convert::given(&field.pattern),
        part_of: None,
        root: false,
        range: None,
        with: None,
        unless: None,
    })
}

fn to_message(listed: &ListedIntegration) -> pb::Integration {
    let kind = |kind: &CredentialKind| pb::CredentialKind {
        name: kind.name.to_string(),
        title: kind.title.clone(),
        fields: kind.fields.iter().map(field).collect(),
        release: kind.source.map(|_| convert::release_message(kind.release)).unwrap_or_default(),
        minted_fields: kind.minted.iter().filter(|rule| !rule.root).map(field).collect(),
        sends: kind.sends.iter().map(send).collect(),
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

fn send(rule: &SendRule) -> pb::SendSchema {
    let login = |login: &Login| pb::SendLogin {
        username: login.username.clone(),
        password: login.password.clone(),
    };
    pb::SendSchema {
        service: rule.service.clone(),
        base_urls: rule.base_url.clone(),
        headers: rule.headers.clone(),
        basic: rule.basic.as_ref().map(login),
        own_parts: rule.own_parts,
        client_certificate: rule.client_certificate,
        ca_certificate_field: rule.ca_certificate.clone(),
        without: rule.without.clone(),
        variable: rule.variable.clone(),
    }
}

fn field(rule: &FieldRule) -> pb::FieldSchema {
    let form = match rule.form {
        None => pb::FieldForm::Unspecified,
        Some(ValueForm::Certificate) => pb::FieldForm::Certificate,
        Some(ValueForm::PrivateKey) => pb::FieldForm::PrivateKey,
        Some(ValueForm::Claims | ValueForm::Json) => pb::FieldForm::Json,
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
        root: rule.root,
        unless: rule.unless.clone().unwrap_or_default(),
    }
}
