//! From a certificate to the identity of a caller. The only room that uses rustls.
//!
//! - The built-in [`Authority`] is a root with two issuers: one for operators and executors, one for steps. Each door
//!   trusts its own issuer only.
//! - A certificate is an X509-SVID with narrower rules, see [`certificate::svid`].
//! - TLS 1.3 only, always with a client certificate. There is no resumption and no early data, because rustls does not
//!   call the verifier for a resumed session.
//! - [`Issuer`] signs the tokens that name a step to others.
//! - [`Acceptor`] is the accept loop of one socket, so the socket is a part of the identity.

mod accept;
pub mod certificate;
mod client;
mod issuer;
mod socket;
mod tls;

pub use accept::acceptor::{Acceptor, Handshakes, ListenerConfig};
pub use accept::admission::{Admission, FindQuota};
pub use accept::certificate_check::{CertificateCheck, CertificateRefusal, OpenConnections};
pub use accept::connection::{Peer, PeerConnection};
pub use accept::handshake_slots::HandshakeLimits;
pub use accept::listener::Listener;
pub use accept::quota::{
    Allotment, Lane, OversizeTurn, OversizeWaiter, PeerQuota, QuotaLimits, QuotaPool, WeakMap,
};
pub use accept::rate_limiter::PIECE_BYTES;
pub use accept::refused::{REFUSALS, Refusals};
pub use accept::timeouts::{OpenRequest, Timeouts, Traffic, WaitingReply};
pub use certificate::alone::certificates_alone;
pub use certificate::authority::{Authority, AuthorityError, Issued, KeyAndCertificate};
pub use certificate::end_point::server_end_point;
pub use certificate::request::{
    PemFault, RequestError, check_certificate, check_pair, check_private_key, first_validity,
    new_request, private_key_der, request_for, requested_key,
};
pub use certificate::root::RootKey;
pub use certificate::svid::{Svid, SvidError};
pub use certificate::validity::{CertificateRole, Validity, check_issued};
pub use client::{
    BrokerAddress, ClientIdentity, ConnectError, RemoteBroker, TlsClientStream, connect,
    connect_heard,
};
pub use issuer::{
    DISCOVERY, Issuer, IssuerDocuments, IssuerError, IssuerKeys, IssuerUrl, KEY_SET, KeyUse,
    PublishedKey,
};
pub use socket::{Origin, Socket};
pub use tls::{ServerTls, ServerTlsConfig, TlsError};
