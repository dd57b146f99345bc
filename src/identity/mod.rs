//! Who is calling: from a certificate to an identity. The only room that knows rustls.
//!
//! - The built-in [`Authority`] is a root and two issuers under it, one for operators and executors, one
//!   for steps. Each door trusts only its own issuer.
//! - A certificate is an X509-SVID with narrower rules, see [`certificate::svid`].
//! - TLS 1.3 only, a client certificate always, no resumption and no early data: rustls does not ask the
//!   verifier again for a resumed session.
//! - [`Acceptor`] owns the accept loop: one for each socket, so that the socket is part of the identity.

pub mod certificate;
mod client;
mod door;
mod tls;

pub use certificate::authority::{Authority, AuthorityError, Issued, KeyAndCertificate};
pub use certificate::request::{
    PemFault, RequestError, check_certificate, check_pair, check_private_key, first_validity,
    new_request, request_for, requested_key,
};
pub use certificate::root::RootKey;
pub use certificate::svid::{Svid, SvidError};
pub use certificate::validity::{Role, Validity, check_issued};
pub use client::{ClientIdentity, ConnectError, TlsClientStream, connect, connect_heard};
pub use door::acceptor::{Acceptor, Gate, Handshakes};
pub use door::connection::{Connection, Peer};
pub use door::entrance::{Entrance, Stand};
pub use door::lobby::LobbyLimits;
pub use door::pace::{PIECE_BYTES, PaceLimits};
pub use door::patience::{OpenRequest, Patience, Traffic, WaitingReply};
pub use door::pins::{LetIn, NotLetIn, OpenConnections};
pub use door::refused::REFUSALS;
pub use door::standing::{
    Amount, Commons, DoorShares, Lane, Large, Present, Standing, WaitingForLarge,
};
pub use tls::{Door, DoorConfig, TlsError};
