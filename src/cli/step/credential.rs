//! A resolved credential, as JSON and as variables.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use tonic::transport::Channel;

use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::time::{moment, second};
use crate::cli::io::variable::{prefixed, steers_programs, variable_name};
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::integration::{self, FieldRule};
use crate::model::{FieldName, Fields, IntegrationName, Reference, Release, Tags, Value};

/// A resolved credential.
pub struct Credential {
    /// The reference in the request.
    pub reference: Reference,
    /// The full name of the resource.
    name: String,
    /// The integration of the connection. Empty for a secret.
    pub integration: String,
    /// The kind of the connection. Empty for a secret.
    pub kind: String,
    version: i64,
    lease: pb::Lease,
    /// The values, by the names in the request.
    pub fields: Fields,
}

impl Credential {
    /// Resolves a reference. Fails as `StepService.Resolve`.
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

    /// The request for a reference.
    pub fn request(
        reference: &Reference,
        fields: Vec<String>,
        ttl: Option<Duration>,
    ) -> pb::ResolveRequest {
        let target = Some(target_of(reference));
        let ttl = ttl.map(|ttl| prost_types::Duration::try_from(ttl).unwrap_or_default());
        pb::ResolveRequest { target, fields, ttl }
    }

    /// The credential in a response. Fails if the name of a field is not valid.
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

    /// The full name of the resource, and its version.
    pub fn name_and_version(&self) -> (&str, i64) {
        (&self.name, self.version)
    }

    /// Whether fields and values equal those of another credential.
    pub fn has_values_of(&self, other: &Self) -> bool {
        let others = other.fields.iter().map(|(name, value)| (name, value.expose()));
        self.fields.iter().map(|(name, value)| (name, value.expose())).eq(others)
    }

