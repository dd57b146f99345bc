//! The promises of keyhatch, each as a test, through the real sockets with real clients.
//!
//! docs/testing.md says where a new test goes and shows one in ten lines. Each folder's head says what belongs there.
//! A test waits for a condition (`wait_until`), never for time, and moves the broker's clock by hand (`advance`).
//! `TestBroker` is a daemon in the test's process. `Steps` and `ServeProcess` run the program as processes.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what it skips"
)]

mod cli;
mod durability;
mod egress;
mod executor;
mod harness;
mod incident;
mod load;
mod meta;
mod mint;
mod operator;
mod security;
mod send;
mod ssh;
mod step;
