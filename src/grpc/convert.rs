//! Between messages and the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::pb;
use crate::access::{Bindings, Pattern, Relation};
use crate::broker::{ConnectionDocument, Error, ListedConnections, Resolved};
use crate::catalog::ConnectionMetadata;
use crate::integration::{CredentialKind, FieldRule, Integration};
use crate::lease::{Lease, TtlLimit};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ConnectionRef, KindName, ResourceName, Tags, Timestamp, Value};

/// The most resources on one page, and how many if the caller does not say.
const PAGE_SIZES: (i32, i32) = (1000, 100);

pub(super) fn timestamp(moment: Timestamp) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(moment.millis().rem_euclid(1000) * 1_000_000).unwrap_or(0);
    Some(prost_types::Timestamp { seconds: moment.seconds(), nanos })
}

/// A TTL; what is negative or malformed comes out as zero, which no limit admits.
pub(super) fn duration(given: Option<prost_types::Duration>) -> Option<Duration> {
    given.map(|given| match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    })
}

pub(super) fn page_size(asked: i32) -> usize {
    let (most, default) = PAGE_SIZES;
    let size = if asked <= 0 { default } else { asked.min(most) };
    usize::try_from(size).unwrap_or(1)
}

/// A page token: opaque to clients, so that they do not build their own.
pub(super) fn to_page_token(position: &str) -> String {
    URL_SAFE_NO_PAD.encode(position)
}

pub(super) fn from_page_token<T: std::str::FromStr>(token: &str) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let position = text.and_then(|text| text.parse().ok());
    position.map(Some).ok_or(Error::PageTokenInvalid)
}

pub(super) fn connection_name(name: &str) -> Result<ConnectionRef, Error> {
    match name.parse()? {
        ResourceName::Connection(connection) => Ok(connection),
        _ => Err(crate::model::Invalid::new(
            "connection name",
            name,
            "for example connections/aws/prod",
        )
        .into()),
    }
}

pub(super) fn kind_name(kind: &str) -> Result<Option<KindName>, Error> {
    if kind.is_empty() { Ok(None) } else { Ok(Some(KindName::parse(kind)?)) }
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
            pb::Relation::Resolver => Relation::Resolver,
            pb::Relation::Editor => Relation::Editor,
            pb::Relation::Unspecified => {
                let rule = "viewer, resolver or editor";
                return Err(Error::PrincipalInvalid(crate::model::Invalid::new(
                    "relation", "", rule,
                )));
            }
        };
        let patterns: &mut BTreeSet<Pattern> = bindings.entry(relation).or_default();
        for principal in &binding.principals {
            patterns.insert(principal.parse().map_err(Error::PrincipalInvalid)?);
        }
    }
    Ok(bindings)
}

pub(super) fn document(given: pb::ConnectionDocument) -> Result<ConnectionDocument, Error> {
    Ok(ConnectionDocument {
        name: format!("{}/{}", given.integration, given.name).parse()?,
        kind: kind_name(&given.kind)?,
        fields: values(given.fields),
        tags: tags(&given.tags)?,
        access: bindings(&given.access)?,
    })
}

pub(super) fn tags(given: &[String]) -> Result<Tags, Error> {
    Tags::parse(given.iter().map(String::as_str)).map_err(Error::IdentifierTagInvalid)
}

/// A connection, with the names of the groups that it is a member of.
pub(super) fn connection(metadata: &ConnectionMetadata, groups: Vec<String>) -> pb::Connection {
    let fields = metadata.fields.iter().map(|(name, field)| pb::FieldState {
        name: name.to_string(),
        sensitive: field.sensitive,
        // What is sensitive has no value in metadata to begin with.
        value: field.value.clone(),
        update_time: timestamp(field.update_time),
        updated_by: field.updated_by.clone(),
    });
    pb::Connection {
        name: ResourceName::Connection(metadata.reference()).to_string(),
        uid: metadata.uid.to_string(),
        integration: metadata.integration.to_string(),
        kind: metadata.kind.to_string(),
        fields: BTreeMap::new(),
        field_states: fields.collect(),
        access: access(&metadata.access),
        version: count(metadata.version),
        etag: metadata.etag(),
        create_time: timestamp(metadata.create_time),
        update_time: timestamp(metadata.update_time),
        updated_by: metadata.updated_by.clone(),
        tags: metadata.tags.iter().map(|tag| tag.to_string()).collect(),
        groups,
    }
}

