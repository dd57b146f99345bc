//! Seed documents of our own form, each a resource.

use std::collections::BTreeMap;

use super::origin::ValueOrigins;
use super::raw::{
    FieldSource, RawAccess, RawDocument, RawField, RawForm, RawKind, RawMetadata, RawSpec,
};
use super::reach::{AllowedReads, Reach};
use crate::cli::io::failure::Failure;
use crate::cli::io::time;
use crate::cli::io::time::parse_duration;
use crate::cli::operator::bindings::bindings;
use crate::cli::operator::release::parse_release;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// Defaults for seed documents, and permissions.
pub struct SeedContext<'a> {
    /// The workflow of secrets whose document names no workflow.
    pub workflow: Option<&'a str>,
    /// The resolver of a connection, and the viewer of a group, whose document names no principal.
    pub default_resolver: Option<&'a str>,
    /// The files and variables that documents may read.
    pub allowed: &'a AllowedReads,
}

/// A document that was made of a seed document, and where its values come from.
pub(super) type Made = (Document, ValueOrigins);

/// The resource that a document of our own form describes.
///
/// # Errors
/// The first problem of the document.
pub(super) fn ours(
    document: RawDocument,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
) -> Result<Made, Failure> {
    if document.api_version.as_deref() != Some("keyhatch/v1") {
        return Err(Failure::usage("apiVersion must be keyhatch/v1"));
    }
    if document.connections.is_some() || document.secrets.is_some() || document.runs.is_some() {
        return Err(Failure::usage("a document with an apiVersion has metadata and spec only"));
    }
    let kinds = ["Connection", "ConnectionGroup", "Integration", "Secret"];
    if !document.kind.as_deref().is_some_and(|kind| kinds.contains(&kind)) {
        return Err(Failure::usage(format!("kind must be one of: {}", kinds.join(", "))));
    }
    let metadata = document.metadata.ok_or_else(|| Failure::usage("metadata is missing"))?;
    let spec = document.spec.ok_or_else(|| Failure::usage("spec is missing"))?;
    let name = metadata.name.clone();
    let (what, made) = match document.kind.as_deref() {
        Some("Connection") => ("connection", connection(metadata, spec, reach, context)),
        Some("ConnectionGroup") => {
            ("group", group(metadata, spec, context).map(|group| (group, ValueOrigins::new())))
        }
        Some("Integration") => {
            ("integration", integration(&metadata, spec).map(|one| (one, ValueOrigins::new())))
        }
        _ => ("secret", secret_document(&metadata, spec, reach, context)),
    };
    made.map_err(|failure| match failure.message.starts_with(what) {
        true => failure,
        false => located(failure, &format!("{what} {name}")),
    })
}

/// Refuses metadata that only documents of another kind have.
fn check_metadata(metadata: &RawMetadata, tags: bool, labels: bool) -> Result<(), Failure> {
    if metadata.workflow.is_some() {
        return Err(Failure::usage("metadata.workflow is for secrets"));
    }
    let RawMetadata { tags: given, labels: others, .. } = metadata;
    if !tags && !given.0.is_empty() {
        return Err(Failure::usage("metadata.tags is for connections"));
    }
    if !labels && !others.is_empty() {
        return Err(Failure::usage("metadata.labels is for connections and groups"));
    }
    Ok(())
}

