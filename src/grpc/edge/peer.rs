//! The peers of both doors, checked at every request.

use std::sync::Arc;

use tonic::Request;
use tonic::transport::server::Connected;

use super::request_class::RequestClass;
use crate::broker::{Broker, Error, StepSession};
use crate::identity::{Peer, PeerConnection};

/// A connection to the socket of a step, with the session of its opening.
pub type StepConnection = PeerConnection<Arc<StepSession>>;
/// A connection to the admin door.
pub type AdminConnection = PeerConnection<()>;

impl<T: Clone + Send + Sync + 'static> Connected for PeerConnection<T> {
    type ConnectInfo = Arc<Peer<T>>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(self.peer())
    }
}

/// The checks of one kind of peer, in which `Self` is the tag of its connections.
pub(crate) trait AdmissionPolicy: Clone + Send + Sync + 'static {
    /// Takes one request of the peer's rate before anything else is checked. A flood of heads or of malformed requests
    /// counts too.
    ///
    /// # Errors
    /// If the rate is used up.
    fn charge(broker: &Broker, peer: &Peer<Self>, class: RequestClass) -> Result<(), Error>;

    /// Checks that the peer is still registered, or its opening open.
    ///
    /// # Errors
    /// Why it is not.
    fn check(broker: &Broker, peer: &Peer<Self>) -> Result<(), Error>;
}

impl AdmissionPolicy for Arc<StepSession> {
    fn charge(broker: &Broker, peer: &Peer<Self>, _: RequestClass) -> Result<(), Error> {
        take_request(broker, &peer.tag)
    }

    fn check(broker: &Broker, peer: &Peer<Self>) -> Result<(), Error> {
        broker.check_step(&peer.tag.opening, &peer.svid)
    }
}

impl AdmissionPolicy for () {
    fn charge(broker: &Broker, peer: &Peer<Self>, class: RequestClass) -> Result<(), Error> {
        match class {
            // An executor renews as many steps as it has open, and removing something must always be possible.
            RequestClass::Ending | RequestClass::Health => Ok(()),
            RequestClass::Documents
            | RequestClass::Exchange
            | RequestClass::Looking
            | RequestClass::Stream
            | RequestClass::Unary => broker.take_admin_request(&peer.svid.id),
        }
    }

    fn check(broker: &Broker, peer: &Peer<Self>) -> Result<(), Error> {
        broker.admin_principal(&peer.svid, peer.origin).map(drop)
    }
}

/// The peer of the connection on which a request came.
///
/// # Errors
/// [`Error::Internal`] if the request came on no connection of this door.
pub(crate) fn peer<P: AdmissionPolicy, T>(request: &Request<T>) -> Result<Arc<Peer<P>>, Error> {
    let peer = request.extensions().get::<Arc<Peer<P>>>().cloned();
    peer.ok_or_else(|| Error::Internal("a request without a peer".to_owned()))
}

/// Takes one request of an opening's rate.
///
/// # Errors
/// [`Error::TooManyRequests`] if the rate is used up.
pub(crate) fn take_request(broker: &Broker, session: &StepSession) -> Result<(), Error> {
    session.take_request(broker.now(), broker.limits()).map_err(Error::TooManyRequests)
}
