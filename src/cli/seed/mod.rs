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

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::failure::Failure;
use super::output::say;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use document::{Fields, default_access, ours, read_fields, secret};
use raw::{FieldSource, RawDocument};

pub use crate::grpc::document_name as name_of;

/// What makes a seed file's documents whole.
pub struct SeedContext<'a> {
    /// The workflow of secrets that name none.
    pub workflow: Option<&'a str>,
    /// Who resolves a connection, and may view a group, whose document names nobody.
    pub default_resolver: Option<&'a str>,
}

/// A document, and where it stands.
pub struct Seed {
    /// What is to be.
    pub document: Document,
    /// Where that is written.
    pub place: Place,
}

/// A place in a file.
#[derive(Clone)]
pub struct Place {
    file: Arc<str>,
    line: u64,
    column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Documents, and what is wrong with others, each with its place.
#[derive(Default)]
pub struct Parsed {
    seeds: Vec<Seed>,
    problems: Vec<String>,
}

impl Parsed {
    /// The documents, and what is wrong with others.
    pub fn into_parts(self) -> (Vec<Seed>, Vec<String>) {
        (self.seeds, self.problems)
    }

    /// The documents.
    ///
    /// # Errors
    /// If anything is wrong, or two documents describe the same resource.
    pub fn finish(mut self) -> Result<Vec<Seed>, Failure> {
        self.problems.extend(twice(&self.seeds));
        match self.problems.as_slice() {
            [] => Ok(self.seeds),
            [only] => Err(Failure::usage(only)),
            all => {
                let message = format!("{} problems in the files; nothing was sent", all.len());
                Err(Failure { details: self.problems, ..Failure::usage(message) })
            }
        }
    }
}

fn twice(seeds: &[Seed]) -> Vec<String> {
    let mut first = BTreeMap::<String, &Place>::new();
    let again = seeds.iter().filter_map(|Seed { document, place }| {
        let name = name_of(document);
        let before = first.insert(name.clone(), place)?;
        Some(format!("{place}: {name} is described at {before}, too"))
    });
    again.collect()
}

/// The files of a directory whose names end so, by name.
///
/// # Errors
/// If it cannot be read.
pub fn files_in(directory: &Path, endings: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| {
        file.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
    });
    files.sort();
    Ok(files)
}

/// Reads every document of these files and directories.
///
/// # Errors
/// All that is wrong, with file, line and column.
pub fn read_all(paths: &[PathBuf], context: &SeedContext<'_>) -> Result<Vec<Seed>, Failure> {
    let mut parsed = Parsed::default();
    for path in paths {
        if !path.is_dir() {
            read(path, context, &mut parsed)?;
            continue;
        }
        let files = files_in(path, &["yaml", "yml"])?;
        if files.is_empty() {
            let problem = "holds no *.yaml or *.yml file; directories in it are not looked into";
            parsed.problems.push(format!("{} {problem}", path.display()));
        }
        files.iter().try_for_each(|file| read(file, context, &mut parsed))?;
    }
    parsed.finish()
}

/// Reads the documents of a seed file.
///
/// # Errors
/// If it cannot be read.
fn read(path: &Path, context: &SeedContext<'_>, parsed: &mut Parsed) -> Result<(), Failure> {
    let (text, base, shown) = if path == Path::new("-") {
        (std::io::read_to_string(std::io::stdin())?, PathBuf::from("."), "stdin".to_owned())
    } else {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        (text, path.parent().unwrap_or(Path::new(".")).to_owned(), shown)
    };
    parse(&text, &base, &shown, context, parsed);
    Ok(())
}

