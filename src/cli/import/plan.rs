//! What an import would do, shown before it is done.

use serde_json::{Value as Json, json};

use super::found::Found;
use crate::cli::apply::word;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, print, printable, say, table};
use crate::cli::seed::name_of;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// Says what is planned and what is left out: before a question, on stderr.
pub fn announce(found: &Found, planned: &[pb::PlannedResult]) {
    say(&text(found, planned));
    skipped(found);
}

/// Prints the plan as the answer.
///
/// # Errors
/// If it cannot be written.
pub fn answer(output: Output, found: &Found, planned: &[pb::PlannedResult]) -> Result<(), Failure> {
    let names = || {
        let names = found.entries.iter().map(|entry| printable(&name_of(&entry.document)));
        names.collect::<Vec<_>>().join("\n")
    };
    skipped(found);
    print(output, &to_json(found, planned), || text(found, planned), names)
}

/// Says what is left out.
pub fn skipped(found: &Found) {
    for skipped in &found.skipped {
        say(&format!("skipped: {}: {}", printable(&skipped.what), printable(&skipped.why)));
    }
}

fn text(found: &Found, planned: &[pb::PlannedResult]) -> String {
    let rows = found.entries.iter().zip(planned).map(|(entry, planned)| {
        let fields = fields(&entry.document).join(", ");
        let action = word(planned.action()).to_owned();
        vec![name_of(&entry.document), action, fields, entry.from.clone()]
    });
    table(&["becomes", "would be", "fields", "from"], rows.collect())
}

fn to_json(found: &Found, planned: &[pb::PlannedResult]) -> Json {
    let documents = found.entries.iter().zip(planned).map(|(entry, planned)| {
        let (name, fields) = (name_of(&entry.document), fields(&entry.document));
        let action = word(planned.action());
        json!({ "name": name, "action": action, "fields": fields, "from": entry.from })
    });
    let skipped = found.skipped.iter().map(|one| json!({ "what": one.what, "why": one.why }));
    json!({
        "documents": documents.collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
    })
}

/// The names of a document's fields; a secret has one value, and no names.
fn fields(document: &Document) -> Vec<&str> {
    match document {
        Document::Connection(one) => one.fields.keys().map(String::as_str).collect(),
        Document::Secret(_) => vec!["value"],
        Document::Group(_) | Document::Integration(_) => Vec::new(),
    }
}
