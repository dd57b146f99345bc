//! Who a command speaks as, and how it reaches the broker.

pub(super) mod endpoint;
pub(super) mod identity_file;
pub(super) mod patience;
pub(super) mod renewal;
pub(super) mod session;
pub(super) mod unreachable;
