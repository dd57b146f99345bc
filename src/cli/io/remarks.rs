//! The findings of the broker about values. They never show a value.

use serde_json::{Value as Json, json};

use super::output::say;
use super::text::printable;
use crate::grpc::pb;

/// Says on stderr what is odd about the values of a resource that was written.
pub fn announce(of: &str, findings: &[pb::Finding]) {
    for finding in findings {
        say(&format!("{}: {}", word_of_writing(finding), located(of, finding)));
    }
}

/// A finding of a plan, for people.
pub fn planned(finding: &pb::Finding) -> String {
    format!("{}: {}", word_of_writing(finding), located("", finding))
}

/// A finding of a test, for people.
pub fn tested(finding: &pb::Finding) -> String {
    format!("{}: {}", word(finding), located("", finding))
}

/// For scripts.
pub fn to_json(finding: &pb::Finding) -> Json {
    let (field, description) = (&finding.field, &finding.description);
    json!({ "field": field, "severity": word(finding), "description": description })
}

fn word(finding: &pb::Finding) -> &'static str {
    match finding.severity() {
        pb::Severity::Note => "note",
        pb::Severity::Warning | pb::Severity::Unspecified => "warning",
        pb::Severity::Error => "error",
    }
}

/// The command that writes has not failed, so an error is only a warning.
fn word_of_writing(finding: &pb::Finding) -> &'static str {
    if finding.severity() == pb::Severity::Error { "warning" } else { word(finding) }
}

fn located(of: &str, finding: &pb::Finding) -> String {
    let parts = [of, &finding.field, &finding.description];
    let parts = parts.into_iter().filter(|part| !part.is_empty()).map(printable);
    parts.collect::<Vec<_>>().join(": ")
}
