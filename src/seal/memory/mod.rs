//! Memory that holds keys and values, and how it is kept from others.

pub(super) mod allocator;
pub(super) mod protection;
pub(super) mod secret_memory;
