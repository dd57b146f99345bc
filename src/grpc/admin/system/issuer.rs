//! The messages of the issuer.

use crate::broker::PublishedIssuer;
use crate::grpc::{convert, pb};
use crate::identity::{KeyUse, PublishedKey};
use crate::model::ResourceName;

pub(crate) fn response(published: PublishedIssuer) -> pb::Issuer {
    let PublishedIssuer { url, keys, documents, connections } = published;
    let (discovery_document, key_set) =
        documents.map(|documents| (documents.discovery, documents.key_set)).unwrap_or_default();
    let connections = connections.into_iter().map(ResourceName::Connection);
    pb::Issuer {
        url: url.unwrap_or_default(),
        keys: keys.iter().map(key).collect(),
        discovery_document,
        key_set,
        connections: connections.map(|name| name.to_string()).collect(),
    }
}

pub(crate) fn key(key: &PublishedKey) -> pb::IssuerKey {
    let (state, until) = match key.key_use {
        KeyUse::Next => (pb::IssuerKeyState::Next, None),
        KeyUse::Current => (pb::IssuerKeyState::Current, None),
        KeyUse::Previous { until } => (pb::IssuerKeyState::Previous, Some(until)),
    };
    pb::IssuerKey {
        id: key.id.clone(),
        state: state.into(),
        create_time: convert::timestamp(key.create_time),
        expire_time: until.and_then(convert::timestamp),
    }
}
