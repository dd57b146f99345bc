//! `StepService`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::pb::step_service_server::StepService;
use super::status::to_status;
use super::{convert, pb, peer};
use crate::broker::{Broker, Error, ResolveRequest};
use crate::model::{
    ConnectionName, ConnectionRef, GroupName, GroupRef, IntegrationName, Reference, SecretName,
    TagKey, TagValue, Tags,
};

pub(super) struct Steps {
    broker: Arc<Broker>,
}

impl Steps {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl StepService for Steps {
    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let resolved = parse(request.into_inner())
            .and_then(|request| self.broker.resolve(&peer.tag, &request))
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::resolved(resolved)))
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let opening = peer.tag.record();
        Ok(Response::new(pb::WhoAmIResponse {
            spiffe_id: peer.svid.id.uri(self.broker.authority().domain()),
            workflow: opening.key.workflow.to_string(),
            run: opening.key.run.to_string(),
            step: opening.key.step.to_string(),
            attempt: opening.attempt,
            certificate_expire_time: convert::timestamp(peer.svid.not_after),
            step_expire_time: convert::timestamp(opening.expire_time),
        }))
    }
}

fn parse(request: pb::ResolveRequest) -> Result<ResolveRequest, Error> {
    use pb::resolve_request::Target;
    let malformed = |error: crate::model::Invalid| Error::TargetInvalid(error.to_string());
    let target = match request.target {
        None => {
            let text = "no target: name a connection or a secret".to_owned();
            return Err(Error::TargetInvalid(text));
        }
        Some(Target::Connection(target)) => Reference::Connection(ConnectionRef {
            integration: IntegrationName::parse(&target.integration).map_err(malformed)?,
            name: ConnectionName::parse(&target.name).map_err(malformed)?,
        }),
        Some(Target::Group(target)) => Reference::Group(group(&target)?),
        Some(Target::Secret(target)) => {
            Reference::Secret(SecretName::parse(&target.name).map_err(malformed)?)
        }
    };
    Ok(ResolveRequest { target, fields: request.fields, ttl: convert::duration(request.ttl) })
}

fn group(target: &pb::GroupTarget) -> Result<GroupRef, Error> {
    let name =
        GroupName::parse(&target.name).map_err(|error| Error::TargetInvalid(error.to_string()))?;
    let mut identifiers = BTreeMap::new();
    for (key, value) in &target.identifiers {
        let key = TagKey::parse(key).map_err(Error::IdentifierTagInvalid)?;
        let value = TagValue::parse(value).map_err(Error::IdentifierTagInvalid)?;
        if identifiers.insert(key, value).is_some() {
            let text = "an identifier is given twice, in upper and lower case".to_owned();
            return Err(Error::TargetInvalid(text));
        }
    }
    Ok(GroupRef { name, identifiers: Tags::from_pairs(identifiers) })
}
