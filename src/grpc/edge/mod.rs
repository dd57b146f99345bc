//! What every request and reply passes, whichever service it is for.

pub(super) mod budget;
pub mod codec;
pub(super) mod count;
pub(super) mod door;
pub(super) mod health;
pub(super) mod known;
pub(super) mod methods;
pub(super) mod padding;
pub(super) mod peer;
pub(super) mod places;
pub(super) mod reflection;
pub(super) mod strict;