    /// All values, or the value of one field, by the name in the request.
    pub fn values_of<'a>(
        &'a self,
        field: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a FieldName, &'a Value)> {
        self.fields.iter().filter(move |(name, _)| field.is_none_or(|field| name.as_str() == field))
    }

    /// The end of the lease.
    pub fn expire_time(&self) -> String {
        moment(self.lease.expire_time.as_ref())
    }

    /// The end that tools are told, to the second. They ask again before it.
    pub fn end_for_tools(&self) -> String {
        second(self.end())
    }

    /// The end that tools are told, in seconds since the Unix epoch.
    pub fn end_epoch_for_tools(&self) -> i64 {
        self.end().map_or(0, |time| time.seconds)
    }

    /// The end of a minted credential itself. A stored value has no end of its own, so its lease's end stands for it.
    fn end(&self) -> Option<&prost_types::Timestamp> {
        self.lease.credential_expire_time.as_ref().or(self.lease.expire_time.as_ref())
    }

    /// The JSON that scripts rely on (docs/steps.md).
    pub fn to_json(&self) -> Json {
        let fields: Map<String, Json> =
            self.fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let mut lease = json!({
            "name": self.lease.name,
            "expire_time": self.expire_time(),
        });
        if let (Some(end), Some(lease)) =
            (&self.lease.credential_expire_time, lease.as_object_mut())
        {
            lease.insert("credential_expire_time".to_owned(), json!(moment(Some(end))));
        }
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

    /// The values under their customary variables: those of the integration, else `INTEGRATION_FIELD`. A secret has its
    /// own name. Fails if a variable cannot hold a value, or would change what programs execute.
    pub fn to_env(&self) -> Result<Vec<(String, &Value)>, Failure> {
        self.named_by_fields(|name| match &self.reference {
            Reference::Secret(secret) => vec![variable_name(secret.as_str())],
            Reference::Connection(_) | Reference::Default(_) | Reference::Group(_) => {
                let rule = self.rule(name).filter(|rule| !rule.env.is_empty());
                match rule {
                    Some(rule) => [std::slice::from_ref(&rule.env), &rule.also_env].concat(),
                    None => vec![prefixed(&self.integration, name.as_str())],
                }
            }
        })
    }

    /// The values under `PREFIX_FIELD`. Fails also if an editor chose a field's name: with a prefix, that
    /// editor could set any variable.
    pub fn to_env_with_prefix(&self, prefix: &str) -> Result<Vec<(String, &Value)>, Failure> {
        let named = self.named_by_fields(|name| vec![prefixed(prefix, name.as_str())])?;
        match self.fields.keys().any(|name| self.is_free(name)) {
            true => Err(self.refuse_prefix(prefix)),
            false => Ok(named),
        }
    }

    /// The value of a field, or the only value, under a name that the user has chosen.
    pub fn to_env_as<'a>(
        &'a self,
        variable: &str,
        field: Option<&'a str>,
    ) -> Result<Vec<(String, &'a Value)>, Failure> {
        self.named(field, |_| Ok(vec![variable.to_owned()]))
    }

    /// Inherited variables that tools would prefer to the customary ones.
    pub fn shadowing(&self) -> &'static [String] {
        let integration = IntegrationName::parse(&self.integration).ok();
        let found = integration.and_then(|name| integration::find(&name));
        found.map_or(&[], |integration| &integration.shadowing)
    }

    /// True if a field is write-only, or its rules are unknown: only the broker knows operators' own integrations.
    pub fn is_sensitive(&self, field: &FieldName) -> bool {
        self.rule(field).is_none_or(|rule| rule.sensitive)
    }

    /// The rule of a built-in integration for a field.
    pub fn rule(&self, field: &FieldName) -> Option<&'static FieldRule> {
        let integration = IntegrationName::parse(&self.integration).ok()?;
        let kind = integration::find(&integration)?.kind(&self.kind)?;
        // The answer does not tell whether the connection is minted. A name that both have means the same.
        integration::find_released_field(kind, Release::Minted, field.as_str())
            .or_else(|| integration::find_field(kind, field.as_str()))
    }

    /// Whether editors of the connection choose the name of a field.
    fn is_free(&self, field: &FieldName) -> bool {
        self.rule(field).is_none_or(|rule| rule.family().is_some())
    }

    /// The values under variables that are made of the names of fields.
    fn named_by_fields(
        &self,
        variables: impl Fn(&FieldName) -> Vec<String>,
    ) -> Result<Vec<(String, &Value)>, Failure> {
        self.named(None, |field| {
            let variables = variables(field);
            match variables.iter().find(|variable| steers_programs(variable)) {
                Some(variable) => Err(self.refuse(field, variable)),
                None => Ok(variables),
            }
        })
    }

    fn refuse(&self, field: &FieldName, variable: &str) -> Failure {
        let reference = &self.reference;
        let (what, only) = match reference {
            Reference::Secret(_) => (reference.to_string(), reference.to_string()),
            Reference::Connection(_) | Reference::Default(_) | Reference::Group(_) => {
                (format!("{field} of {reference}"), format!("{reference}:{field}"))
            }
        };
        let text = format!(
            "{what} would become {variable}, which changes what programs execute or whom they talk to; name the \
             variables that you want, each as exec --env NAME={only}"
        );
        Failure::new("VARIABLE_REFUSED", text, exit::FAILED)
    }

    fn refuse_both(&self, field: &FieldName, variable: &str) -> Failure {
        let reference = &self.reference;
        let text = format!(
            "{field} and another field of {reference} would both become {variable}; name the variables that you want, \
             each as exec --env NAME={reference}:{field}"
        );
        Failure::new("VARIABLE_TWICE", text, exit::FAILED)
    }

    fn refuse_prefix(&self, prefix: &str) -> Failure {
        let reference = &self.reference;
        let fields: Vec<&str> = self.fields.keys().map(FieldName::as_str).collect();
        let variable = match fields.as_slice() {
            [field] => prefixed(prefix, field),
            _ => prefix.to_owned(),
        };
        let text = format!(
            "the fields of {reference} have names that its editors choose, and no such name becomes a variable by a \
             prefix alone; name the fields that you want: exec --env {variable}={reference}:{}",
            fields.join(",")
        );
        Failure::new("VARIABLE_REFUSED", text, exit::FAILED)
    }

    fn named<'a>(
        &'a self,
        field: Option<&'a str>,
        variables: impl Fn(&FieldName) -> Result<Vec<String>, Failure>,
    ) -> Result<Vec<(String, &'a Value)>, Failure> {
        let mut named: Vec<(String, &Value)> = Vec::new();
        for (field, value) in self.values_of(field) {
            if value.expose().contains(&0) {
                let text =
                    format!("{}: {field} holds a zero byte, which no variable can", self.reference);
                return Err(Failure::new("VALUE_UNFIT", text, exit::FAILED));
            }
            for variable in variables(field)? {
                if named.iter().any(|(other, _)| *other == variable) {
                    return Err(self.refuse_both(field, &variable));
                }
                named.push((variable, value));
            }
        }
        Ok(named)
    }
}

fn pairs(identifiers: &Tags) -> BTreeMap<String, String> {
    identifiers.iter().map(|tag| (tag.key.to_string(), tag.value.to_string())).collect()
}

/// A value as JSON: text, or `{"$base64": "…"}` where it is not UTF-8.
fn text(value: &Value) -> Json {
    match std::str::from_utf8(value.expose()) {
        Ok(text) => Json::from(text),
        Err(_) => json!({ "$base64": STANDARD.encode(value.expose()) }),
    }
}
/// A reference as the target of a request.
pub fn target_of(reference: &Reference) -> pb::resolve_request::Target {
    use pb::resolve_request::Target;
    match reference {
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
    }
}
