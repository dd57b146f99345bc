//! Everything that requests and replies of every service pass.

pub(super) mod admission;
mod apply_turns;
pub mod codec;
pub(super) mod count;
pub(super) mod health;
pub(super) mod in_flight;
pub(super) mod methods;
pub(super) mod padding;
pub(super) mod patience;
pub(super) mod peer;
pub(super) mod reflection;
pub(super) mod reply_bytes;
pub(super) mod request_class;
pub(super) mod request_form;
pub(super) mod unknown_fields;
