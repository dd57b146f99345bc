//! Conversions between messages and the model.

mod endings;
mod names;
pub(super) mod page;
pub(super) mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::pb;
use crate::access::{Bindings, Block, Pattern, Relation};
use crate::broker::{Error, Resolved};
use crate::catalog::{Filter, Filtered};
use crate::integration::{Finding, Severity};
use crate::journal::{RestoredAs, Use};
use crate::lease::{Lease, TtlLimit};
use crate::model::{
    Invalid, KindName, Labels, Release, RequestId, ResourceName, RunAs, SendLimits, Tags,
    Timestamp, Value, WorkflowName,
};
pub(super) use endings::{ending, listed_ending, pending_endings};
pub(super) use names::{
    connection_name, executor_name, group_name, integration_name, lease_id, opening_id,
    operator_name, secret_name,
};

pub(super) fn timestamp(moment: Timestamp) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(moment.millis().rem_euclid(1000) * 1_000_000).unwrap_or(0);
    Some(prost_types::Timestamp { seconds: moment.seconds(), nanos })
}

pub(super) fn block(block: &Block) -> pb::AccessBlock {
    pb::AccessBlock {
        target: block.target.to_string(),
        principal: block.principal.clone(),
        reason: block.reason.to_string(),
        time: timestamp(block.time),
    }
}

/// A moment of the API, rounded to milliseconds.
pub(super) fn moment(given: &prost_types::Timestamp) -> Timestamp {
    let millis = given.seconds.saturating_mul(1000);
    Timestamp::from_millis(millis.saturating_add(i64::from(given.nanos / 1_000_000)))
}

/// A TTL. A negative or malformed duration becomes zero, which every limit refuses.
pub(super) fn duration(given: Option<prost_types::Duration>) -> Option<Duration> {
    given.map(|given| match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    })
}

pub(super) fn kind_name(kind: &str) -> Result<Option<KindName>, Error> {
    if kind.is_empty() { Ok(None) } else { Ok(Some(KindName::parse(kind)?)) }
}

/// What a step gets of a connection; `None` if nothing is said.
pub(super) fn release(given: i32) -> Result<Option<Release>, Error> {
    match pb::Release::try_from(given) {
        Ok(pb::Release::Minted) => Ok(Some(Release::Minted)),
        Ok(pb::Release::Stored) => Ok(Some(Release::Stored)),
        Ok(pb::Release::Unspecified) => Ok(None),
        Err(_) => Err(Invalid::new("release", &given.to_string(), "minted or stored").into()),
    }
}

pub(super) fn restored_as(given: i32) -> Result<Option<RestoredAs>, Error> {
    match pb::RestoredAs::try_from(given) {
        Ok(pb::RestoredAs::Copy) => Ok(Some(RestoredAs::Copy)),
        Ok(pb::RestoredAs::OriginalGone) => Ok(Some(RestoredAs::OriginalGone)),
        Ok(pb::RestoredAs::Unspecified) => Ok(None),
        Err(_) => {
            let (given, rule) = (given.to_string(), "a copy, or the original is gone");
            Err(Invalid::new("restored_as", &given, rule).into())
        }
    }
}

/// The limits of what is sent with a connection.
pub(super) fn send_limits(given: pb::SendLimits) -> Result<SendLimits, Error> {
    Ok(SendLimits::parse(given.methods, &given.paths)?)
}

/// The same as a message; `None` if all is admitted.
pub(super) fn send_limits_message(limits: &SendLimits) -> Option<pb::SendLimits> {
    let shown = |path: &String| if path.is_empty() { "/".to_owned() } else { path.clone() };
    let paths = limits.paths().iter().map(shown).collect();
    let message = pb::SendLimits { methods: limits.methods().to_vec(), paths };
    Some(message).filter(|_| !limits.is_open())
}

pub(super) fn release_message(release: Release) -> i32 {
    let message = match release {
        Release::Minted => pb::Release::Minted,
        Release::Stored => pb::Release::Stored,
    };
    message.into()
}

