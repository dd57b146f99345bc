//! Certificates: issuing, reading and checking them.

pub(super) mod alone;
pub(super) mod authority;
pub(super) mod end_point;
pub(super) mod request;
pub(super) mod root;
pub mod svid;
pub(super) mod validity;
