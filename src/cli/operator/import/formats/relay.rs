//! `--from relay`: the connections and secrets of Puppet Relay's tools. A seed file may have that form, too, and name
//! files and variables; here a value is the text that stands there, and nothing else.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, Visitor};
use serde_saphyr::Spanned;

use super::text::decoded;
use crate::cli::io::output::say;
use crate::cli::operator::import::extracted::{Entry, Extracted, connection};
use crate::cli::operator::import::input_file::ImportFile;
use crate::cli::operator::import::options::ImportOptions;
use crate::cli::operator::seed::{FileLabel, FilePosition, relay_reference};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayFile {
    connections: Option<BTreeMap<String, Spanned<BTreeMap<String, PlainText>>>>,
    secrets: Option<BTreeMap<String, Spanned<PlainText>>>,
    /// Relay's simulated runs.
    runs: Option<IgnoredAny>,
    /// Of a seed file, like the three that follow.
    #[serde(rename = "apiVersion")]
    api_version: Option<Spanned<IgnoredAny>>,
    kind: Option<Spanned<IgnoredAny>>,
    metadata: Option<Spanned<IgnoredAny>>,
    spec: Option<Spanned<IgnoredAny>>,
}

/// A value as it stands in the file.
struct PlainText(Vec<u8>);

impl<'de> Deserialize<'de> for PlainText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = PlainText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a text, in quotes if it looks like a number or a yes; fromEnv, fromFile and keep are for seed files: \
             keyhatch apply -f FILE",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PlainText, E> {
        Ok(PlainText(text.as_bytes().to_vec()))
    }
}

/// What the file becomes.
pub fn read(source: &ImportFile, wanted: &ImportOptions) -> Extracted {
    let text = match decoded(&source.bytes) {
        Ok(text) => text,
        Err(problem) => return Extracted::problem(format!("{}: {problem}", source.shown)),
    };
    let shown = FileLabel::new(&source.shown);
    let documents = shown.documents::<RelayFile>(text).into_iter();
    documents.map(|document| of_document(document, &shown, wanted)).collect()
}

fn of_document(
    document: Result<Spanned<RelayFile>, String>,
    shown: &FileLabel,
    wanted: &ImportOptions,
) -> Extracted {
    let file = match document {
        Ok(document) => document.value,
        Err(problem) => return Extracted::problem(problem),
    };
    let RelayFile { connections, secrets, runs, api_version, kind, metadata, spec } = file;
    if let Some(of_seed) = api_version.or(kind).or(metadata).or(spec) {
        let place = shown.at(Some(of_seed.referenced));
        return Extracted::problem(format!("{place}: this is a seed file: keyhatch apply -f FILE"));
    }
    if runs.is_some() {
        say(&format!("note: {shown}: runs: is ignored"));
    }
    let mut found = Extracted::default();
    for (reference, Spanned { value, referenced, .. }) in connections.unwrap_or_default() {
        let made = connection_of(&reference, value, wanted);
        add(&mut found, &shown.at(Some(referenced)), &reference, made);
    }
    for (name, Spanned { value, referenced, .. }) in secrets.unwrap_or_default() {
        add(&mut found, &shown.at(Some(referenced)), &name, secret_of(&name, value, wanted));
    }
    found
}

/// Adds what Relay calls by this name.
fn add(found: &mut Extracted, place: &FilePosition, name: &str, made: Result<Document, String>) {
    match made {
        Ok(document) => {
            let short = name.split_once('/').map(|(_, short)| short.to_owned());
            let called = [name.to_owned()].into_iter().chain(short).collect();
            found.entries.push(Entry { from: format!("{place}: {name}"), called, document });
        }
        Err(problem) => found.problems.push(format!("{place}: {problem}")),
    }
}

fn connection_of(
    reference: &str,
    fields: BTreeMap<String, PlainText>,
    wanted: &ImportOptions,
) -> Result<Document, String> {
    let reference = relay_reference(reference).map_err(|failure| failure.message)?;
    let fields = fields.into_iter().map(|(name, PlainText(value))| (name, value));
    Ok(connection(reference, "", fields, &wanted.resolvers))
}

fn secret_of(
    name: &str,
    PlainText(value): PlainText,
    wanted: &ImportOptions,
) -> Result<Document, String> {
    let Some(workflow) = wanted.workflow.clone() else {
        return Err(format!("secret {name}: whose workflow is it? say --workflow NAME"));
    };
    let name = name.to_owned();
    Ok(Document::Secret(pb::SecretDocument { workflow, name, value, kept: false }))
}
