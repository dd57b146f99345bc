//! The commands of administrators.

pub(super) mod backup;
mod bundle;
pub(super) mod context;
pub(super) mod enrolment;
pub(super) mod issuer;
pub(super) mod kek;
pub(super) mod key;
pub(super) mod registry;
pub(super) mod renew;
