//! `StepService`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use super::convert::status::{to_message, to_status};
use super::edge::padding::{padding, padding_for};
use super::edge::peer;
use super::edge::reply_bytes::ReplyBytes;
use super::pb::step_service_server::StepService;
use super::{convert, pb};
use crate::broker::{Broker, Delivery, Error, ResolveRequest};
use crate::model::limits::{MAX_BATCH, MAX_BATCH_REPLY_BYTES};
use crate::model::{
    ConnectionName, ConnectionRef, GroupName, GroupRef, Id, IntegrationName, Invalid, Reference,
    ResourceName, SecretName, TagKey, TagValue, Tags,
};

pub(super) struct Steps {
    broker: Arc<Broker>,
}

impl Steps {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Waits until the lines of what is answered are as safe as the configuration asks for.
    async fn settle(&self) -> Result<(), Status> {
        self.broker.settle().await.map_err(|error| to_status(&error))
    }
}

#[tonic::async_trait]
impl StepService for Steps {
    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let mut weighed = ReplyBytes::nothing(&peer.quota);
        let request = parse(request.into_inner()).map_err(|error| to_status(&error))?;
        let resolved = loop {
            match self.broker.resolve(&peer.tag, &request, &mut weighed) {
                // Nothing was decided: what takes its reply now may make room.
                Err(Error::Overloaded) if weighed.wait().await => {}
                outcome => break outcome.map_err(|error| to_status(&error))?,
            }
        };
        let mut reply = convert::resolved(resolved);
        reply.padding = padding(&reply);
        let weighed = weighed.made(&reply);
        self.settle().await?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    async fn batch_resolve(
        &self,
        request: Request<pb::BatchResolveRequest>,
    ) -> Result<Response<pb::BatchResolveResponse>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let requests = request.into_inner().requests;
        check_batch(requests.len()).map_err(|error| to_status(&error))?;
        let (count, mut results, mut bytes) = (requests.len(), Vec::new(), 0);
        let mut asked = requests.into_iter().enumerate().map(|(number, request)| {
            // The call itself has paid for the first.
            if number > 0 {
                peer::take_request(&self.broker, &peer.tag)?;
            }
            parse(request)
        });
        let mut weighed = ReplyBytes::nothing(&peer.quota);
        while results.len() < count {
            let resolved = match MAX_BATCH_REPLY_BYTES.saturating_sub(bytes) {
                0 => asked.by_ref().map(|one| one.and(Err(full()))).collect(),
                most => {
                    let batch = self.broker.judge_some(&peer.tag, &mut asked, most);
                    // For all of them at once: of two batches that each held half, none would be made.
                    weighed.reserve(batch.bytes()).await;
                    self.broker.resolve_judged(&peer.tag, batch, &mut weighed)
                }
            };
            for one in resolved {
                let result = match one.map(convert::resolved) {
                    Ok(response) => pb::batch_resolve_result::Result::Response(response),
                    Err(error) => pb::batch_resolve_result::Result::Error(to_message(&error)),
                };
                let result = pb::BatchResolveResult { result: Some(result) };
                let size = prost::Message::encoded_len(&result);
                bytes += 1 + prost::length_delimiter_len(size) + size;
                results.push(result);
            }
        }
        let reply = pb::BatchResolveResponse { results, padding: padding_for(bytes) };
        let weighed = weighed.made(&reply);
        self.settle().await?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let request = request.into_inner().request.unwrap_or_default();
        let mut watch = parse(request)
            .and_then(|request| self.broker.watch(&peer.tag, peer.svid.not_after, request))
            .map_err(|error| to_status(&error))?;
        // What is wrong with the first is an answer to the call.
        let quota = Arc::clone(&peer.quota);
        let mut weighed = ReplyBytes::nothing(&quota);
        let first = watch.next(&mut weighed).await.map_err(|error| to_status(&error))?;
        let start = (watch, Some((first, weighed)), Arc::clone(&self.broker), quota);
        let deliveries = stream::unfold(Some(start), |state| async {
            let (mut watch, first, broker, quota) = state?;
            // Held until the message is there, which the door counts by itself.
            let (next, _weighed) = match first {
                Some((first, weighed)) => (Ok(first), weighed),
                None => {
                    let mut weighed = ReplyBytes::nothing(&quota);
                    (watch.next(&mut weighed).await, weighed)
                }
            };
            let next = match broker.settle().await {
                Ok(()) => next,
                Err(error) => Err(error),
            };
            match next {
                Ok(delivery) => Some((Ok(delivered(delivery)), Some((watch, None, broker, quota)))),
                Err(error) => Some((Err(to_status(&error)), None)),
            }
        });
        Ok(Response::new(Box::pin(deliveries)))
    }

    async fn renew_lease(
        &self,
        request: Request<pb::RenewLeaseRequest>,
    ) -> Result<Response<pb::Lease>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let request = request.into_inner();
        let ttl = convert::duration(request.ttl);
        let (lease, renewable) = lease_id(&request.name)
            .and_then(|id| self.broker.renew_lease(&peer.tag, id, ttl))
            .map_err(|error| to_status(&error))?;
        self.settle().await?;
        Ok(Response::new(convert::lease(&lease, renewable)))
    }

    async fn revoke_lease(
        &self,
        request: Request<pb::RevokeLeaseRequest>,
    ) -> Result<Response<()>, Status> {
        let peer = peer::step(&self.broker, &request)?;
        let id = lease_id(&request.into_inner().name).map_err(|error| to_status(&error))?;
        let revoked = self.broker.revoke_lease(&peer.tag, id).await;
        revoked.map(Response::new).map_err(|error| to_status(&error))
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

fn full() -> Error {
    Error::TooLarge("the reply is full; ask for this one by itself".to_owned())
}

fn delivered(delivery: Delivery) -> pb::WatchResponse {
    let mut reply = pb::WatchResponse {
        credential: Some(convert::resolved(delivery.resolved)),
        skipped_versions: convert::count(delivery.skipped),
        ..Default::default()
    };
    reply.padding = padding(&reply);
    reply
}

pub(super) fn lease_id(name: &str) -> Result<Id, Error> {
    match name.parse()? {
        ResourceName::Lease(id) => Ok(id),
        _ => Err(Invalid::new("lease name", name, "leases/ID, as the lease says it").into()),
    }
}

pub(super) fn check_batch(requests: usize) -> Result<(), Error> {
    match requests {
        0 => Err(Error::TargetInvalid("no request".to_owned())),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Error::TooLarge(format!("at most {MAX_BATCH} requests in one call"))),
    }
}

pub(super) fn parse(request: pb::ResolveRequest) -> Result<ResolveRequest, Error> {
    use pb::resolve_request::Target;
    let malformed = |error: crate::model::Invalid| Error::TargetInvalid(error.to_string());
    let target = match request.target {
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
    };
    Ok(ResolveRequest { target, fields: request.fields, ttl: convert::duration(request.ttl) })
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