/// Reads the documents of a text.
pub fn parse(text: &str, base: &Path, shown: &str, context: &SeedContext<'_>, parsed: &mut Parsed) {
    let file: Arc<str> = Arc::from(shown);
    let at = |location: Option<Location>| Place {
        file: Arc::clone(&file),
        line: location.map_or(1, |at| at.line()),
        column: location.map_or(1, |at| at.column()),
    };
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Spanned<RawDocument>>(&mut bytes, options);
    let mut is_empty = true;
    for document in documents {
        is_empty = false;
        let Spanned { value, referenced, .. } = match document {
            Ok(document) => document,
            Err(error) => {
                parsed.problems.push(format!("{}: {}", at(error.location()), explain(&error)));
                continue;
            }
        };
        let place = at(Some(referenced));
        if value.api_version.is_some() || value.kind.is_some() {
            match ours(value, base, context) {
                Ok(document) => parsed.seeds.push(Seed { document, place }),
                Err(failure) => parsed.problems.push(format!("{place}: {}", failure.message)),
            }
        } else {
            relay(value, &place, &at, base, context, parsed);
        }
    }
    if is_empty {
        parsed.problems.push(format!("{shown} holds no document"));
    }
}

/// What is wrong and where. What a message says of an unexpected value may show it, so that part goes.
pub(super) fn explain(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
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
    first.split(" at line ").next().unwrap_or(first).to_owned()
}

/// Reads a document of the form that Relay's tools use.
fn relay(
    document: RawDocument,
    place: &Place,
    at: &impl Fn(Option<Location>) -> Place,
    base: &Path,
    context: &SeedContext<'_>,
    parsed: &mut Parsed,
) {
    if document.metadata.is_some() || document.spec.is_some() {
        parsed.problems.push(format!("{place}: apiVersion: keyhatch/v1 is missing"));
        return;
    }
    if document.runs.is_some() {
        say(&format!("note: {}: runs: is ignored", place.file));
    }
    let connections = document.connections.unwrap_or_default().into_iter();
    let connections = connections
        .map(|(name, Spanned { value, referenced, .. })| {
            (referenced, relay_connection(&name, value, base, context))
        })
        .collect::<Vec<_>>();
    let secrets = document.secrets.unwrap_or_default().into_iter();
    let secrets = secrets.map(|(name, Spanned { value, referenced, .. })| {
        (referenced, secret(&name, context.workflow, value, base))
    });
    for (location, made) in connections.into_iter().chain(secrets) {
        let place = at(Some(location));
        match made {
            Ok(document) => parsed.seeds.push(Seed { document, place }),
            Err(failure) => parsed.problems.push(format!("{place}: {}", failure.message)),
        }
    }
}

fn relay_connection(
    reference: &str,
    fields: BTreeMap<String, FieldSource>,
    base: &Path,
    context: &SeedContext<'_>,
) -> Result<Document, Failure> {
    let (integration, name) = reference.split_once('/').ok_or_else(|| {
        Failure::usage(format!("connections: {reference:?} is not written INTEGRATION/NAME"))
    })?;
    let Fields { given: fields, kept: kept_fields } = read_fields(fields, base, reference)?;
    Ok(Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        fields,
        kept_fields,
        access: default_access(context, pb::Relation::Resolver),
        ..Default::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Seed>, Failure> {
        let context = SeedContext { workflow: Some("w"), default_resolver: None };
        let mut parsed = Parsed::default();
        parse(text, Path::new("."), "seed.yaml", &context, &mut parsed);
        parsed.finish()
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
            ("connections:\n  aws/a:\n    key: [canary]\n", "seed.yaml:3:"),
            ("connections:\n  aws/a: canary\n", "seed.yaml:2:"),
            ("connections:\n  aws/a:\n    key: 12345678\n", "seed.yaml:3:"),
            ("secrets: canary\n", "seed.yaml:1:"),
            ("connections: {\n", "seed.yaml:"),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec: canary\n",
                "seed.yaml:4:",
            ),
            ("conections: {}\n", "unknown key"),
            ("connections:\n  aws/a: {a: x, canary, b: y}\n", "seed.yaml:2:"),
            (
                "apiVersion: keyhatch/v1\nkind: Secret\nmetadata: {name: a}\nspec: {value: a,canary}\n",
                "seed.yaml:4:",
            ),
            ("secrets: {canary: a, canary: b}\n", "seed.yaml:1:"),
        ];
        for (text, expected) in cases {
            let message = parse_text(text).err().unwrap().message;
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("canary") && !message.contains("12345678"), "{message}");
        }
    }
}
