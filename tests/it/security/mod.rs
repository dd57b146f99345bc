//! Limits of knowledge and action: identities, access, values in memory and in replies, keys, and attempts to gain
//! more. A test belongs here if its promise holds against somebody who tries to break it.

pub mod access_table;
mod attacks;
mod authentication;
mod canaries;
mod certificates;
mod equal_work;
mod handshakes;
mod keys;
mod memory;
mod padding;
pub mod secrecy;
mod tampering;
mod tcp_door;
mod user_relation;
mod users;
