//! `keyhatch export`: everything but sensitive values, as seed documents.
//!
//! Instead of a sensitive value there is `{keep: true}`: apply keeps the stored value, and fails if there is no value.

use serde_json::{Map, Value as Json, json};
use tonic::transport::Channel;

use super::bindings::access_of;
use super::labels::{has_labels, parse_label};
use super::release::release_name;
use crate::cli::Common;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{Output, extend, line, print, say};
use crate::cli::io::pages;
use crate::cli::io::text::{last_part, short_name};
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::model::ResourceName;

#[derive(clap::Args)]
pub struct Export {
    /// Only connections and groups with this label, KEY=VALUE; if given more than once, with all of them.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

impl Export {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let documents = self.documents(&channel).await?;
        if documents.is_empty() && matches!(common.output, Output::Table | Output::Name) {
            say("there is nothing to export");
            return Ok(());
        }
        if common.output != Output::Table {
            return print(common.output, &documents, String::new, || names(&documents));
        }
        let texts = documents.iter().map(serde_saphyr::to_string);
        let texts: Vec<String> = texts
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new("IO", error.to_string(), exit::FAILED))?;
        line(texts.join("---\n").trim_end())
    }

    /// Every document, after those that it depends on.
    async fn documents(&self, channel: &Channel) -> Result<Vec<Json>, Failure> {
        let is_wanted = |labels| has_labels(labels, &self.label);
        let mut documents = Vec::new();
        let integrations = pages::integrations(channel).await?;
        if self.label.is_empty() {
            let own = integrations.iter().filter(|one| !one.etag.is_empty());
            documents.extend(own.map(integration));
        }
        let connections =
            pages::connections(channel, pb::ListConnectionsRequest::default()).await?;
        let connections = connections.iter().filter(|one| is_wanted(&one.labels));
        documents.extend(connections.map(|one| connection(one, &integrations)));
        for one in pages::groups(channel, pb::ListGroupsRequest::default())
            .await?
            .iter()
            .filter(|one| is_wanted(&one.labels))
        {
            documents.push(group(one, &pages::members(channel, &one.name).await?));
        }
        if self.label.is_empty() {
            documents.extend(
                pages::secrets(channel, pages::secrets_of(None)).await?.iter().filter_map(secret),
            );
        }
        Ok(documents)
    }
}

fn names(documents: &[Json]) -> String {
    let name = |document: &Json| {
        let metadata = document.get("metadata")?;
        metadata.get("name").and_then(Json::as_str).map(ToOwned::to_owned)
    };
    documents.iter().filter_map(name).collect::<Vec<_>>().join("\n")
}

fn document(kind: &str, metadata: &Json, spec: &Json) -> Json {
    json!({ "apiVersion": "keyhatch/v1", "kind": kind, "metadata": metadata, "spec": spec })
}

/// A mapping without empty and false values: apply changes only what a document names.
fn without_empty(entries: Json) -> Json {
    let is_said = |value: &Json| match value {
        Json::Array(items) => !items.is_empty(),
        Json::Bool(is) => *is,
        Json::Null => false,
        Json::Object(entries) => !entries.is_empty(),
        Json::String(text) => !text.is_empty(),
        Json::Number(_) => true,
    };
    match entries {
        Json::Object(entries) => {
            Json::Object(entries.into_iter().filter(|(_, value)| is_said(value)).collect())
        }
        other => other,
    }
}

fn kept() -> Json {
    json!({ "keep": true })
}

fn connection(one: &pb::Connection, integrations: &[pb::Integration]) -> Json {
    let value = |field: &pb::FieldState| match std::str::from_utf8(&field.value) {
        Ok(text) if !field.sensitive => json!(text),
        _ => kept(),
    };
    let mut kinds = integrations.iter().filter(|found| short_name(&found.name) == one.integration);
    let kind = kinds.find_map(|found| found.kinds.iter().find(|kind| kind.name == one.kind));
    // A document cannot set the values that the broker generates.
    let is_generated = |field: &&pb::FieldState| {
        kind.is_some_and(|kind| {
            kind.fields.iter().any(|rule| rule.generated && rule.name == field.name)
        })
    };
    let is_ever_minted = kind.is_some_and(|kind| kind.release() != pb::Release::Unspecified);
    let given = one.field_states.iter().filter(|field| !is_generated(field));
    let fields: Map<String, Json> = given.map(|field| (field.name.clone(), value(field))).collect();
    let max_ttl = one.max_ttl.as_ref().map(|ttl| format!("{}s", ttl.seconds));
    let metadata = json!({ "name": last_part(&one.name), "tags": one.tags, "labels": one.labels });
    let spec = json!({
        "integration": one.integration,
        "kind": one.kind,
        "fields": fields,
        "access": access_of(&one.access),
        "default": one.default,
        "disabled": one.disabled,
        "maxTtl": max_ttl,
        "expires": one.expires.as_ref().map(|time| moment(Some(time))),
        "release": is_ever_minted.then(|| release_name(one.release())),
        "send": one.send.as_ref().map(|send| without_empty(json!({ "methods": send.methods, "paths": send.paths }))),
    });
    document("Connection", &without_empty(metadata), &without_empty(spec))
}

fn group(one: &pb::ConnectionGroup, members: &[String]) -> Json {
    let members: Vec<_> = members.iter().map(|member| last_part(member)).collect();
    let metadata = json!({ "name": short_name(&one.name), "labels": one.labels });
    let mut spec = without_empty(json!({
        "integration": one.integration,
        "identifiers": one.identifiers,
        "access": access_of(&one.access),
    }));
    // An empty list means no members; a missing list leaves the members as they are.
    extend(&mut spec, "members", json!(members));
    document("ConnectionGroup", &without_empty(metadata), &spec)
}

fn integration(one: &pb::Integration) -> Json {
    let form = |field: &pb::FieldSchema| match field.form() {
        pb::FieldForm::Unspecified => None,
        pb::FieldForm::Certificate => Some("certificate"),
        pb::FieldForm::Json => Some("json"),
        pb::FieldForm::PrivateKey => Some("private_key"),
        pb::FieldForm::Url => Some("url"),
    };
    let field = |field: &pb::FieldSchema| {
        let mut said = without_empty(json!({
            "name": field.name,
            "description": field.description,
            "example": field.example,
            "required": field.required,
            "destination": field.destination,
            "template": field.template,
            "aliases": field.aliases,
            "env": field.env,
            "pattern": field.pattern,
            "form": form(field),
        }));
        extend(&mut said, "sensitive", json!(field.sensitive));
        said
    };
    let kind = |kind: &pb::CredentialKind| {
        let fields: Vec<_> = kind.fields.iter().map(field).collect();
        json!({ "name": kind.name, "title": kind.title, "fields": fields })
    };
    let kinds: Vec<_> = one.kinds.iter().map(kind).collect();
    let spec = json!({ "title": one.title, "kinds": kinds });
    document("Integration", &json!({ "name": short_name(&one.name) }), &spec)
}

fn secret(one: &pb::Secret) -> Option<Json> {
    let Ok(ResourceName::Secret(secret)) = one.name.parse() else { return None };
    let metadata = json!({ "name": secret.name.as_str(), "workflow": secret.workflow.as_str() });
    Some(document("Secret", &metadata, &json!({ "value": kept() })))
}