fn connection(
    metadata: RawMetadata,
    spec: RawSpec,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
) -> Result<Made, Failure> {
    check_metadata(&metadata, true, true)?;
    const KEYS: [&str; 10] = [
        "integration",
        "kind",
        "fields",
        "access",
        "default",
        "disabled",
        "expires",
        "maxTtl",
        "release",
        "send",
    ];
    spec.only(&KEYS)?;
    let name = metadata.name;
    let integration = integration_of(spec.integration)?;
    let fields =
        read_fields(spec.fields.unwrap_or_default(), reach, &format!("{integration}/{name}"))?;
    let ReadFields { given: fields, kept: kept_fields, origins } = fields;
    let max_ttl = spec.max_ttl.map(|text| parse_duration(&text)).transpose();
    let max_ttl = max_ttl.map_err(|error| Failure::usage(format!("spec.maxTtl: {error}")))?;
    let expires = spec.expires.map(|text| time::parse(&text)).transpose();
    let expires = expires.map_err(|error| Failure::usage(format!("spec.expires: {error}")))?;
    let release = spec.release.map(|text| parse_release(&text)).transpose();
    let release = release.map_err(|error| Failure::usage(format!("spec.release: {error}")))?;
    let document = Document::Connection(pb::ConnectionDocument {
        integration,
        name,
        expires,
        kind: spec.kind.unwrap_or_default(),
        fields,
        kept_fields,
        access: access(spec.access, context, pb::Relation::Resolver),
        tags: metadata.tags.0,
        labels: metadata.labels,
        default: spec.default,
        disabled: spec.disabled,
        max_ttl: max_ttl.map(|ttl| prost_types::Duration::try_from(ttl).unwrap_or_default()),
        release: release.unwrap_or_default().into(),
        send: spec.send.map(|send| pb::SendLimits { methods: send.methods, paths: send.paths }),
    });
    Ok((document, origins))
}

fn group(
    metadata: RawMetadata,
    spec: RawSpec,
    context: &SeedContext<'_>,
) -> Result<Document, Failure> {
    check_metadata(&metadata, false, true)?;
    spec.only(&["integration", "identifiers", "members", "access"])?;
    if spec.identifiers.as_ref().is_some_and(Vec::is_empty) {
        let problem = "spec.identifiers is empty: a group has one to three identifiers";
        return Err(Failure::usage(format!("{problem}, such as [account_id]")));
    }
    Ok(Document::Group(pb::GroupDocument {
        name: metadata.name,
        integration: integration_of(spec.integration)?,
        identifiers: spec.identifiers.unwrap_or_default(),
        members: spec.members.map(|names| pb::GroupMembers { names }),
        access: access(spec.access, context, pb::Relation::Viewer),
        labels: metadata.labels,
    }))
}

fn integration(metadata: &RawMetadata, spec: RawSpec) -> Result<Document, Failure> {
    check_metadata(metadata, false, false)?;
    spec.only(&["title", "kinds"])?;
    let kinds = spec.kinds.unwrap_or_default().into_iter().map(credential_kind);
    Ok(Document::Integration(pb::Integration {
        name: format!("integrations/{}", metadata.name),
        title: spec.title.unwrap_or_default(),
        kinds: kinds.collect::<Result<_, _>>()?,
        ..Default::default()
    }))
}

fn credential_kind(kind: RawKind) -> Result<pb::CredentialKind, Failure> {
    if kind.source.is_some() || kind.release.is_some() || kind.minted.is_some() {
        let text = "the broker mints credentials of built-in integrations only; leave out source, release and minted";
        return Err(Failure::usage(format!("kind {}: {text}", kind.name)));
    }
    let fields = kind.fields.into_iter().map(field_schema).collect::<Result<_, _>>()?;
    Ok(pb::CredentialKind { name: kind.name, title: kind.title, fields, ..Default::default() })
}

fn field_schema(field: RawField) -> Result<pb::FieldSchema, Failure> {
    let Some(sensitive) = field.sensitive else {
        return Err(Failure::usage(format!("field {}: say whether it is sensitive", field.name)));
    };
    let form = match field.form {
        None => pb::FieldForm::Unspecified,
        Some(RawForm::Certificate) => pb::FieldForm::Certificate,
        Some(RawForm::Json) => pb::FieldForm::Json,
        Some(RawForm::PrivateKey) => pb::FieldForm::PrivateKey,
        Some(RawForm::Url) => pb::FieldForm::Url,
    };
    Ok(pb::FieldSchema {
        name: field.name,
        description: field.description,
        sensitive,
        required: field.required,
        destination: field.destination,
        aliases: field.aliases,
        env: field.env,
        also_env: Vec::new(),
        example: field.example,
        pattern: field.pattern,
        template: field.template,
        generated: false,
        form: form.into(),
        root: false,
        unless: String::new(),
    })
}

