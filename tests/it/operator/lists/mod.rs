//! What operators find and are told before they change anything.

mod candidates;
mod impact;
mod resources;
mod runs;
