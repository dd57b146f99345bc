//! Minted credentials: who shares them, how long they are kept, and the flights that ask an upstream for them.
//!
//! ```text
//! Resolve ─ offer ─ a credential
//!               └── join ─ ticket ··················· landing ─ decide again ─ hand out
//!                      └── flight: line ─ root ─ upstream ─ line ─ sealed
//! ```
//!
//! A flight is detached from those who wait for it. It begins with the decision of a live opening.

mod back_off;
mod book;
mod credential;
mod desk;
mod failures;
mod flight;
mod in_use;
mod keeper;
mod key;
mod mint_ends;
mod refresh;
mod spare;
mod turns;

pub(super) use back_off::Trouble;
pub(super) use book::{Landing, Offer};
pub(super) use credential::Credential;
pub(super) use desk::{LandedMint, Mints, RefreshTest, Ticket};
pub(super) use failures::too_many_endings;
pub(super) use flight::{FlightParts, Order};
pub(super) use keeper::Keeper;
pub(super) use key::MintKey;
pub(super) use refresh::{RefreshToken, Refresher, open_roots};
pub(super) use turns::Turn;
