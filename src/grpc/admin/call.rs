//! One call on the admin door: who makes it, and how it is answered.

use std::sync::Arc;
use std::time::Duration;

use prost::{Message, Name};
use tonic::{Request, Response, Status, Streaming};

use crate::access::Principal;
use crate::broker::{Broker, Error, LeverRefusal, WriteOptions};
use crate::grpc::convert;
use crate::grpc::convert::status::{reason_of, to_status};
use crate::grpc::edge::in_flight;
use crate::grpc::edge::patience::patience;
use crate::grpc::edge::peer::peer;
use crate::grpc::edge::reply_bytes::ReplyBytes;
use crate::grpc::request::ApiRequest;
use crate::identity::Peer;
use crate::model::NamedRequest;

/// The services of the admin door, each in a file of its own.
#[derive(Clone)]
pub(crate) struct AdminService {
    broker: Arc<Broker>,
}

impl AdminService {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Finds the caller of a request and parses the request.
    ///
    /// # Errors
    /// The status to answer with: the caller is not registered, or the request is malformed.
    pub(crate) fn begin<T: ApiRequest>(
        &self,
        request: Request<T>,
    ) -> Result<(Call, T::Parsed), Status> {
        self.begin_on(request, |_| String::new())
    }

    /// Does the same for a request on one resource. The journal names the resource when the request is refused.
    ///
    /// # Errors
    /// As [`AdminService::begin`].
    pub(crate) fn begin_on<T: ApiRequest>(
        &self,
        request: Request<T>,
        resource: impl FnOnce(&T) -> String,
    ) -> Result<(Call, T::Parsed), Status> {
        let (mut call, message) = self.call::<T, T>(request)?;
        call.resource = resource(&message);
        call.options =
            WriteOptions { request: call.named(&message)?, validate_only: message.validate_only() };
        Ok((call, message.parse()?))
    }

    /// Finds the caller of a stream of requests.
    ///
    /// # Errors
    /// The status to answer with: the caller is not registered.
    pub(crate) fn begin_stream<T: ApiRequest>(
        &self,
        request: Request<Streaming<T>>,
    ) -> Result<(Call, Streaming<T>), Status> {
        self.call::<T, _>(request)
    }

    fn call<T: Name, B>(&self, request: Request<B>) -> Result<(Call, B), Status> {
        let peer = peer(&request)?;
        self.broker.check_serving()?;
        let caller = self.broker.admin_principal(&peer.svid, peer.origin)?;
        let call = Call {
            broker: Arc::clone(&self.broker),
            caller,
            peer,
            options: WriteOptions::default(),
            patience: patience(request.metadata()),
            method: T::NAME.strip_suffix("Request").unwrap_or(T::NAME),
            resource: String::new(),
        };
        Ok((call, request.into_inner()))
    }
}

/// A call whose caller is known.
pub(crate) struct Call {
    pub(crate) broker: Arc<Broker>,
    pub(crate) caller: Principal,
    pub(crate) peer: Arc<Peer<()>>,
    /// How a change is to be made.
    pub(crate) options: WriteOptions,
    /// How long the answer may wait for what it can do without; `None` if the client has named no deadline.
    pub(crate) patience: Option<Duration>,
    method: &'static str,
    resource: String,
}

impl Call {
    /// Does the work and answers. A refusal for lack of a role or relation is journaled.
    ///
    /// # Errors
    /// The status to answer with.
    pub(crate) async fn answer<T: Message>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let reply = work.await.map_err(|error| self.refuse(&error))?;
        Ok(ReplyBytes::answer(ReplyBytes::of(&self.peer.quota, &reply), reply))
    }

    /// Answers as [`Call::answer`] does, for reads that take more than a moment. The work runs on a reader thread when
    /// it is the caller's turn, with room for `most` bytes of the reply. It can ask whether the client still waits.
    ///
    /// # Errors
    /// The status to answer with; [`Error::Overloaded`] if there is no room in time.
    pub(crate) async fn read<T: Message + 'static>(
        &self,
        most: usize,
        work: impl FnOnce(&Broker, &Principal, &dyn Fn() -> bool) -> Result<T, Error> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let (broker, caller) = (Arc::clone(&self.broker), self.caller.clone());
        let made = async {
            let turn = self.broker.reading_turn(&self.caller).await?;
            let mut weighed = ReplyBytes::nothing(&self.peer.quota);
            if !weighed.reserve(most).await {
                return Err(Error::Overloaded);
            }
            let look = move |is_cancelled: &dyn Fn() -> bool| {
                let reply = work(&broker, &caller, is_cancelled)?;
                Ok((weighed.made(&reply), reply))
            };
            turn.read(look).await?
        };
        let (weighed, reply) = made.await.map_err(|error| self.refuse(&error))?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    /// Answers as [`Call::answer`] does, with a stream.
    ///
    /// # Errors
    /// The status to answer with.
    pub(crate) async fn stream<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        work.await.map(Response::new).map_err(|error| self.refuse(&error))
    }

    /// The request id, with a MAC of the whole request: the same id with another body is refused. `None` without an id.
    fn named(&self, request: &impl ApiRequest) -> Result<Option<NamedRequest>, Error> {
        let Some(id) = convert::request_id(request.request_id())? else { return Ok(None) };
        // Maps are sorted, so equal requests have equal bytes.
        let mac = self.broker.request_mac(self.method, &request.encode_to_vec());
        Ok(Some(NamedRequest { id, mac }))
    }

    /// The status of an error. A refusal for lack of a role or relation is journaled, and delays the client.
    pub(crate) fn refuse(&self, error: &Error) -> Status {
        if let Error::EditDenied(_)
        | Error::ExecutorRequired
        | Error::OperatorRequired
        | Error::OwnRegistration
        | Error::ResolverRequired(_)
        | Error::RoleRequired(_)
        | Error::RunAsNotPermitted(_)
        | Error::Lever(LeverRefusal::StepBlocked(_))
        | Error::UidNotPermitted(_)
        | Error::WorkflowNotPermitted(_) = error
        {
            let reason = reason_of(error);
            self.broker.note_refusal(&self.caller, self.method, &self.resource, reason);
            in_flight::penalize(&self.peer);
        }
        to_status(error)
    }
}
