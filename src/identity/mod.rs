//! Who is calling: from a certificate to an identity. The only room that knows rustls.
//!
//! - The built-in [`Authority`] is a root and two issuers under it, one for operators and executors, one
//!   for steps. Each door trusts only its own issuer.
//! - A certificate is an X509-SVID with narrower rules, see [`svid`].
//! - TLS 1.3 only, a client certificate always, no resumption and no early data: rustls does not ask the
//!   verifier again for a resumed session.
//! - [`Acceptor`] owns the accept loop: one for each socket, so that the socket is part of the identity.

mod acceptor;
mod authority;
mod client;
mod connection;
mod entrance;
mod lobby;
mod pace;
mod patience;
mod pins;
mod quiet;
mod refused;
mod request;
mod root;
mod shares;
mod standing;
pub mod svid;
mod tls;
mod validity;

pub use acceptor::{Acceptor, Gate, Handshakes};
pub use authority::{Authority, AuthorityError, Issued, KeyAndCertificate};
pub use client::{ClientIdentity, ConnectError, TlsClientStream, connect, connect_heard};
pub use connection::{Connection, Peer};
pub use entrance::{Entrance, Stand};
pub use lobby::LobbyLimits;
pub use pace::{PIECE_BYTES, PaceLimits};
pub use patience::{OpenRequest, Patience, Traffic, WaitingReply};
pub use pins::{LetIn, NotLetIn, OpenConnections};
pub use refused::REFUSALS;
pub use request::{
    PemFault, RequestError, check_certificate, check_pair, check_private_key,
    first_certificate_end, new_request, request_for, requested_key,
};
pub use root::RootKey;
pub use standing::{Amount, Commons, DoorShares, Lane, Large, Present, Standing, WaitingForLarge};
pub use svid::{Svid, SvidError};
pub use tls::{Door, DoorConfig, TlsError};
pub use validity::{Role, Validity, check_issued};
