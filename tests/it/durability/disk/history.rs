//! The acknowledged history of one connection, secret or step, and the states that a later check may find.

use keyhatch::grpc::pb;

use crate::harness::resolver;

/// Sizes of values: one chunk of a record, and several.
const VALUE_BYTES: [usize; 4] = [24, 300, 5_000, 20_000];

/// The state of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// The number of its value.
    pub value: u64,
    /// True if workflow w may resolve it.
    pub is_allowed: bool,
    /// Uid, version and etag, if an answer had them.
    pub stamp: Option<(String, i64, String)>,
}

#[derive(Clone, Debug)]
pub struct Known {
    /// `None` if the resource does not exist.
    pub form: Option<Form>,
    /// The length of the record at the acknowledgement.
    pub acknowledged: Option<u64>,
}

/// The history of one connection or secret, in order.
#[derive(Clone, Debug)]
pub struct Life(pub Vec<Known>);

/// The history of one step.
#[derive(Clone, Debug)]
pub struct StepLife {
    pub opened: pb::OpenedStep,
    pub run: String,
    pub leases: Vec<String>,
    pub acknowledged: u64,
    pub is_closing: bool,
    pub closed: Option<u64>,
}

/// The required state of a step that was opened and not closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OpenSteps {
    /// The step may be unknown, because its line may not be synced.
    MayBeLost,
    /// The step is known. It may be closed if its directory was lost.
    AreKnown,
    /// The step is open.
    AreOpen,
}

/// The strictness of a check.
#[derive(Clone, Copy)]
pub struct Check {
    /// Everything that was acknowledged up to this length of the record must be there.
    pub length: u64,
    /// The required state of a step that was opened and not closed.
    pub open_steps: OpenSteps,
    /// One in this many values is resolved.
    pub one_in: usize,
}

pub fn value(number: u64) -> String {
    let length = VALUE_BYTES[(number % 4) as usize];
    format!("{number:015x}-").repeat(length / 16 + 1)[..length].to_owned()
}

pub fn access(is_allowed: bool) -> Vec<pb::AccessBinding> {
    resolver(&[if is_allowed { "workflow:w" } else { "workflow:other" }])
}

pub fn is_secret(name: &str) -> bool {
    name.starts_with("workflows/")
}

/// The reference by which a step asks for a resource.
pub fn reference(name: &str) -> String {
    match name.strip_prefix("workflows/w/secrets/") {
        Some(secret) => format!("secret:{secret}"),
        None => name.trim_start_matches("connections/").to_owned(),
    }
}

pub fn stamp(connection: &pb::Connection) -> Option<(String, i64, String)> {
    Some((connection.uid.clone(), connection.version, connection.etag.clone()))
}

pub fn expected(name: &str, form: Option<&Form>) -> Result<String, String> {
    match form {
        Some(form) if form.is_allowed => Ok(value(form.value)),
        None if is_secret(name) => Err("SECRET_NOT_FOUND".to_owned()),
        _ => Err("RESOLVE_DENIED".to_owned()),
    }
}

impl Form {
    /// True if the seen state can be this state.
    pub fn is_seen(&self, seen: &Self) -> bool {
        self.is_allowed == seen.is_allowed && (self.stamp.is_none() || self.stamp == seen.stamp)
    }
}

impl Life {
    pub fn new() -> Self {
        Self(vec![Known { form: None, acknowledged: Some(0) }])
    }

    pub fn last(&self) -> &Known {
        self.0.last().unwrap()
    }

    /// The states that a check may find for a record of this length: the last acknowledged state, and the later
    /// requested states up to the next acknowledgement.
    pub fn possible(&self, length: u64) -> Vec<Option<Form>> {
        let is_told = |known: &Known| known.acknowledged.is_some_and(|told| told <= length);
        let last = self.0.iter().rposition(is_told).unwrap_or(0);
        let next = self.0[last + 1..].iter().position(|known| known.acknowledged.is_some());
        let end = next.map_or(self.0.len(), |next| last + 2 + next);
        self.0[last..end].iter().map(|known| known.form.clone()).collect()
    }
}

impl StepLife {
    pub fn problem(&self, found: Option<&pb::RunStep>, check: Check) -> Option<String> {
        let is_closed = self.closed.is_some_and(|closed| closed <= check.length);
        let name = &self.opened.name;
        if !is_closed {
            let is_open = found.is_some_and(|found| found.close_reason.is_empty());
            let is_kept = match check.open_steps {
                OpenSteps::MayBeLost => true,
                OpenSteps::AreKnown => found.is_some(),
                OpenSteps::AreOpen => is_open || self.is_closing,
            };
            return (!is_kept).then(|| format!("{name}: it was open"));
        }
        let Some(found) = found else { return Some(format!("{name}: closed, and forgotten")) };
        if found.close_reason != "executor" {
            return Some(format!("{name}: closed, and found {:?}", found.close_reason));
        }
        let is_revoked = |lease: &String| {
            let found = found.received.iter().find(|received| received.lease == *lease);
            found.is_some_and(|received| received.state() == pb::LeaseState::Revoked)
        };
        let lost = self.leases.iter().find(|lease| !is_revoked(lease));
        lost.map(|lease| format!("{name}: {lease} is not revoked"))
    }
}
