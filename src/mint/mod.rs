//! Makes short-lived credentials upstream: one file a protocol. It knows neither journal nor broker.

mod failure;

pub use failure::{Failure, FailureReason};

use std::time::Duration;

use crate::egress::Egress;
use crate::integration::Source;
use crate::model::{Fields, Id, RunName, StepName, Timestamp, WorkflowName};

/// Who a credential is made for.
pub struct Ask {
    /// The number of this mint; its first characters are part of what the upstream sees.
    pub mint: Id,
    /// The step's workflow.
    pub workflow: WorkflowName,
    /// Its run; `None` if several steps share the credential.
    pub run: Option<RunName>,
    /// Its name; `None` if several steps share the credential.
    pub step: Option<StepName>,
    /// The time now.
    pub now: Timestamp,
}

/// A credential that was made.
pub struct Minted {
    /// What a step gets, by the names of the kind's minted fields.
    pub fields: Fields,
    /// Its end, if the upstream tells it.
    pub expire_time: Option<Timestamp>,
    /// Its name in the upstream's audit log, which is no secret: an access key ID, a token's hash.
    pub handle: Option<String>,
    /// The upstream's number of the request, if it tells it.
    pub upstream_request: Option<String>,
}

/// For how long a credential is asked for, if its connection says so: the field `mint_seconds`.
pub fn asked_life(roots: &Fields) -> Option<Duration> {
    let (_, value) = roots.iter().find(|(name, _)| name.as_str() == "mint_seconds")?;
    std::str::from_utf8(value.expose()).ok()?.parse().ok().map(Duration::from_secs)
}

/// Makes a credential. `roots` are all fields of the connection.
///
/// # Errors
/// If the upstream cannot be reached, refuses, or answers something else.
pub async fn mint(
    _egress: &Egress,
    _source: Source,
    _roots: &Fields,
    _ask: &Ask,
) -> Result<Minted, Failure> {
    Err(Failure {
        reason: FailureReason::Unavailable,
        detail: "skeleton".to_owned(),
        retry_after: None,
        upstream_request: None,
    })
}
