//! Seed files: YAML documents to be applied.
//!
//! Two forms. Ours, one document a resource:
//!
//! ```yaml
//! apiVersion: keyhatch/v1
//! kind: Connection
//! metadata: {name: prod}
//! spec:
//!   integration: aws
//!   fields: {access_key_id: AKIA…, secret_access_key: {fromEnv: AWS_SECRET}}
//!   access: {resolver: ["workflow:deploy"]}
//! ```
//!
//! And that of Puppet Relay's `relay dev metadata`: `connections: {"aws/test": {…}}, secrets: {…}`.
//!
//! `fromEnv` and `fromFile` are read here, never by the daemon. Errors say where, and never show a value:
//! the text of a seed file is not repeated in them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::connection::bindings;
use super::failure::Failure;
use super::output::say;
use super::values;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// What makes a seed file's documents whole.
pub struct SeedContext<'a> {
    /// The workflow of secrets that name none.
    pub workflow: Option<&'a str>,
    /// Who resolves a connection whose document names nobody.
    pub default_resolver: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<Metadata>,
    spec: Option<Spec>,
    connections: Option<BTreeMap<String, BTreeMap<String, FieldSource>>>,
    secrets: Option<BTreeMap<String, FieldSource>>,
    /// Relay's simulated runs.
    runs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    /// Identifier tags, as a map or as a list of KEY:VALUE.
    #[serde(default)]
    tags: TagList,
    workflow: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TagList {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Default for TagList {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl From<TagList> for Vec<String> {
    fn from(tags: TagList) -> Self {
        match tags {
            TagList::List(tags) => tags,
            TagList::Map(tags) => {
                tags.into_iter().map(|(key, value)| format!("{key}:{value}")).collect()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    integration: Option<String>,
    kind: Option<String>,
    fields: Option<BTreeMap<String, FieldSource>>,
    access: Option<Access>,
    value: Option<FieldSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Access {
    #[serde(default)]
    viewer: Vec<String>,
    #[serde(default)]
    resolver: Vec<String>,
    #[serde(default)]
    editor: Vec<String>,
}

/// Where a value comes from.
enum FieldSource {
    Environment(String),
    File(String),
    Text(String),
}

impl FieldSource {
    /// The value. Files are found from the seed file's directory.
    fn read(self, base: &Path) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Environment(variable) => values::from_environment(&variable),
            Self::File(path) => values::from_file(&base.join(path).to_string_lossy()),
            Self::Text(text) => Ok(text.into_bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for FieldSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldSourceVisitor)
    }
}

struct FieldSourceVisitor;

/// What is said of a value in any other form; the value itself is not.
const EXPECTED: &str =
    "a text, in quotes if it looks like a number or a yes, or {fromEnv: NAME} or {fromFile: PATH}";

impl<'de> Visitor<'de> for FieldSourceVisitor {
    type Value = FieldSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldSource, E> {
        Ok(FieldSource::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldSource, A::Error> {
        let expected = || de::Error::custom(format!("expected {EXPECTED}"));
        let Some(key) = map.next_key::<String>()? else { return Err(expected()) };
        let source = match key.as_str() {
            "fromEnv" => FieldSource::Environment(map.next_value()?),
            "fromFile" => FieldSource::File(map.next_value()?),
            _ => return Err(expected()),
        };
        if map.next_key::<IgnoredAny>()?.is_some() { Err(expected()) } else { Ok(source) }
    }
}

/// Reads the documents of a seed file.
///
/// # Errors
/// Where the file is wrong: line and column for its form, the resource for what it says.
pub fn read(path: &Path, context: &SeedContext<'_>) -> Result<Vec<Document>, Failure> {
    let (text, base, shown) = if path == Path::new("-") {
        (std::io::read_to_string(std::io::stdin())?, PathBuf::from("."), "stdin".to_owned())
    } else {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        (text, path.parent().unwrap_or(Path::new(".")).to_owned(), shown)
    };
    parse(&text, &base, &shown, context)
}

pub(super) fn parse(
    text: &str,
    base: &Path,
    shown: &str,
    context: &SeedContext<'_>,
) -> Result<Vec<Document>, Failure> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let raw: Vec<RawDocument> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Failure::usage(format!("{shown}: {}", explain(&error))))?;
    let mut documents = Vec::new();
    for (number, document) in raw.into_iter().enumerate() {
        let of = format!("{shown}, document {}", number + 1);
        let added = if document.api_version.is_some() || document.kind.is_some() {
            ours(document, base, context).map(|document| vec![document])
        } else {
            relay(document, base, shown, context)
        };
        documents.extend(added.map_err(|failure| Failure {
            message: format!("{of}: {}", failure.message),
            ..failure
        })?);
    }
    if documents.is_empty() {
        return Err(Failure::usage(format!("{shown} holds no document")));
    }
    Ok(documents)
}

/// What is wrong and where. What a message says of an unexpected value may show it, so that part goes.
fn explain(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let place = error
        .location()
        .map_or_else(String::new, |at| format!("line {}, column {}: ", at.line(), at.column()));
    let message = error.to_string();
    let shows_value = message.contains("invalid type") || message.contains("invalid value");
    // Of a flow mapping gone wrong, a piece of a value can end up as a key.
    let shows_key = message.contains("unknown field") || message.contains("duplicate");
    let message = match message.split_once("expected ") {
        Some((_, expected)) if shows_value => format!("expected {expected}"),
        Some((_, expected)) if shows_key => format!("unknown key, expected {expected}"),
        None if shows_key => "a key that stands there twice, or is not known".to_owned(),
        _ => message,
    };
    let first = message.lines().next().unwrap_or_default();
    // The place is said already.
    let first = first.split(" at line ").next().unwrap_or(first);
    format!("{place}{first}")
}

fn ours(
    document: RawDocument,
    base: &Path,
    context: &SeedContext<'_>,
) -> Result<Document, Failure> {
    if document.api_version.as_deref() != Some("keyhatch/v1") {
        return Err(Failure::usage("apiVersion must be keyhatch/v1"));
    }
    if document.connections.is_some() || document.secrets.is_some() || document.runs.is_some() {
        return Err(Failure::usage("a document with an apiVersion has metadata and spec only"));
    }
    let metadata = document.metadata.ok_or_else(|| Failure::usage("metadata is missing"))?;
    let spec = document.spec.ok_or_else(|| Failure::usage("spec is missing"))?;
    match document.kind.as_deref() {
        Some("Connection") => connection(metadata, spec, base, context),
        Some("Secret") => {
            let foreign =
                spec.integration.is_some() || spec.fields.is_some() || spec.access.is_some();
            if foreign || spec.kind.is_some() {
                return Err(Failure::usage(format!(
                    "secret {}: its spec has a value only",
                    metadata.name
                )));
            }
            let value = spec.value.ok_or_else(|| {
                Failure::usage(format!("secret {}: spec.value is missing", metadata.name))
            })?;
            let workflow = metadata.workflow.as_deref().or(context.workflow);
            secret(&metadata.name, workflow, value, base)
        }
        _ => Err(Failure::usage("kind must be Connection or Secret")),
    }
}

fn connection(
    metadata: Metadata,
    spec: Spec,
    base: &Path,
    context: &SeedContext<'_>,
) -> Result<Document, Failure> {
    let name = metadata.name;
    if metadata.workflow.is_some() || spec.value.is_some() {
        let text = format!("connection {name}: metadata.workflow and spec.value are for secrets");
        return Err(Failure::usage(text));
    }
    let integration = spec
        .integration
        .ok_or_else(|| Failure::usage(format!("connection {name}: spec.integration is missing")))?;
    let fields =
        read_fields(spec.fields.unwrap_or_default(), base, &format!("{integration}/{name}"))?;
    let access = match spec.access {
        Some(access) => bindings([
            (pb::Relation::Viewer, access.viewer),
            (pb::Relation::Resolver, access.resolver),
            (pb::Relation::Editor, access.editor),
        ]),
        None => default_access(context),
    };
    let kind = spec.kind.unwrap_or_default();
    let tags = metadata.tags.into();
    let document = pb::ConnectionDocument { integration, name, kind, fields, access, tags };
    Ok(Document::Connection(document))
}

fn relay(
    document: RawDocument,
    base: &Path,
    shown: &str,
    context: &SeedContext<'_>,
) -> Result<Vec<Document>, Failure> {
    if document.metadata.is_some() || document.spec.is_some() {
        return Err(Failure::usage("apiVersion: keyhatch/v1 is missing"));
    }
    if document.runs.is_some() {
        say(&format!("note: {shown}: runs: is ignored"));
    }
    let mut documents = Vec::new();
    for (reference, fields) in document.connections.unwrap_or_default() {
        let (integration, name) = reference.split_once('/').ok_or_else(|| {
            Failure::usage(format!("connections: {reference:?} is not written INTEGRATION/NAME"))
        })?;
        documents.push(Document::Connection(pb::ConnectionDocument {
            integration: integration.to_owned(),
            name: name.to_owned(),
            kind: String::new(),
            fields: read_fields(fields, base, &reference)?,
            access: default_access(context),
            tags: Vec::new(),
        }));
    }
    for (name, value) in document.secrets.unwrap_or_default() {
        documents.push(secret(&name, context.workflow, value, base)?);
    }
    Ok(documents)
}

fn secret(
    name: &str,
    workflow: Option<&str>,
    value: FieldSource,
    base: &Path,
) -> Result<Document, Failure> {
    let workflow = workflow.ok_or_else(|| {
        Failure::usage(format!("secret {name}: whose workflow is it? say --workflow NAME"))
    })?;
    let value = value.read(base).map_err(|failure| located(failure, &format!("secret {name}")))?;
    let (workflow, name) = (workflow.to_owned(), name.to_owned());
    Ok(Document::Secret(pb::SecretDocument { workflow, name, value }))
}

fn read_fields(
    fields: BTreeMap<String, FieldSource>,
    base: &Path,
    of: &str,
) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let read = fields.into_iter().map(|(name, source)| {
        let value =
            source.read(base).map_err(|failure| located(failure, &format!("{of}: {name}")))?;
        Ok((name, value))
    });
    read.collect()
}

fn located(failure: Failure, place: &str) -> Failure {
    Failure { message: format!("{place}: {}", failure.message), ..failure }
}

fn default_access(context: &SeedContext<'_>) -> Vec<pb::AccessBinding> {
    let resolvers = context.default_resolver.map(ToOwned::to_owned).into_iter().collect();
    bindings([(pb::Relation::Resolver, resolvers)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Document>, Failure> {
        let context = SeedContext { workflow: Some("w"), default_resolver: None };
        parse(text, Path::new("."), "seed.yaml", &context)
    }

    #[test]
    fn both_forms_are_read_tags_and_runs_included() {
        let relay = "connections:\n  aws/a:\n    accessKeyID: x\n    secretAccessKey: y\nsecrets:\n  s: v\n\
                     runs:\n  '1':\n    spec: !Connection [aws, a]\n";
        assert_eq!(parse_text(relay).unwrap().len(), 2);
        let ours = "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec:\n  \
                    integration: slack\n  fields: {api_token: t}\n---\napiVersion: keyhatch/v1\n\
                    kind: Secret\nmetadata: {name: s, workflow: x}\nspec: {value: v}\n";
        assert_eq!(parse_text(ours).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_located_and_no_value_is_shown() {
        let cases = [
            ("connections:\n  aws/a:\n    key: [canary]\n", "line 3"),
            ("connections:\n  aws/a: canary\n", "line 2"),
            ("connections:\n  aws/a:\n    key: 12345678\n", "line 3"),
            ("secrets: canary\n", "line 1"),
            ("connections: {\n", "line "),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec: canary\n",
                "line 4",
            ),
            ("conections: {}\n", "unknown key"),
            ("connections:\n  aws/a: {a: x, canary, b: y}\n", "line 2"),
            (
                "apiVersion: keyhatch/v1\nkind: Secret\nmetadata: {name: a}\nspec: {value: a,canary}\n",
                "line 4",
            ),
            ("secrets: {canary: a, canary: b}\n", "line 1"),
        ];
        for (text, expected) in cases {
            let message = parse_text(text).err().unwrap().message;
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("canary") && !message.contains("12345678"), "{message}");
        }
    }
}
