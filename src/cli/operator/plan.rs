//! The plan of documents, as `import`, `apply` and `diff` show it: every difference but sensitive values, and the origin
//! of each value.
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

use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use super::seed::{Seed, SeedPositions, ValueOrigin, ValueOrigins};
use crate::cli::io::failure::Failure;
use crate::cli::io::progress::counted;
use crate::cli::io::remarks;
use crate::cli::io::text::printable;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// A document, and what the broker would do with it.
pub struct PlannedStep {
    from: String,
    origins: ValueOrigins,
    planned: pb::PlannedResult,
}

impl PlannedStep {
    /// The plan of a document from this place. Only values that the document itself spells are shown: nobody has looked
    /// at the others, whether they are sensitive or not.
    pub fn new(from: String, origins: ValueOrigins, mut planned: pb::PlannedResult) -> Self {
        for one in &mut planned.differences {
            let origin = one.path.strip_prefix("fields.").map(|field| origins.get(field));
            if origin.is_some_and(|origin| origin != Some(&ValueOrigin::Text)) {
                one.sensitive = true;
                one.new = None;
                one.old = None;
            }
        }
        Self { from, origins, planned }
    }

    /// True if the resource would be written.
    pub fn changes(&self) -> bool {
        self.planned.action() != pb::ApplyAction::Unchanged
    }

    /// The resource.
    pub fn name(&self) -> &str {
        &self.planned.name
    }

    /// For scripts.
    pub fn to_json(&self) -> Json {
        let planned = &self.planned;
        let difference = |one: &pb::Difference| json!({ "path": one.path, "old": one.old, "new": one.new, "sensitive": one.sensitive, "removed": one.removed });
        let origins = self.origins.iter().map(|(field, origin)| (field, origin.to_string()));
        json!({
            "name": planned.name,
            "action": action_name(planned.action()),
            "from": self.from,
            "sources": origins.collect::<BTreeMap<_, _>>(),
            "differences": planned.differences.iter().map(difference).collect::<Vec<_>>(),
            "untold_differences": planned.untold_differences,
            "staying_fields": planned.staying_fields,
            "findings": planned.findings.iter().map(remarks::to_json).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let planned = &self.planned;
        let (sign, is_new) = match planned.action() {
            pb::ApplyAction::Created => ("+", true),
            pb::ApplyAction::Changed => ("~", false),
            pb::ApplyAction::Unchanged | pb::ApplyAction::Unspecified => ("=", false),
        };
        let mut lines = vec![format!("{sign} {} ({})", planned.name, printable(&self.from))];
        if !self.changes() {
            return lines.concat();
        }
        let mut fields_by_origin: BTreeMap<&ValueOrigin, Vec<&str>> = BTreeMap::new();
        for (field, origin) in &self.origins {
            fields_by_origin.entry(origin).or_default().push(field);
        }
        for (origin, fields) in fields_by_origin {
            let text = format!("values ({origin}): {}", fields.join(", "));
            lines.push(format!("    {}", printable(&text)));
        }
        if !planned.staying_fields.is_empty() {
            lines.push(format!("    stays: {}", printable(&planned.staying_fields.join(", "))));
        }
        lines.extend(planned.findings.iter().map(|one| format!("    {}", remarks::planned(one))));
        // Every value of a new resource is new.
        let is_value = |path: &str| path == "value" || path.starts_with("fields.");
        let shown = planned.differences.iter().filter(|one| !(is_new && is_value(&one.path)));
        lines.extend(shown.map(line));
        if planned.untold_differences > 0 {
            let count = planned.untold_differences;
            lines.push(format!("    and {count} more, which the broker does not list"));
        }
        lines.join("\n")
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

/// The word for what happens to the resource of a document.
pub(crate) fn action_name(action: pb::ApplyAction) -> &'static str {
    match action {
        pb::ApplyAction::Changed => "changed",
        pb::ApplyAction::Created => "created",
        pb::ApplyAction::Unchanged | pb::ApplyAction::Unspecified => "unchanged",
    }
}

/// All steps, for people.
pub fn to_text<'a>(steps: impl IntoIterator<Item = &'a PlannedStep>) -> String {
    steps.into_iter().map(PlannedStep::to_text).collect::<Vec<_>>().join("\n")
}

/// Asks the broker what it would do with the documents of files; as `ApplyService.Plan`, with the position of each
/// resource that an error names.
pub async fn of_seeds(channel: Channel, seeds: &[Seed]) -> Result<Vec<PlannedStep>, Failure> {
    let documents = seeds.iter().map(|seed| seed.document.clone()).collect();
    let planned = ask(channel, documents).await;
    let planned = planned.map_err(|status| SeedPositions::of(seeds).locate(status))?;
    let steps = seeds.iter().zip(planned).map(|(seed, planned)| {
        PlannedStep::new(seed.position.to_string(), seed.origins.clone(), planned)
    });
    Ok(steps.collect())
}

/// Asks the broker what it would do with documents; as `ApplyService.Plan`.
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
