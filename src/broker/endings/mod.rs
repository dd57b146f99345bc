//! The endings of credentials upstream: begun when nobody may use them any more, tried until they are over.
//!
//! ```text
//! closing, revocation, change, expiry ─ due ─ forgotten by the book ─ line ─ schedule ─ upstream ─ line ─ record removed
//! ```
//!
//! The store keeps sealed what ends a credential, and the journal knows what is owed: an ending needs neither the connection
//! nor the daemon that began it. In quarantine nothing begins, and nothing is asked.

mod attempt;
mod desk;
pub(super) mod list;
mod schedule;
mod standing;
pub(super) mod story;
mod worker;

pub(super) use desk::{EndingParts, Endings};