fn secret_document(
    metadata: &RawMetadata,
    spec: RawSpec,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
) -> Result<Made, Failure> {
    spec.only(&["value"])?;
    let workflow = metadata.workflow.as_deref().or(context.workflow);
    if !metadata.tags.0.is_empty() || !metadata.labels.is_empty() {
        return Err(Failure::usage("a secret has neither tags nor labels"));
    }
    let value = spec.value.ok_or_else(|| Failure::usage("spec.value is missing"))?;
    secret(&metadata.name, workflow, value, reach)
}

fn integration_of(given: Option<String>) -> Result<String, Failure> {
    given.ok_or_else(|| Failure::usage("spec.integration is missing"))
}

/// The relations that a document names; those of the context if there is no `access`.
fn access(
    given: Option<RawAccess>,
    context: &SeedContext<'_>,
    relation: pb::Relation,
) -> Vec<pb::AccessBinding> {
    match given {
        Some(access) => {
            let relations = [
                (pb::Relation::Viewer, access.viewer),
                (pb::Relation::User, access.user),
                (pb::Relation::Resolver, access.resolver),
                (pb::Relation::Editor, access.editor),
            ];
            // An empty list takes the relation from everybody.
            let named = relations.into_iter().filter_map(|(relation, principals)| {
                Some(pb::AccessBinding { relation: relation.into(), principals: principals? })
            });
            named.collect()
        }
        None => default_access(context, relation),
    }
}

pub(super) fn secret(
    name: &str,
    workflow: Option<&str>,
    value: FieldSource,
    reach: &Reach<'_>,
) -> Result<Made, Failure> {
    let workflow = workflow.ok_or_else(|| {
        Failure::usage(format!("secret {name} has no workflow; give --workflow NAME"))
    })?;
    let read = value.read(reach).map_err(|failure| located(failure, &format!("secret {name}")));
    let (value, origin) = read?;
    let (workflow, name, kept) = (workflow.to_owned(), name.to_owned(), value.is_none());
    let value = value.unwrap_or_default();
    let document = Document::Secret(pb::SecretDocument { workflow, name, value, kept });
    Ok((document, ValueOrigins::from([("value".to_owned(), origin)])))
}

/// The fields of a document.
#[derive(Default)]
pub(super) struct ReadFields {
    /// The fields with a value.
    pub(super) given: BTreeMap<String, Vec<u8>>,
    /// The fields whose stored value stays.
    pub(super) kept: Vec<String>,
    /// Where each value comes from.
    pub(super) origins: ValueOrigins,
}

pub(super) fn read_fields(
    fields: BTreeMap<String, FieldSource>,
    reach: &Reach<'_>,
    of: &str,
) -> Result<ReadFields, Failure> {
    let mut read = ReadFields::default();
    for (name, source) in fields {
        let taken = source.read(reach);
        let (value, origin) =
            taken.map_err(|failure| located(failure, &format!("{of}: {name}")))?;
        read.origins.insert(name.clone(), origin);
        match value {
            Some(value) => drop(read.given.insert(name, value)),
            None => read.kept.push(name),
        }
    }
    Ok(read)
}

fn located(failure: Failure, place: &str) -> Failure {
    Failure { message: format!("{place}: {}", failure.message), ..failure }
}

pub(super) fn default_access(
    context: &SeedContext<'_>,
    relation: pb::Relation,
) -> Vec<pb::AccessBinding> {
    let principals = context.default_resolver.map(ToOwned::to_owned).into_iter().collect();
    bindings([(relation, principals)])
}
