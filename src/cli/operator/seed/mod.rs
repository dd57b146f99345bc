//! Seed files: YAML documents to apply.
//!
//! There are two forms. In our own form each document is a resource:
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
//! Each has an `apiVersion`; `Secret` has `spec: {value}`, and `Integration` a title and kinds. The other form is that of
//! Puppet Relay's `relay dev metadata`: `connections: {"aws/test": {…}}, secrets: {…}`.
//!
//! `fromEnv` and `fromFile` are read here, never by the daemon, and only what [`AllowedReads`] permits. Errors say where,
//! and never show a value: they repeat nothing of the text of a seed file.

mod document;
mod origin;
mod raw;
mod reach;
mod tree;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::text::file_label;
use crate::grpc::document_name;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::model::limits::MAX_APPLY_BYTES;
use crate::sys::input;
use document::{Made, ReadFields, default_access, ours, read_fields, secret};

pub use document::SeedContext;
pub use origin::{ValueOrigin, ValueOrigins};
pub use raw::{FieldSource, RawDocument};
pub use reach::{AllowedReads, Reach};
pub use tree::{described_elsewhere, files_in, say_passed_over};
pub use yaml::{FileLabel, FilePosition, explain};

/// A document of a seed file.
pub struct Seed {
    /// The document.
    pub document: Document,
    /// Where it begins.
    pub position: FilePosition,
    /// Where its values come from.
    pub origins: ValueOrigins,
}

impl Seed {
    /// The full name of the resource.
    pub fn name(&self) -> String {
        document_name(&self.document)
    }
}

/// Where each resource is described, by its full name.
pub struct SeedPositions(BTreeMap<String, FilePosition>);

impl SeedPositions {
    /// The positions of these documents.
    pub fn of(seeds: &[Seed]) -> Self {
        Self(seeds.iter().map(|seed| (seed.name(), seed.position.clone())).collect())
    }

    /// The failure, with the position of each resource that it names. A problem of a document begins with the resource's
    /// full name and ": ", in the field path of a violation as in a sentence.
    pub fn locate(&self, status: tonic::Status) -> Failure {
        let failure = Failure::from(status);
        let located = |text: &String| {
            let position = text.split_once(": ").and_then(|(name, _)| self.0.get(name));
            position.map_or_else(|| text.clone(), |position| format!("{position}: {text}"))
        };
        Failure {
            message: located(&failure.message),
            details: failure.details.iter().map(located).collect(),
            ..failure
        }
    }
}

/// An empty file may be a mistake, and with --prune it would delete everything.
const TO_DESCRIBE_NOTHING: &str =
    "a file that is to describe nothing has one line: connections: {}";

/// The documents of seed files, and the problems of others, each with its position.
#[derive(Default)]
pub struct Parsed {
    seeds: Vec<Seed>,
    problems: Vec<String>,
}

impl Parsed {
    fn add(&mut self, position: FilePosition, made: Result<Made, Failure>) {
        match made {
            Ok((document, origins)) => self.seeds.push(Seed { document, position, origins }),
            Err(failure) => self.problems.push(format!("{position}: {}", failure.message)),
        }
    }

    /// The documents.
    ///
    /// # Errors
    /// If there is any problem, or two documents describe the same resource.
    pub fn finish(mut self) -> Result<Vec<Seed>, Failure> {
        let mut first = BTreeMap::<String, &FilePosition>::new();
        for seed in &self.seeds {
            let (name, position) = (seed.name(), &seed.position);
            if let Some(before) = first.insert(name.clone(), position) {
                let problem = format!("{position}: {name} is described at {before}, too");
                self.problems.push(problem);
            }
        }
        match self.problems.is_empty() {
            true => Ok(self.seeds),
            false => Err(Failure::of_problems(self.problems, " in the files; nothing was sent")),
        }
    }
}

/// The endings of the files of a directory that are read.
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
    parse(text, &FileLabel::new(name), &Reach::of_stdin(context.allowed), context, &mut parsed);
    parsed.finish()
}

fn read(path: &Path, context: &SeedContext<'_>, parsed: &mut Parsed) -> Result<(), Failure> {
    let shown = FileLabel::new(&file_label(path));
    let reach = match input::is_stdin(path) {
        true => Reach::of_stdin(context.allowed),
        false => Reach::of_file(path, context.allowed),
    };
    let text = input::named(path, MAX_APPLY_BYTES).and_then(input::text);
    let text = text.map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    parse(&text, &shown, &reach, context, parsed);
    Ok(())
}

/// Reads the documents of a text.
fn parse(
    text: &str,
    shown: &FileLabel,
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
            parsed.add(shown.at(Some(referenced)), ours(value, reach, context));
        } else {
            relay(value, referenced, shown, reach, context, parsed);
        }
    }
}

/// Reads a document of the form that Relay's tools use.
fn relay(
    document: RawDocument,
    location: Location,
    shown: &FileLabel,
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
        parsed.add(shown.at(Some(referenced)), made);
    }
    for (name, Spanned { value, referenced, .. }) in document.secrets.unwrap_or_default() {
        let made = secret(&name, context.workflow, value, reach);
        parsed.add(shown.at(Some(referenced)), made);
    }
}

fn relay_connection(
    reference: &str,
    fields: BTreeMap<String, FieldSource>,
    reach: &Reach<'_>,
    context: &SeedContext<'_>,
) -> Result<Made, Failure> {
    let (integration, name) = relay_reference(reference)?;
    let ReadFields { given: fields, kept: kept_fields, origins } =
        read_fields(fields, reach, reference)?;
    let document = Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        fields,
        kept_fields,
        access: default_access(context, pb::Relation::Resolver),
        ..Default::default()
    });
    Ok((document, origins))
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
        let allowed = AllowedReads::default();
        let context =
            SeedContext { workflow: Some("w"), default_resolver: None, allowed: &allowed };
        let mut parsed = Parsed::default();
        let (shown, reach) = (FileLabel::new("seed.yaml"), Reach::of_stdin(&allowed));
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
            ("conections: {}\n", "did you mean connections?"),
            (
                "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: a}\nspec: {field: {a: b}}\n",
                "seed.yaml:4:8: unknown key; did you mean fields?",
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
