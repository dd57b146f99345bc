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
//! ---
//! kind: ConnectionGroup
//! metadata: {name: aws-accounts}
//! spec: {integration: aws, identifiers: [account_id], members: [prod], access: {viewer: ["workflow:deploy"]}}
//! ```
//!
//! (with `apiVersion` in each), `Secret` with `spec: {value}`, and `Integration` with a title and kinds.
//!
//! And that of Puppet Relay's `relay dev metadata`: `connections: {"aws/test": {…}}, secrets: {…}`.
//!
//! `fromEnv` and `fromFile` are read here, never by the daemon. Errors say where, and never show a value:
//! the text of a seed file is not repeated in them.

mod document;
mod raw;

use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::output::say;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use document::{default_access, ours, read_fields, secret};
use raw::RawDocument;

/// What makes a seed file's documents whole.
pub struct SeedContext<'a> {
    /// The workflow of secrets that name none.
    pub workflow: Option<&'a str>,
    /// Who resolves a connection, and may view a group, whose document names nobody.
    pub default_resolver: Option<&'a str>,
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
pub(super) fn explain(error: &serde_saphyr::Error) -> String {
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
            fields: read_fields(fields, base, &reference)?,
            access: default_access(context, pb::Relation::Resolver),
            ..Default::default()
        }));
    }
    for (name, value) in document.secrets.unwrap_or_default() {
        documents.push(secret(&name, context.workflow, value, base)?);
    }
    Ok(documents)
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
