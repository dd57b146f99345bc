//! What keyhatch promises, each promise a test, through the real sockets with real clients.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod cli;
mod durability;
mod executor;
mod harness;
mod load;
mod meta;
mod operator;
mod security;
mod step;
