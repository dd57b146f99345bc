//! `keyhatch integration`: the types of connections.

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use super::release::release_name;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::print;
use crate::cli::io::pages;
use crate::cli::io::text::{short_name, table};
use crate::grpc::pb;
use crate::grpc::pb::integration_service_client::IntegrationServiceClient;

#[derive(Subcommand)]
pub enum IntegrationCommand {
    /// List the integrations
    #[command(alias = "ls")]
    List,
    /// Show an integration: its credential kinds and their fields
    Get {
        /// The integration, such as aws.
        name: String,
    },
}

impl IntegrationCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::Get { name } => {
                let found = find(channel, &name).await?;
                print(common.output, &to_json(&found), || describe(&found), || name.clone())
            }
            Self::List => {
                let listed = pages::integrations(&channel).await?;
                let answer: Vec<_> = listed.iter().map(to_json).collect();
                let rows = listed.iter().map(|one| {
                    let kinds: Vec<_> = one.kinds.iter().map(|kind| kind.name.as_str()).collect();
                    vec![short_name(&one.name).to_owned(), one.title.clone(), kinds.join(", ")]
                });
                let text = || table(&["integration", "title", "kinds"], rows.collect());
                let names = listed.iter().map(|one| short_name(&one.name));
                print(common.output, &answer, text, || names.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

/// Asks the broker for one integration.
pub(crate) async fn find(channel: Channel, name: &str) -> Result<pb::Integration, Failure> {
    let request = pb::GetIntegrationRequest { name: format!("integrations/{name}") };
    Ok(IntegrationServiceClient::new(channel).get_integration(request).await?.into_inner())
}

fn to_json(integration: &pb::Integration) -> Json {
    let field = |field: &pb::FieldSchema| {
        json!({
            "name": field.name,
            "description": field.description,
            "sensitive": field.sensitive,
            "required": field.required,
            "destination": field.destination,
            "aliases": field.aliases,
            "env": field.env,
            "also_env": field.also_env,
            "example": field.example,
            "root": field.root,
            "unless": Some(&field.unless).filter(|other| !other.is_empty()),
        })
    };
    let send = |rule: &pb::SendSchema| {
        let login = |login: &pb::SendLogin| json!({ "username": login.username, "password": login.password });
        json!({
            "service": rule.service,
            "base_urls": rule.base_urls,
            "headers": rule.headers,
            "basic": rule.basic.as_ref().map(login),
            "own_parts": rule.own_parts,
            "client_certificate": rule.client_certificate,
            "ca_certificate_field": Some(&rule.ca_certificate_field).filter(|name| !name.is_empty()),
            "without": rule.without,
            "variable": Some(&rule.variable).filter(|name| !name.is_empty()),
        })
    };
    let kind = |kind: &pb::CredentialKind| {
        json!({
            "name": kind.name,
            "title": kind.title,
            "fields": kind.fields.iter().map(field).collect::<Vec<_>>(),
            "release": Some(release_name(kind.release())).filter(|name| !name.is_empty()),
            "minted_fields": kind.minted_fields.iter().map(field).collect::<Vec<_>>(),
            "sends": kind.sends.iter().map(send).collect::<Vec<_>>(),
        })
    };
    json!({
        "integration": short_name(&integration.name),
        "title": integration.title,
        "kinds": integration.kinds.iter().map(kind).collect::<Vec<_>>(),
    })
}

fn describe(integration: &pb::Integration) -> String {
    let name = short_name(&integration.name);
    let kinds = integration.kinds.iter().map(|kind| {
        let mut parts = vec![format!("{name}/{}: {}\n{}", kind.name, kind.title, fields(&kind.fields))];
        if !kind.minted_fields.is_empty() {
            let default = release_name(kind.release());
            parts.push(format!(
                "A minted connection gives these and what above is no root; a new one is {default}.\n{}",
                fields(&kind.minted_fields)
            ));
        }
        if !kind.sends.is_empty() {
            parts.push(format!(
                "The broker sends requests with it (keyhatch send, exec --serve), and the step gets no value.\n{}",
                sends(&kind.sends)
            ));
        }
        parts.join("\n\n")
    });
    kinds.collect::<Vec<_>>().join("\n\n")
}

/// A row for each service.
fn sends(rules: &[pb::SendSchema]) -> String {
    let rows = rules.iter().map(|rule| {
        let headers = rule.headers.iter().map(|(name, text)| format!("{name}: {text}"));
        let login = rule
            .basic
            .iter()
            .map(|login| format!("Authorization: Basic {}:{}", login.username, login.password));
        let parts = [
            (rule.own_parts, "its headers, URL parameters and body"),
            (rule.client_certificate, "its client certificate"),
        ];
        let parts = parts.iter().filter(|(set, _)| *set).map(|(_, part)| (*part).to_owned());
        let sent: Vec<_> = headers.chain(login).chain(parts).collect();
        let unless = match rule.without.join(" or ") {
            none if none.is_empty() => none,
            fields => format!("; nothing with {fields}"),
        };
        let service = if rule.service.is_empty() { "API" } else { &rule.service };
        vec![
            service.to_owned(),
            format!("{}{unless}", rule.base_urls.join(", or ")),
            sent.join("; "),
            rule.ca_certificate_field.clone(),
            rule.variable.clone(),
        ]
    });
    table(&["service", "below", "with", "roots", "variable"], rows.collect())
}

/// A row for each field.
fn fields(fields: &[pb::FieldSchema]) -> String {
    let rows = fields.iter().map(|field| {
        let flags = [
            (field.required, "required"),
            (field.sensitive, "sensitive"),
            (field.destination, "destination"),
            (field.root, "root"),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned());
        let unless = Some(&field.unless).filter(|other| !other.is_empty());
        let flags: Vec<_> = flags.chain(unless.map(|other| format!("unless {other}"))).collect();
        vec![
            field.name.clone(),
            flags.join(", "),
            [std::slice::from_ref(&field.env), &field.also_env].concat().join(", "),
            field.aliases.join(", "),
            field.description.clone(),
        ]
    });
    table(&["field", "is", "variable", "also called", "what"], rows.collect())
}
