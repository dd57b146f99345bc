//! The plan of an import, shown before anything is written.

use serde_json::{Value as Json, json};

use super::extracted::Extracted;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, extend, print, say};
use crate::cli::io::text::printable;
use crate::cli::operator::plan::{self, PlannedStep};
use crate::cli::operator::seed::{ValueOrigin, ValueOrigins};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// The broker's plan for the documents, and the objects that the readers have left out.
pub struct ImportPlan<'a> {
    found: &'a Extracted,
    steps: Vec<PlannedStep>,
}

impl<'a> ImportPlan<'a> {
    /// The plan of these documents, with the broker's answer for each.
    pub fn new(found: &'a Extracted, planned: Vec<pb::PlannedResult>) -> Self {
        let entries = found.entries.iter().zip(planned);
        let steps = entries.map(|(entry, planned)| {
            let sources =
                fields(&entry.document).map(|field| (field.to_owned(), ValueOrigin::Imported));
            PlannedStep::new(entry.from.clone(), ValueOrigins::from_iter(sources), planned)
        });
        Self { found, steps: steps.collect() }
    }

    /// Says the plan and what is left out on stderr, before a question.
    pub fn announce(&self) {
        say(&plan::to_text(&self.steps));
        skipped(self.found);
    }

    /// Prints the plan as the answer.
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
            extend(&mut document, "fields", fields(&entry.document).collect());
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

/// Says what is left out on stderr.
pub fn skipped(found: &Extracted) {
    for skipped in &found.skipped {
        say(&format!("skipped: {}: {}", printable(&skipped.what), printable(&skipped.why)));
    }
}

/// The names of the fields of a document; those of a secret are only `value`.
fn fields(document: &Document) -> impl Iterator<Item = &str> {
    let (fields, value) = match document {
        Document::Connection(one) => (Some(one.fields.keys().map(String::as_str)), None),
        Document::Secret(_) => (None, Some("value")),
        Document::Group(_) | Document::Integration(_) => (None, None),
    };
    fields.into_iter().flatten().chain(value)
}