/// A page, ended early where it would be too large for a client to take.
pub(super) fn connection_page(
    listed: &ListedConnections,
    groups_of: impl Fn(&ConnectionMetadata) -> Vec<String>,
) -> pb::ListConnectionsResponse {
    let mut page = pb::ListConnectionsResponse::default();
    let mut bytes = 0;
    for metadata in &listed.connections {
        let one = connection(metadata, groups_of(metadata));
        bytes += prost::Message::encoded_len(&one);
        if bytes > MAX_PAGE_BYTES && !page.connections.is_empty() {
            page.next_page_token = page.connections.last().map(position_after).unwrap_or_default();
            return page;
        }
        page.connections.push(one);
    }
    if listed.next.is_some() {
        page.next_page_token = page.connections.last().map(position_after).unwrap_or_default();
    }
    page
}

fn position_after(connection: &pb::Connection) -> String {
    to_page_token(connection.name.strip_prefix("connections/").unwrap_or(&connection.name))
}

pub(super) fn access(bindings: &Bindings) -> Vec<pb::AccessBinding> {
    let binding = |(relation, patterns): (Relation, &BTreeSet<Pattern>)| pb::AccessBinding {
        relation: match relation {
            Relation::Viewer => pb::Relation::Viewer,
            Relation::Resolver => pb::Relation::Resolver,
            Relation::Editor => pb::Relation::Editor,
        }
        .into(),
        principals: patterns.iter().map(Pattern::to_string).collect(),
    };
    bindings.iter().map(binding).collect()
}

pub(super) fn resolved(resolved: Resolved) -> pb::ResolveResponse {
    let (integration, kind) = resolved
        .kind
        .map(|(integration, kind)| (integration.to_string(), kind.to_string()))
        .unwrap_or_default();
    let fields = resolved.fields.into_iter().map(|(name, value)| (name, value.into_exposed()));
    pb::ResolveResponse {
        name: resolved.name.to_string(),
        integration,
        kind,
        version: count(resolved.version),
        fields: fields.collect(),
        lease: Some(lease(&resolved.lease)),
    }
}

fn lease(lease: &Lease) -> pb::Lease {
    let limit = match lease.limited_by {
        TtlLimit::Connection => pb::TtlLimit::Connection,
        TtlLimit::None => pb::TtlLimit::None,
        TtlLimit::Server => pb::TtlLimit::Server,
        TtlLimit::Step => pb::TtlLimit::Step,
    };
    pb::Lease {
        name: ResourceName::Lease(lease.id).to_string(),
        issue_time: timestamp(lease.issue_time),
        expire_time: timestamp(lease.expire_time),
        ttl_limited_by: limit.into(),
    }
}

pub(super) fn integration(integration: &Integration) -> pb::Integration {
    let kind = |kind: &CredentialKind| pb::CredentialKind {
        name: kind.name.to_string(),
        title: kind.title.clone(),
        fields: kind.fields.iter().map(field).collect(),
    };
    pb::Integration {
        name: ResourceName::Integration(integration.name.clone()).to_string(),
        title: integration.title.clone(),
        kinds: integration.kinds.iter().map(kind).collect(),
    }
}

fn field(rule: &FieldRule) -> pb::FieldSchema {
    pb::FieldSchema {
        name: rule.name.clone(),
        description: rule.description.clone(),
        sensitive: rule.sensitive,
        required: rule.required,
        destination: rule.destination,
        aliases: rule.aliases.clone(),
        env: rule.env.clone(),
        example: rule.example.clone(),
    }
}

/// A count for the wire, which has signed numbers only.
pub(super) fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}
