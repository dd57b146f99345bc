//! The commands of an administrator.

pub(super) mod backup;
pub(super) mod enrolment;
pub(super) mod kek;
pub(super) mod key;
pub(super) mod registry;
pub(super) mod renew;
