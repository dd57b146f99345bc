//! Where a request goes, by the connection's public fields: known before anything is opened (pure).

use super::request::SendRequest;
use crate::broker::resolve::authorize::Grant;
use crate::broker::resolve::refusal::Refusal;
use crate::catalog::{Catalog, Connection, ConnectionMetadata};
use crate::egress::{Address, Method, SubPath};
use crate::integration::{CredentialKind, SendRule};
use crate::model::{FieldName, Id, Release, ResourceName, SendLimits};

/// Where a request goes.
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) rule: SendRule,
    pub(super) kind: CredentialKind,
    /// Certificates, PEM, that replace the system's roots.
    pub(super) ca_certificate: Option<Vec<u8>>,
    /// The connection's uid and version.
    pub(super) of: (Id, u64),
}

impl Plan {
    /// The plan of a request with the connection of a grant, which is in this catalogue.
    ///
    /// # Errors
    /// Why no request can be made. The text names fields and shows no value.
    pub(super) fn of(
        catalog: &Catalog,
        grant: &Grant,
        asked: &SendRequest,
    ) -> Result<Self, Refusal> {
        let unsendable = |why: String| Refusal::Unsendable(why);
        let connection = connection(catalog, &grant.name).ok_or(Refusal::Denied)?;
        let metadata = &connection.metadata;
        let integration = catalog.integration(&metadata.integration);
        let kind = integration.and_then(|found| found.kind(metadata.kind.as_str()));
        let kind = kind.filter(|kind| !kind.sends.is_empty()).ok_or_else(|| {
            unsendable(format!("nothing says how requests of the kind {} are made", metadata.kind))
        })?;
        let rule = kind.send(&asked.service).ok_or_else(|| {
            unsendable(format!("its upstream has no service {:?}", asked.service))
        })?;
        if rule.own_parts && kind.source.is_some() && metadata.release == Release::Stored {
            return Err(unsendable("it is not minted; set its release to minted".to_owned()));
        }
        let address = rule.address(|field| public(metadata, field)).map_err(unsendable)?;
        let address = Address::parse(&address).map_err(|fault| unsendable(fault.to_string()))?;
        if !Limited::of(asked).is_within(&metadata.send) {
            return Err(Refusal::NotSent);
        }
        check_step(metadata, rule, asked)?;
        Ok(Self {
            address,
            ca_certificate: public(metadata, &rule.ca_certificate).map(String::into_bytes),
            rule: rule.clone(),
            kind: kind.clone(),
            of: (metadata.uid, metadata.version),
        })
    }
}

/// What the limits of a connection are about, of one request.
pub(super) struct Limited {
    method: Method,
    path: SubPath,
    /// True if a header or parameter names another method, which would get round the limits.
    names_method: bool,
}

impl Limited {
    pub(super) fn of(asked: &SendRequest) -> Self {
        let names_method =
            asked.headers.other_method().is_some() || asked.path.has_parameter("_method");
        Self { method: asked.method.clone(), path: asked.path.clone(), names_method }
    }

    /// True if the limits of a connection of this catalogue admit the request.
    pub(super) fn is_admitted(&self, catalog: &Catalog, name: &ResourceName) -> bool {
        connection(catalog, name).is_some_and(|found| self.is_within(&found.metadata.send))
    }

    fn is_within(&self, limits: &SendLimits) -> bool {
        let is_below = |prefix: &String| self.path.is_below(prefix);
        let is_path_admitted = limits.paths().is_empty() || limits.paths().iter().any(is_below);
        let has_other_method = !limits.methods().is_empty() && self.names_method;
        limits.admits_method(self.method.as_str()) && is_path_admitted && !has_other_method
    }
}

/// Checks that the step does not say twice what the connection says.
fn check_step(
    metadata: &ConnectionMetadata,
    rule: &SendRule,
    asked: &SendRequest,
) -> Result<(), Refusal> {
    if !rule.own_parts {
        return Ok(());
    }
    let mut parameters = metadata.fields.keys().filter_map(|name| parameter(name));
    match parameters.find(|name| asked.path.has_parameter(name)) {
        Some(name) => Err(Refusal::Unsendable(format!(
            "the connection sends the URL parameter {name} itself; leave it out"
        ))),
        None => Ok(()),
    }
}

fn parameter(name: &FieldName) -> Option<&str> {
    name.as_str().strip_prefix("url_parameters.")
}

fn connection<'a>(catalog: &'a Catalog, name: &ResourceName) -> Option<&'a Connection> {
    match name {
        ResourceName::Connection(name) => catalog.connection(name).map(AsRef::as_ref),
        _ => None,
    }
}

/// The value of a field that is not sensitive; `None` if it is missing, empty or no text.
fn public(metadata: &ConnectionMetadata, field: &str) -> Option<String> {
    let (_, found) = metadata.fields.iter().find(|(name, _)| name.as_str() == field)?;
    let text = String::from_utf8(found.value.clone()).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty() && !found.sensitive)
}
