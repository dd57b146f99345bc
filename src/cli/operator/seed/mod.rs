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
//! `fromEnv` and `fromFile` are read here, never by the daemon, and only what [`Allowed`] lets them name. Errors say
//! where, and never show a value: the text of a seed file is not repeated in them.

mod document;
mod raw;
mod reach;
mod tree;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use super::plan::Sources;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;
use document::{Fields, default_access, ours, read_fields, secret};
use raw::{FieldSource, RawDocument};

pub use crate::grpc::document_name as name_of;
pub use reach::{Allowed, Reach};
pub use tree::{described_elsewhere, files_in, say_passed_over};
pub use yaml::{Place, Shown, explain};

/// What makes a seed file's documents whole.
pub struct SeedContext<'a> {
    /// The workflow of secrets that name none.
    pub workflow: Option<&'a str>,
    /// Who resolves a connection, and may view a group, whose document names nobody.
    pub default_resolver: Option<&'a str>,
    /// What documents may have read.
    pub allowed: &'a Allowed,
}

/// A document, and where it stands.
pub struct Seed {
    /// What is to be.
    pub document: Document,
    /// Where that is written.
    pub place: Place,
    /// From where its values come.
    pub sources: Sources,
}

/// A file that is empty by mistake is not the wish that nothing be there.
const TO_DESCRIBE_NOTHING: &str = "if nothing is to be described, a file says so: connections: {}";

/// What one document describes.
type Made = (Document, Sources);

/// Documents, and what is wrong with others, each with its place.
#[derive(Default)]
pub struct Parsed {
    seeds: Vec<Seed>,
    problems: Vec<String>,
}

