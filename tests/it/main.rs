//! What keyhatch promises, each promise a test, through the real sockets with real clients.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod access_table;
mod authentication;
mod bad_input;
mod certificates;
mod clients;
mod command_line;
mod connections;
mod contention;
mod counted_work;
mod directories;
mod documents;
mod explain;
mod groups;
mod harness;
mod keys;
mod killed;
mod layering;
mod leases;
mod lifecycle;
mod own_integrations;
mod properties;
mod readme;
mod recovery;
mod registry;
mod resolve;
mod runs;
mod secrecy;
mod seeding;
mod sockets;
mod tampering;
mod watch;
