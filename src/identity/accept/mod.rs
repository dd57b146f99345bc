//! How connections come in: accepted, admitted, bounded, and ended.

pub(super) mod acceptor;
pub(super) mod admission;
pub(super) mod certificate_check;
pub(super) mod connection;
pub(super) mod fair_share;
pub(super) mod handshake_slots;
pub(super) mod log_limit;
pub(super) mod quota;
pub(super) mod rate_limiter;
pub(super) mod refused;
pub(super) mod timeouts;
