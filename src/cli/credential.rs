//! A credential on its way from the broker to a step's stdout or environment.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use tonic::transport::Channel;

use super::failure::{Failure, exit};
use super::output::moment;
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::integration;
use crate::model::{FieldName, Fields, IntegrationName, Reference, Tags, Value};

/// A resolved credential.
pub struct Credential {
    /// What was asked for.
    pub reference: Reference,
    /// The full name of what was resolved.
    name: String,
    /// The connection's integration and kind; empty for a secret.
    pub integration: String,
    /// See `integration`.
    pub kind: String,
    version: i64,
    lease: pb::Lease,
    /// The values, by the names asked for.
    pub fields: Fields,
}

impl Credential {
    /// Resolves a reference.
    ///
    /// # Errors
    /// As `StepService.Resolve`.
    pub async fn resolve(
        channel: Channel,
        reference: Reference,
        fields: Vec<String>,
        ttl: Option<Duration>,
    ) -> Result<Self, Failure> {
        let request = Self::request(&reference, fields, ttl);
        let response = StepServiceClient::new(channel).resolve(request).await?.into_inner();
        Self::from_response(reference, response)
    }

    /// What to ask the broker for a reference.
    pub fn request(
        reference: &Reference,
        fields: Vec<String>,
        ttl: Option<Duration>,
    ) -> pb::ResolveRequest {
        use pb::resolve_request::Target;
        let target = match reference {
            Reference::Connection(connection) => Target::Connection(pb::ConnectionTarget {
                integration: connection.integration.to_string(),
                name: connection.name.to_string(),
            }),
            Reference::Default(integration) => Target::DefaultFor(integration.to_string()),
            Reference::Group(group) => Target::Group(pb::GroupTarget {
                name: group.name.to_string(),
                identifiers: pairs(&group.identifiers),
            }),
            Reference::Secret(name) => Target::Secret(pb::SecretTarget { name: name.to_string() }),
        };
        let ttl = ttl.map(|ttl| prost_types::Duration::try_from(ttl).unwrap_or_default());
        pb::ResolveRequest { target: Some(target), fields, ttl }
    }

    /// What the broker answered.
    ///
    /// # Errors
    /// If a field's name is none.
    pub fn from_response(
        reference: Reference,
        response: pb::ResolveResponse,
    ) -> Result<Self, Failure> {
        let fields = response
            .fields
            .into_iter()
            .map(|(name, value)| FieldName::parse(&name).map(|name| (name, Value::new(value))));
        Ok(Self {
            reference,
            name: response.name,
            integration: response.integration,
            kind: response.kind,
            version: response.version,
            lease: response.lease.unwrap_or_default(),
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// When the lease ends.
    pub fn expire_time(&self) -> String {
        moment(self.lease.expire_time.as_ref())
    }

    /// As scripts rely on it: README.md, "From a step".
    pub fn to_json(&self) -> Json {
        let fields: Map<String, Json> =
            self.fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let lease = json!({
            "name": self.lease.name,
            "expire_time": self.expire_time(),
        });
        match &self.reference {
            Reference::Connection(_) | Reference::Default(_) | Reference::Group(_) => json!({
                "connection": self.name.strip_prefix("connections/").unwrap_or(&self.name),
                "integration": self.integration,
                "kind": self.kind,
                "version": self.version,
                "fields": fields,
                "lease": lease,
            }),
            Reference::Secret(name) => json!({
                "secret": name.to_string(),
                "version": self.version,
                "fields": fields,
                "lease": lease,
            }),
        }
    }

    /// The values under their customary environment variables: those of the integration where it has
    /// them, `INTEGRATION_FIELD` otherwise, and a secret under its own name.
    ///
    /// # Errors
    /// If a value cannot stand in an environment variable.
    pub fn to_env(&self) -> Result<Vec<(String, &Value)>, Failure> {
        let variable = |name: &FieldName| match &self.reference {
            Reference::Secret(secret) => variable_name(secret.as_str()),
            Reference::Connection(_) | Reference::Default(_) | Reference::Group(_) => {
                let custom = customary(&self.integration, &self.kind, name);
                custom.unwrap_or_else(|| variable_name(&format!("{}_{name}", self.integration)))
            }
        };
        self.named(variable)
    }

    /// The values under `PREFIX_FIELD`.
    ///
    /// # Errors
    /// If a value cannot stand in an environment variable.
    pub fn to_env_with_prefix(&self, prefix: &str) -> Result<Vec<(String, &Value)>, Failure> {
        self.named(|name| variable_name(&format!("{prefix}_{name}")))
    }

    fn named(
        &self,
        variable: impl Fn(&FieldName) -> String,
    ) -> Result<Vec<(String, &Value)>, Failure> {
        let named = self.fields.iter().map(|(name, value)| {
            if value.expose().contains(&0) {
                let text =
                    format!("{}: {name} holds a zero byte, which no variable can", self.reference);
                return Err(Failure::new("VALUE_UNFIT", text, exit::FAILED));
            }
            Ok((variable(name), value))
        });
        named.collect()
    }
}

fn pairs(identifiers: &Tags) -> BTreeMap<String, String> {
    identifiers.iter().map(|tag| (tag.key.to_string(), tag.value.to_string())).collect()
}

fn customary(integration: &str, kind: &str, field: &FieldName) -> Option<String> {
    let integration = IntegrationName::parse(integration).ok()?;
    let kind = integration::find(&integration)?.kind(kind)?;
    let rule = integration::find_field(kind, field.as_str())?;
    Some(rule.env.clone()).filter(|env| !env.is_empty())
}

/// A text as a variable's name: upper case, with `_` for what cannot stand in one.
pub fn variable_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// A value as JSON: text, or `{"$base64": "…"}` where it is not UTF-8.
fn text(value: &Value) -> Json {
    match std::str::from_utf8(value.expose()) {
        Ok(text) => Json::from(text),
        Err(_) => json!({ "$base64": STANDARD.encode(value.expose()) }),
    }
}
