//! What an import would do, shown before it is done.

use serde_json::{Value as Json, json};

use super::found::Found;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, print, say};
use crate::cli::io::text::printable;
use crate::cli::operator::plan;
use crate::cli::operator::plan::{Source, Sources, Step};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// What the broker would do with what was found.
pub struct Plan<'a> {
    found: &'a Found,
    steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    /// Of what was found, as the broker answers of each document.
    pub fn new(found: &'a Found, planned: Vec<pb::PlannedResult>) -> Self {
        let entries = found.entries.iter().zip(planned);
        let steps = entries.map(|(entry, planned)| {
            let sources = fields(&entry.document).map(|field| (field.to_owned(), Source::Imported));
            Step::new(entry.from.clone(), Sources::from_iter(sources), planned)
        });
        Self { found, steps: steps.collect() }
    }

    /// Says what is planned and what is left out: before a question, on stderr.
    pub fn announce(&self) {
        say(&plan::to_text(&self.steps));
        skipped(self.found);
    }

    /// Prints it as the answer.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn answer(&self, output: Output) -> Result<(), Failure> {
        let names = || {
            let names = self.steps.iter().map(|step| printable(step.name()));
            names.collect::<Vec<_>>().join("\n")
        };
        skipped(self.found);
        print(output, &self.to_json(), || plan::to_text(&self.steps), names)
    }

    fn to_json(&self) -> Json {
        let documents = self.steps.iter().zip(&self.found.entries).map(|(step, entry)| {
            let mut document = step.to_json();
            let fields: Vec<_> = fields(&entry.document).collect();
            if let Some(document) = document.as_object_mut() {
                document.insert("fields".to_owned(), json!(fields));
            }
            document
        });
        let skipped = &self.found.skipped;
        let skipped = skipped.iter().map(|one| json!({ "what": one.what, "why": one.why }));
        json!({
            "documents": documents.collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
        })
    }
}

/// Says what is left out.
pub fn skipped(found: &Found) {
    for skipped in &found.skipped {
        say(&format!("skipped: {}: {}", printable(&skipped.what), printable(&skipped.why)));
    }
}

/// The names of a document's fields; a secret has one value, and no names.
fn fields(document: &Document) -> impl Iterator<Item = &str> {
    let (fields, value) = match document {
        Document::Connection(one) => (Some(one.fields.keys().map(String::as_str)), None),
        Document::Secret(_) => (None, Some("value")),
        Document::Group(_) | Document::Integration(_) => (None, None),
    };
    fields.into_iter().flatten().chain(value)
}
