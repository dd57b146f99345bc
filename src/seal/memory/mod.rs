//! Memory for keys and values, and its protection.

pub(super) mod allocator;
pub(super) mod protection;
pub(super) mod secret_memory;
