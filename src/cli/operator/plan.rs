//! What documents would change, in one form for `import`, `apply` and `diff`: everything that is not a value, and from
//! where each value comes.
//!
//! ```text
//! ~ connections/aws/prod (seed.yaml:1:1)
//!     values (text): access_key_id
//!     values (variable AWS_SECRET): secret_access_key
//!     stays: region
//!   + access.resolver: workflow:deploy
//!     fields.secret_access_key: (changed)
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use super::apply::{counted, places_of, word};
use super::seed::Seed;
use crate::cli::io::failure::Failure;
use crate::cli::io::remarks;
use crate::cli::io::text::printable;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// From where a document has a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A variable of whoever runs the command.
    Environment(String),
    /// A file of theirs.
    File(String),
    /// What is imported.
    Imported,
    /// The store: what is there stays.
    Kept,
    /// The document itself.
    Text,
}

/// From where each value of a document comes, by its field.
pub type Sources = BTreeMap<String, Source>;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Imported => f.write_str("imported"),
            Self::Kept => f.write_str("kept"),
            Self::Text => f.write_str("text"),
        }
    }
}

/// A document, and what the broker would do with it.
pub struct Step {
    from: String,
    sources: Sources,
    planned: pb::PlannedResult,
}

impl Step {
    /// Of a document that comes from here. What is no text of the document itself is not shown, sensitive or not:
    /// nobody has looked at it.
    pub fn new(from: String, sources: Sources, mut planned: pb::PlannedResult) -> Self {
        for one in &mut planned.differences {
            let source = one.path.strip_prefix("fields.").map(|field| sources.get(field));
            if source.is_some_and(|source| source != Some(&Source::Text)) {
                one.sensitive = true;
                one.new = None;
                one.old = None;
            }
        }
        Self { from, sources, planned }
    }

    /// Whether anything would be written.
    pub fn changes(&self) -> bool {
        self.planned.action() != pb::ApplyAction::Unchanged
    }

    /// The resource.
    pub fn name(&self) -> &str {
        &self.planned.name
    }

    /// For scripts.
    pub fn to_json(&self) -> Json {
        let difference = |one: &pb::Difference| json!({ "path": one.path, "old": one.old, "new": one.new, "sensitive": one.sensitive, "removed": one.removed });
        let sources = self.sources.iter().map(|(field, source)| (field, source.to_string()));
        json!({
            "name": self.planned.name,
            "action": word(self.planned.action()),
            "from": self.from,
            "sources": sources.collect::<BTreeMap<_, _>>(),
            "differences": self.planned.differences.iter().map(difference).collect::<Vec<_>>(),
            "untold_differences": self.planned.untold_differences,
            "staying_fields": self.planned.staying_fields,
            "findings": self.planned.findings.iter().map(remarks::to_json).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let (sign, is_new) = match self.planned.action() {
            pb::ApplyAction::Created => ("+", true),
            pb::ApplyAction::Changed => ("~", false),
            pb::ApplyAction::Unchanged | pb::ApplyAction::Unspecified => ("=", false),
        };
        let head = format!("{sign} {} ({})", self.planned.name, printable(&self.from));
        if !self.changes() {
            return head;
        }
        let mut by_source: BTreeMap<&Source, Vec<&str>> = BTreeMap::new();
        for (field, source) in &self.sources {
            by_source.entry(source).or_default().push(field);
        }
        let values = by_source.into_iter().map(|(source, fields)| {
            let text = format!("values ({source}): {}", fields.join(", "));
            format!("    {}", printable(&text))
        });
        // That every value of a new resource is new need not be said.
        let is_value = |path: &str| path == "value" || path.starts_with("fields.");
        let told = self.planned.differences.iter().filter(|one| !(is_new && is_value(&one.path)));
        let untold = Some(self.planned.untold_differences).filter(|count| *count > 0);
        let untold =
            untold.map(|count| format!("    and {count} more, which the broker does not tell"));
        let staying = self.planned.staying_fields.as_slice();
        let staying = Some(staying.join(", ")).filter(|names| !names.is_empty());
        let staying = staying.map(|names| format!("    stays: {}", printable(&names)));
        let odd = self.planned.findings.iter();
        let odd = odd.map(|finding| format!("    {}", remarks::planned(finding)));
        let lines = std::iter::once(head).chain(values).chain(staying).chain(odd);
        let lines = lines.chain(told.map(line)).chain(untold);
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn line(one: &pb::Difference) -> String {
    let path = printable(&one.path);
    match (one.sensitive, &one.old, &one.new) {
        _ if one.removed && one.old.is_none() => format!("  - {path}: (removed)"),
        (true, ..) | (_, None, None) => format!("    {path}: (changed)"),
        (_, Some(old), Some(new)) => {
            format!("    {path}: {} -> {}", printable(old), printable(new))
        }
        (_, None, Some(new)) => format!("  + {path}: {}", printable(new)),
        (_, Some(old), None) => format!("  - {path}: {}", printable(old)),
    }
}

/// All steps, for people.
pub fn to_text<'a>(steps: impl IntoIterator<Item = &'a Step>) -> String {
    steps.into_iter().map(Step::to_text).collect::<Vec<_>>().join("\n")
}

/// Asks the broker what it would do with the documents of files.
///
/// # Errors
/// As `ApplyService.Plan`, with the place of each resource that it names.
pub async fn of_seeds(channel: Channel, seeds: &[Seed]) -> Result<Vec<Step>, Failure> {
    let documents = seeds.iter().map(|seed| seed.document.clone()).collect();
    let planned = ask(channel, documents).await;
    let planned = planned.map_err(|status| places_of(seeds).located(status))?;
    let steps = seeds
        .iter()
        .zip(planned)
        .map(|(seed, planned)| Step::new(seed.place.to_string(), seed.sources.clone(), planned));
    Ok(steps.collect())
}

/// Asks the broker what it would do with documents.
///
/// # Errors
/// As `ApplyService.Plan`.
pub async fn ask(
    channel: Channel,
    documents: Vec<Document>,
) -> Result<Vec<pb::PlannedResult>, tonic::Status> {
    let message = |document| {
        let document = pb::ApplyRequest { document: Some(document) };
        pb::PlanRequest { document: Some(document) }
    };
    let requests = counted("comparing", documents.into_iter().map(message).collect());
    Ok(ApplyServiceClient::new(channel).plan(requests).await?.into_inner().results)
}
