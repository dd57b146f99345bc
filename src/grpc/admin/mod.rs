//! The services of the admin door.

mod abilities;
pub(super) mod apply;
pub(super) mod block;
pub(super) mod call;
pub(super) mod connection;
pub(super) mod executor;
pub(super) mod group;
pub(super) mod impact;
pub(super) mod integration;
pub(super) mod lease;
pub(super) mod registry;
pub(super) mod run;
pub(super) mod secret;
pub(super) mod system;
