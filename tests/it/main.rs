//! What keyhatch promises, each promise a test, through the real sockets with real clients.

mod authentication;
mod bad_input;
mod clients;
mod command_line;
mod directories;
mod harness;
mod layering;
mod leases;
mod readme;
mod recovery;
mod resolve;
mod secrecy;
mod seeding;
mod tampering;