impl Parsed {
    fn take(&mut self, place: Place, made: Result<Made, Failure>) {
        match made {
            Ok((document, sources)) => self.seeds.push(Seed { document, place, sources }),
            Err(failure) => self.problems.push(format!("{place}: {}", failure.message)),
        }
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
    let again = seeds.iter().filter_map(|Seed { document, place, .. }| {
        let name = name_of(document);
        let before = first.insert(name.clone(), place)?;
        Some(format!("{place}: {name} is described at {before}, too"))
    });
    again.collect()
}

/// What of a directory is read.
pub const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Reads every document of these files and directories.
///
/// # Errors
/// All that is wrong, with file, line and column.
pub fn read_all(paths: &[PathBuf], context: &SeedContext<'_>) -> Result<Vec<Seed>, Failure> {
    say_passed_over(paths, &ENDINGS);
    let mut parsed = Parsed::default();
    for path in paths {
        if !path.is_dir() {
            read(path, context, &mut parsed)?;
            continue;
        }
        let files = files_in(path, &ENDINGS)?;
        if files.is_empty() {
            let problem = "holds no *.yaml or *.yml file; directories in it are not looked into";
            parsed.problems.push(format!("{} {problem}; {TO_DESCRIBE_NOTHING}", path.display()));
        }
        files.iter().try_for_each(|file| read(file, context, &mut parsed))?;
    }
    parsed.finish()
}

/// Reads the documents of one text that is not in a file. `name` stands for the file in errors.
///
/// # Errors
/// As [`Parsed::finish`].
pub fn parse_text(text: &str, name: &str, context: &SeedContext<'_>) -> Result<Vec<Seed>, Failure> {
    let mut parsed = Parsed::default();
    parse(text, &Shown::new(name), &Reach::of_stdin(context.allowed), context, &mut parsed);
    parsed.finish()
}

/// Reads the documents of a seed file.
///
/// # Errors
/// If it cannot be read.
fn read(path: &Path, context: &SeedContext<'_>, parsed: &mut Parsed) -> Result<(), Failure> {
    let (read, reach, shown) = match path == Path::new("-") {
        true => {
            (input::stdin(MAX_APPLY_BYTES), Reach::of_stdin(context.allowed), Shown::new("stdin"))
        }
        false => (
            input::file(path, MAX_APPLY_BYTES),
            Reach::of_file(path, context.allowed),
            Shown::new(&path.display().to_string()),
        ),
    };
    let text = read.and_then(input::text);
    let text = text.map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    parse(&text, &shown, &reach, context, parsed);
    Ok(())
}

/// Reads the documents of a text.
fn parse(
    text: &str,
    shown: &Shown,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
    parsed: &mut Parsed,
) {
    let documents = shown.documents::<RawDocument>(text);
    if documents.is_empty() {
        parsed.problems.push(format!("{shown} holds no document; {TO_DESCRIBE_NOTHING}"));
    }
    for document in documents {
        let Spanned { value, referenced, .. } = match document {
            Ok(document) => document,
            Err(problem) => {
                parsed.problems.push(problem);
                continue;
            }
        };
        if value.api_version.is_some() || value.kind.is_some() {
            parsed.take(shown.at(Some(referenced)), ours(value, reach, context));
        } else {
            relay(value, referenced, shown, reach, context, parsed);
        }
    }
}

/// Reads a document of the form that Relay's tools use.
fn relay(
    document: RawDocument,
    location: Location,
    shown: &Shown,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
    parsed: &mut Parsed,
) {
    if document.metadata.is_some() || document.spec.is_some() {
        let place = shown.at(Some(location));
        parsed.problems.push(format!("{place}: apiVersion: keyhatch/v1 is missing"));
        return;
    }
    if document.runs.is_some() {
        say(&format!("note: {shown}: runs: is ignored"));
    }
    for (name, Spanned { value, referenced, .. }) in document.connections.unwrap_or_default() {
        let made = relay_connection(&name, value, reach, context);
        parsed.take(shown.at(Some(referenced)), made);
    }
    for (name, Spanned { value, referenced, .. }) in document.secrets.unwrap_or_default() {
        let made = secret(&name, context.workflow, value, reach);
        parsed.take(shown.at(Some(referenced)), made);
    }
}

fn relay_connection(
    reference: &str,
    fields: BTreeMap<String, FieldSource>,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
) -> Result<Made, Failure> {
    let (integration, name) = relay_reference(reference)?;
    let Fields { given: fields, kept: kept_fields, sources } =
        read_fields(fields, reach, reference)?;
    let document = Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        fields,
        kept_fields,
        access: default_access(context, pb::Relation::Resolver),
        ..Default::default()
    });
    Ok((document, sources))
}

/// Integration and name of a connection under `connections:`.
///
/// # Errors
/// If it is not written `INTEGRATION/NAME`.
pub fn relay_reference(reference: &str) -> Result<(&str, &str), Failure> {
    reference.split_once('/').ok_or_else(|| {
        Failure::usage(format!("connections: {reference:?} is not written INTEGRATION/NAME"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Seed>, Failure> {
        let allowed = Allowed::default();
        let context =
            SeedContext { workflow: Some("w"), default_resolver: None, allowed: &allowed };
        let mut parsed = Parsed::default();
        let (shown, reach) = (Shown::new("seed.yaml"), Reach::of_stdin(&allowed));
        parse(text, &shown, &reach, &context, &mut parsed);
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
            ("conections: {}\n", "is connections meant?"),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec: {field: {a: b}}\n",
                "seed.yaml:4:8: unknown key; is fields meant?",
            ),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a, tags: {id: 12345678}}\n",
                "seed.yaml:3:28: expected a text for a tag: write what looks like a number",
            ),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a, tags: [12345678]}\n",
                "seed.yaml:3:28: expected a text for a tag",
            ),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a, tags: canary}\n",
                "expected tags as KEY: VALUE",
            ),
        ];
        for (text, expected) in cases {
            let message = parse_text(text).err().unwrap().message;
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("canary") && !message.contains("12345678"), "{message}");
        }
    }
}
