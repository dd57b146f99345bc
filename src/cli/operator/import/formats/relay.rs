//! `--from relay`: the connections and secrets of Puppet Relay's tools. A seed file may have the same form, and name
//! files and variables; an imported value is only the text in the file.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::text::decoded;
use crate::cli::io::output::say;
use crate::cli::operator::import::extracted::{Entry, Extracted, connection};
use crate::cli::operator::import::input_file::ImportFile;
use crate::cli::operator::import::options::ImportOptions;
use crate::cli::operator::seed::{
    FieldSource, FileLabel, FilePosition, RawDocument, relay_reference,
};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// Reads a file.
pub fn read(file: &ImportFile, options: &ImportOptions) -> Extracted {
    let text = match decoded(&file.bytes) {
        Ok(text) => text,
        Err(problem) => return Extracted::problem(format!("{}: {problem}", file.shown)),
    };
    let label = FileLabel::new(&file.shown);
    let documents = label.documents::<RawDocument>(text).into_iter();
    let read = |document| match document {
        Ok(document) => of_document(document, &label, options),
        Err(problem) => Extracted::problem(problem),
    };
    documents.map(read).collect()
}

fn of_document(
    document: Spanned<RawDocument>,
    label: &FileLabel,
    options: &ImportOptions,
) -> Extracted {
    let Spanned { value: document, referenced, .. } = document;
    if document.is_ours() {
        let position = label.at(Some(referenced));
        return Extracted::problem(format!(
            "{position}: this is a seed file: keyhatch apply -f FILE"
        ));
    }
    if document.runs.is_some() {
        say(&format!("note: {label}: runs: is ignored"));
    }
    let mut found = Extracted::default();
    for (reference, Spanned { value, referenced, .. }) in document.connections.unwrap_or_default() {
        let made = connection_of(&reference, value, options);
        add(&mut found, &label.at(Some(referenced)), &reference, made);
    }
    for (name, Spanned { value, referenced, .. }) in document.secrets.unwrap_or_default() {
        let made = secret_of(&name, value, options);
        add(&mut found, &label.at(Some(referenced)), &name, made);
    }
    found
}

/// Adds a document that Relay calls by this name.
fn add(found: &mut Extracted, position: &FilePosition, name: &str, made: Result<Document, String>) {
    match made {
        Ok(document) => {
            let short = name.split_once('/').map(|(_, short)| short.to_owned());
            let called = [name.to_owned()].into_iter().chain(short).collect();
            found.entries.push(Entry { from: format!("{position}: {name}"), called, document });
        }
        Err(problem) => found.problems.push(format!("{position}: {problem}")),
    }
}

fn connection_of(
    reference: &str,
    fields: BTreeMap<String, FieldSource>,
    options: &ImportOptions,
) -> Result<Document, String> {
    let reference = relay_reference(reference).map_err(|failure| failure.message)?;
    let fields = fields.into_iter().map(|(name, value)| Ok((name, bytes_of(value)?)));
    let fields: Vec<_> = fields.collect::<Result<_, String>>()?;
    Ok(connection(reference, "", fields, options.access()))
}

fn secret_of(name: &str, value: FieldSource, options: &ImportOptions) -> Result<Document, String> {
    let Some(workflow) = options.workflow.clone() else {
        return Err(format!("secret {name} has no workflow; give --workflow NAME"));
    };
    let (name, value) = (name.to_owned(), bytes_of(value)?);
    Ok(Document::Secret(pb::SecretDocument { workflow, name, value, kept: false }))
}

fn bytes_of(value: FieldSource) -> Result<Vec<u8>, String> {
    match value {
        FieldSource::Text(text) => Ok(text.into_bytes()),
        FieldSource::Environment(_) | FieldSource::File(_) | FieldSource::Kept => {
            Err("fromEnv, fromFile and keep are for seed files: keyhatch apply -f FILE".to_owned())
        }
    }
}
