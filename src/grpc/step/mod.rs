//! `StepService`.

mod send;
mod sign;
mod target;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::broker::{Answer, Broker, Delivery, Error, ResolveRequest, StepSession};
use crate::grpc::convert::status::to_message;
use crate::grpc::edge::padding::{padding, padding_for};
use crate::grpc::edge::patience::patience;
use crate::grpc::edge::peer;
use crate::grpc::edge::reply_bytes::ReplyBytes;
use crate::grpc::pb::step_service_server::StepService;
use crate::grpc::request::{ApiRequest, parse_requests};
use crate::grpc::{Reply, convert, pb};
use crate::identity::Peer;
use crate::journal::CommitGroup;
use crate::model::Id;
use crate::model::limits::{MAX_BATCH, MAX_BATCH_REPLY_BYTES};
use target::reference;

parse_requests! {
    BatchResolveRequest -> Vec<pb::ResolveRequest> = |one| match one.requests.len() {
        0 => Err(Error::TargetInvalid("no request".to_owned())),
        1..=MAX_BATCH => Ok(one.requests),
        _ => Err(Error::TooLarge(format!("at most {MAX_BATCH} requests in one call"))),
    };
    RenewLeaseRequest -> (Id, Option<Duration>) =
        |one| Ok((convert::lease_id(&one.name)?, convert::duration(one.ttl)));
    ResolveRequest -> ResolveRequest = |one| resolve_request(one);
    RevokeLeaseRequest -> Id = |one| convert::lease_id(&one.name);
    WatchRequest -> ResolveRequest = |one| resolve_request(one.request.unwrap_or_default());
    WhoAmIRequest -> () = |_| Ok(());
}

/// The service of the step door.
pub(super) struct Steps {
    broker: Arc<Broker>,
    /// The decisions of this server's thread.
    group: CommitGroup,
}

type StepPeer = Arc<Peer<Arc<StepSession>>>;

impl Steps {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker, group: CommitGroup::default() }
    }

    /// Finds the step behind a request and parses the request. Its opening is open, and its certificate is one of the
    /// opening's.
    fn begin<T: ApiRequest>(&self, request: Request<T>) -> Result<(StepPeer, T::Parsed), Status> {
        Ok((self.peer(&request)?, request.into_inner().parse()?))
    }

    /// Finds the step behind a request, as [`Self::begin`] does.
    fn peer<T>(&self, request: &Request<T>) -> Result<StepPeer, Status> {
        let peer: StepPeer = peer::peer(request)?;
        self.broker.check_serving()?;
        self.broker.check_step(&peer.tag.opening, &peer.svid)?;
        Ok(peer)
    }
}

