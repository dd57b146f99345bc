//! One call on the admin door: who makes it, and what becomes of it.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use crate::access::Principal;
use crate::broker::{Broker, Error, WriteOptions};
use crate::grpc::convert;
use crate::grpc::convert::status::{reason_of, to_status};
use crate::grpc::edge::reply_bytes::ReplyBytes;
use crate::grpc::edge::{in_flight, peer};
use crate::identity::Peer;
use crate::model::NamedRequest;

/// The admin door's services, each in a file of its own.
#[derive(Clone)]
pub(crate) struct AdminService {
    broker: Arc<Broker>,
}

impl AdminService {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Begins a call: who asks is known from here on. `resource` says what it is on, for the journal.
    ///
    /// # Errors
    /// The status to answer with, if nobody is known by the certificate.
    pub(crate) fn begin<T>(
        &self,
        request: Request<T>,
        method: &'static str,
        resource: impl FnOnce(&T) -> String,
    ) -> Result<(Call, T), Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let peer = peer::admin_connection(&request)?;
        let message = request.into_inner();
        let resource = resource(&message);
        let broker = Arc::clone(&self.broker);
        Ok((Call { broker, caller, peer, method, resource }, message))
    }
}

/// A call whose caller is known.
pub(crate) struct Call {
    pub(crate) broker: Arc<Broker>,
    pub(crate) caller: Principal,
    peer: Arc<Peer<()>>,
    method: &'static str,
    resource: String,
}

impl Call {
    /// Does the work and answers. What is refused for want of a role or relation is journaled.
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

    /// The same of reading that takes more than a moment: on threads of its own, when the caller's turn has come, with
    /// room for so many bytes that it may answer. The work is told whether anybody waits for it still.
    ///
    /// # Errors
    /// The status to answer with; [`Error::Overloaded`] if no room comes for it.
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
            turn.look(look).await?
        };
        let (weighed, reply) = made.await.map_err(|error| self.refuse(&error))?;
        Ok(ReplyBytes::answer(weighed, reply))
    }

    /// The same where the answer is a stream.
    ///
    /// # Errors
    /// The status to answer with.
    pub(crate) async fn stream<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        work.await.map(Response::new).map_err(|error| self.refuse(&error))
    }

    /// How a change is to be made: an id is bound to the whole request.
    ///
    /// # Errors
    /// If the id is not well formed.
    pub(crate) fn options(
        &self,
        request: &impl Message,
        id: &str,
        validate_only: bool,
    ) -> Result<WriteOptions, Error> {
        Ok(WriteOptions { request: self.named(request, id)?, validate_only })
    }

    /// The request under its id, if it has one. Encoding is the same for the same request, its maps being sorted.
    ///
    /// # Errors
    /// If the id is not well formed.
    pub(crate) fn named(
        &self,
        request: &impl Message,
        id: &str,
    ) -> Result<Option<NamedRequest>, Error> {
        let Some(id) = convert::request_id(id)? else { return Ok(None) };
        let mac = self.broker.request_mac(self.method, &request.encode_to_vec());
        Ok(Some(NamedRequest { id, mac }))
    }

    /// The status for an error.
    pub(crate) fn refuse(&self, error: &Error) -> Status {
        if let Error::EditDenied(_)
        | Error::ExecutorRequired
        | Error::OperatorRequired
        | Error::OwnRegistration
        | Error::ResolverRequired(_)
        | Error::RoleRequired(_)
        | Error::RunAsNotPermitted(_)
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
