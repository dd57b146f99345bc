//! How connections come in: accepted, admitted, bounded, and ended.

pub(super) mod acceptor;
pub(super) mod connection;
pub(super) mod entrance;
pub(super) mod lobby;
pub(super) mod pace;
pub(super) mod patience;
pub(super) mod pins;
pub(super) mod quiet;
pub(super) mod refused;
pub(super) mod shares;
pub(super) mod standing;
