//! The targets of requests.

use crate::broker::Error;
use crate::grpc::pb;
use crate::model::{
    ConnectionName, ConnectionRef, GroupName, GroupRef, IntegrationName, Invalid, Reference,
    SecretName, TagKey, TagValue, Tags,
};

/// The target of a request.
pub(super) fn reference(target: Option<pb::resolve_request::Target>) -> Result<Reference, Error> {
    use pb::resolve_request::Target;
    let malformed = |error: Invalid| Error::TargetInvalid(error.to_string());
    Ok(match target {
        None => {
            let text = "no target: name a connection, a group, a secret or default_for".to_owned();
            return Err(Error::TargetInvalid(text));
        }
        Some(Target::Connection(target)) => Reference::Connection(ConnectionRef {
            integration: IntegrationName::parse(&target.integration).map_err(malformed)?,
            name: ConnectionName::parse(&target.name).map_err(malformed)?,
        }),
        Some(Target::DefaultFor(integration)) => {
            Reference::Default(IntegrationName::parse(&integration).map_err(malformed)?)
        }
        Some(Target::Group(target)) => Reference::Group(group(&target)?),
        Some(Target::Secret(target)) => {
            Reference::Secret(SecretName::parse(&target.name).map_err(malformed)?)
        }
    })
}

fn group(target: &pb::GroupTarget) -> Result<GroupRef, Error> {
    let name =
        GroupName::parse(&target.name).map_err(|error| Error::TargetInvalid(error.to_string()))?;
    let mut identifiers = Tags::default();
    for (key, value) in &target.identifiers {
        let key = TagKey::parse(key).map_err(Error::IdentifierTagInvalid)?;
        let value = TagValue::parse(value).map_err(Error::IdentifierTagInvalid)?;
        let old = identifiers.insert(key, value).map_err(Error::IdentifierTagInvalid)?;
        if old.is_some() {
            let text = "an identifier is given twice, in upper and lower case".to_owned();
            return Err(Error::TargetInvalid(text));
        }
    }
    Ok(GroupRef { name, identifiers })
}