pub(super) fn values(fields: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Value> {
    fields.into_iter().map(|(name, bytes)| (name, Value::new(bytes))).collect()
}

pub(super) fn bindings(
    access: &[pb::AccessBinding],
) -> Result<BTreeMap<Relation, BTreeSet<Pattern>>, Error> {
    let mut bindings = BTreeMap::new();
    for binding in access {
        let relation = match binding.relation() {
            pb::Relation::Viewer => Relation::Viewer,
            pb::Relation::User => Relation::User,
            pb::Relation::Resolver => Relation::Resolver,
            pb::Relation::Editor => Relation::Editor,
            pb::Relation::Unspecified => {
                let rule = "viewer, user, resolver or editor";
                return Err(Error::PrincipalInvalid(Invalid::new("relation", "", rule)));
            }
        };
        let patterns: &mut BTreeSet<Pattern> = bindings.entry(relation).or_default();
        for principal in &binding.principals {
            patterns.insert(principal.parse().map_err(Error::PrincipalInvalid)?);
        }
    }
    Ok(bindings)
}

pub(super) fn tags(given: &[String]) -> Result<Tags, Error> {
    Tags::parse(given.iter().map(String::as_str)).map_err(Error::IdentifierTagInvalid)
}

pub(super) fn access(bindings: &Bindings) -> Vec<pb::AccessBinding> {
    let bound = bindings.iter().map(|(relation, patterns)| pb::AccessBinding {
        relation: self::relation(relation).into(),
        principals: patterns.map(Pattern::to_string).collect(),
    });
    bound.collect()
}

pub(super) fn relation(relation: Relation) -> pb::Relation {
    match relation {
        Relation::Viewer => pb::Relation::Viewer,
        Relation::User => pb::Relation::User,
        Relation::Resolver => pb::Relation::Resolver,
        Relation::Editor => pb::Relation::Editor,
    }
}

pub(super) fn resolved(resolved: Resolved) -> pb::ResolveResponse {
    let (integration, kind) = resolved
        .kind
        .map(|(integration, kind)| (integration.to_string(), kind.to_string()))
        .unwrap_or_default();
    let fields = resolved.fields.into_iter().map(|(name, value)| (name, value.into_exposed()));
    pb::ResolveResponse {
        name: resolved.name.to_text(),
        integration,
        kind,
        version: count(resolved.version),
        fields: fields.collect(),
        lease: Some(lease(&resolved.lease, resolved.is_renewable)),
        // The padding depends on the whole reply, so the caller adds it.
        padding: Default::default(),
    }
}

pub(super) fn lease(lease: &Lease, renewable: bool) -> pb::Lease {
    let limit = match lease.limited_by {
        TtlLimit::Connection => pb::TtlLimit::Connection,
        TtlLimit::None => pb::TtlLimit::None,
        TtlLimit::Server => pb::TtlLimit::Server,
        TtlLimit::Step => pb::TtlLimit::Step,
        TtlLimit::Upstream => pb::TtlLimit::Upstream,
    };
    pb::Lease {
        name: ResourceName::Lease(lease.id).to_text(),
        issue_time: timestamp(lease.issue_time),
        expire_time: timestamp(lease.expire_time),
        renewable,
        ttl_limited_by: limit.into(),
        credential_expire_time: lease.credential_expire_time().and_then(timestamp),
    }
}

/// The most principals that one step runs as.
const MAX_RUN_AS: usize = 100;

pub(super) fn run_as(given: &[String]) -> Result<BTreeSet<RunAs>, Error> {
    if given.len() > MAX_RUN_AS {
        return Err(Error::TooLarge(format!("a step runs as at most {MAX_RUN_AS} principals")));
    }
    let parsed = given.iter().map(|principal| principal.parse());
    parsed.collect::<Result<_, _>>().map_err(Error::PrincipalInvalid)
}

pub(super) fn labels(given: BTreeMap<String, String>) -> Result<Labels, Error> {
    Labels::parse(given).map_err(Error::LabelInvalid)
}

/// An optional text; `None` if it is empty.
pub(super) fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// The paths of a mask; `None` if the mask is absent or empty (AIP-134).
pub(super) fn mask(given: Option<prost_types::FieldMask>) -> Option<BTreeSet<String>> {
    let paths: BTreeSet<String> = given?.paths.into_iter().collect();
    Some(paths).filter(|paths| !paths.is_empty())
}

/// The client's id of a request; `None` if it gave none.
pub(super) fn request_id(given: &str) -> Result<Option<RequestId>, Error> {
    Ok(self::given(given).map(|id| RequestId::parse(&id)).transpose()?)
}

/// A count for a field of 64 bits. The API has signed numbers only.
pub(super) fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// A count for a field of 32 bits.
pub(super) fn count_i32(n: impl TryInto<i32>) -> i32 {
    n.try_into().unwrap_or(i32::MAX)
}

/// The filter of a list.
pub(super) fn filter<R: Filtered>(text: &str) -> Result<Filter<R>, Error> {
    Filter::parse(text).map_err(|invalid| Error::FilterInvalid(invalid.to_string()))
}

/// The uses of a resource by workflow.
pub(super) fn uses(users: &[(WorkflowName, Use)]) -> Vec<pb::ConnectionUse> {
    let of = |(workflow, used): &(WorkflowName, Use)| pb::ConnectionUse {
        workflow: workflow.to_string(),
        use_count: count(used.times),
        last_use_time: timestamp(used.last),
    };
    users.iter().map(of).collect()
}

/// Findings about values.
pub(super) fn findings(findings: Vec<Finding>) -> Vec<pb::Finding> {
    let of = |severity| match severity {
        Severity::Note => pb::Severity::Note,
        Severity::Warning => pb::Severity::Warning,
        Severity::Error => pb::Severity::Error,
    };
    let message = |finding: Finding| pb::Finding {
        field: finding.field,
        description: finding.description,
        severity: of(finding.severity).into(),
    };
    findings.into_iter().map(message).collect()
}
