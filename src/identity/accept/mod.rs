//! From a listening socket to verified connections: accepted, bounded, and ended.

pub(super) mod acceptor;
pub(super) mod admission;
pub(super) mod certificate_check;
pub(super) mod connection;
pub(super) mod fair_share;
pub(super) mod handshake_slots;
pub(super) mod listener;
pub(super) mod network_slots;
pub(super) mod pending;
pub(super) mod quota;
pub(super) mod rate_limiter;
pub(super) mod refused;
pub(super) mod timeouts;