#[tonic::async_trait]
impl StepService for Steps {
    async fn resolve(&self, request: Request<pb::ResolveRequest>) -> Reply<pb::ResolveResponse> {
        let (peer, request) = self.begin(request)?;
        let mut weighed = ReplyBytes::nothing(&peer.quota);
        let (session, room, last) = (&peer.tag, &mut weighed, self.broker.last_answer());
        let resolved = loop {
            // A request that is alone on its connection shares no write: a turn would only delay it.
            let answer = match peer.traffic.has_several_requests() {
                true => self.broker.resolve_in_group(&self.group, session, &request, room).await,
                false => self.broker.resolve(session, &request, room),
            };
            let resolved = match answer {
                Ok(Answer::Resolved(resolved)) => Ok(resolved),
                Ok(Answer::Minting(waiting)) => {
                    self.broker.finish(session, waiting.until(last), room).await
                }
                Err(error) => Err(error),
            };
            match resolved {
                // Nothing was handed out yet. Room comes when the client takes earlier replies.
                Err(Error::Overloaded) if room.wait().await => {}
                outcome => break outcome?,
            }
        };
        let mut reply = convert::resolved(resolved);
        reply.padding = padding(&reply);
        let weighed = weighed.made(&reply);
        self.broker.synced().await?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    async fn batch_resolve(
        &self,
        request: Request<pb::BatchResolveRequest>,
    ) -> Reply<pb::BatchResolveResponse> {
        let (peer, requests) = self.begin(request)?;
        let (count, mut results, mut bytes) = (requests.len(), Vec::new(), 0);
        let last = self.broker.last_answer();
        let mut asked = requests.into_iter().enumerate().map(|(number, request)| {
            // The call itself has paid for the first request.
            if number > 0 {
                peer::take_request(&self.broker, &peer.tag)?;
            }
            request.parse()
        });
        let mut weighed = ReplyBytes::nothing(&peer.quota);
        while results.len() < count {
            let resolved = match MAX_BATCH_REPLY_BYTES.saturating_sub(bytes) {
                0 => asked.by_ref().map(|one| one.and(Err(full()))).collect(),
                most => {
                    let batch = self.broker.authorize_batch(&peer.tag, &mut asked, most);
                    // Room for all of them at once. Two batches with half of their room each would wait for ever.
                    weighed.reserve(batch.bytes()).await;
                    self.broker.resolve_batch(&peer.tag, batch, &mut weighed)
                }
            };
            for one in resolved {
                // All of the call wait until the same moment, or an upstream that hangs would cost the whole reply.
                let one = match one {
                    Ok(Answer::Resolved(resolved)) => Ok(resolved),
                    Ok(Answer::Minting(waiting)) => {
                        self.broker.finish(&peer.tag, waiting.until(last), &mut weighed).await
                    }
                    Err(error) => Err(error),
                };
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
        self.broker.synced().await?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        let (peer, request) = self.begin(request)?;
        let mut watch = self.broker.watch(&peer.tag, peer.svid.not_after, request)?;
        let quota = Arc::clone(&peer.quota);
        let mut weighed = ReplyBytes::nothing(&quota);
        // An error of the first delivery answers the call itself.
        let first = watch.next(&mut weighed).await?;
        self.broker.synced().await?;
        // The bytes are held until the message is made; then the admission layer counts the message.
        let first = stream::once(async move {
            let _weighed = weighed;
            Ok(delivered(first))
        });
        let start = (watch, Arc::clone(&self.broker), quota);
        let later = stream::unfold(Some(start), |state| async {
            let (mut watch, broker, quota) = state?;
            let mut weighed = ReplyBytes::nothing(&quota);
            let next = watch.next(&mut weighed).await;
            match broker.synced().await.and(next) {
                Ok(delivery) => Some((Ok(delivered(delivery)), Some((watch, broker, quota)))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(first.chain(later))))
    }

    type SendStream = Pin<Box<dyn Stream<Item = Result<pb::SendResponse, Status>> + Send>>;

    async fn send(&self, request: Request<Streaming<pb::SendRequest>>) -> Reply<Self::SendStream> {
        let peer = self.peer(&request)?;
        send::send(&self.broker, &peer, request.into_inner()).await
    }

    async fn renew_lease(&self, request: Request<pb::RenewLeaseRequest>) -> Reply<pb::Lease> {
        let (peer, (id, ttl)) = self.begin(request)?;
        let (lease, is_renewable) = self.broker.renew_lease(&peer.tag, id, ttl)?;
        self.broker.synced().await?;
        Ok(Response::new(convert::lease(&lease, is_renewable)))
    }

    async fn revoke_lease(&self, request: Request<pb::RevokeLeaseRequest>) -> Reply<()> {
        let patience = patience(request.metadata());
        let (peer, id) = self.begin(request)?;
        let endings = self.broker.revoke_lease(&peer.tag, id).await?;
        self.broker.wait_for_endings(&endings, patience).await;
        Ok(Response::new(()))
    }

    async fn sign(&self, request: Request<pb::SignRequest>) -> Reply<pb::SignResponse> {
        let (peer, request) = self.begin(request)?;
        let signature = self.broker.sign(&peer.tag, request).await?;
        self.broker.synced().await?;
        Ok(Response::new(pb::SignResponse { signature }))
    }

    async fn get_signing_key(
        &self,
        request: Request<pb::GetSigningKeyRequest>,
    ) -> Reply<pb::SigningKey> {
        let (peer, target) = self.begin(request)?;
        let key = self.broker.signing_key(&peer.tag, &target).await?;
        self.broker.synced().await?;
        Ok(Response::new(sign::signing_key(key)))
    }

    async fn who_am_i(&self, request: Request<pb::WhoAmIRequest>) -> Reply<pb::WhoAmIResponse> {
        let (peer, ()) = self.begin(request)?;
        let opening = peer.tag.opening.record();
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
    Error::TooLarge("the reply is full; send this request in a call of its own".to_owned())
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

fn resolve_request(request: pb::ResolveRequest) -> Result<ResolveRequest, Error> {
    let target = reference(request.target)?;
    let ttl = convert::duration(request.ttl);
    Ok(ResolveRequest { target, fields: request.fields, ttl, action: None })
}
