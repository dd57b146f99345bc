//! keyhatch: a secrets broker beside a workflow executor.
//!
//! # The rooms
//!
//! A room may use only rooms of lower layers. `tests/it/meta/layering.rs` checks that.
//!
//! | layer | room | what is in it |
//! |---|---|---|
//! | 8 | [`cli`] | every command |
//! | 7 | [`daemon`] | wires the parts, serves, drains |
//! | 6 | [`grpc`] | the edge: tonic, protobuf, status codes |
//! | 5 | [`broker`] | the use cases |
//! | 4 | [`catalog`] | connections, groups, access and registrations, in memory |
//! | 4 | [`store`] | the sealed store on disk: sled |
//! | 3 | [`mint`] | makes short-lived credentials upstream: one file a protocol |
//! | 3 | [`config`] | the daemon's configuration |
//! | 3 | [`journal`] | writes decisions before they take effect; permits; openings and leases |
//! | 3 | [`ssh`] | logins by ssh: what is signed, keys, the agent protocol (pure) |
//! | 2 | [`access`] | who may do what (pure) |
//! | 2 | [`lease`] | for how long (pure) |
//! | 2 | [`seal`] | keys and sealed records: chacha20poly1305 |
//! | 2 | [`identity`] | CA, certificates, TLS: rustls |
//! | 2 | [`integration`] | the types of connections |
//! | 2 | [`egress`] | the only way out: where to, TLS, one bounded exchange |
//! | 2 | [`relay`] | Puppet Relay's specs: references, expressions, evaluation (pure) |
//! | 1 | [`mask`] | masks values in output and answers (pure) |
//! | 1 | [`metrics`] | metrics and their text forms: prometheus_client |
//! | 1 | [`model`] | names and values, parsed and checked; limits |
//! | 1 | [`sys`] | directories, files, users, access control lists, HTTP on loopback |
//!
//! # How one Resolve flows
//!
//! ```text
//! socket ─ identity ─ grpc ─ broker (synchronous, on one snapshot) ──────────────────── grpc ─ socket
//!          TLS, SVID   pb →   authorize(catalog, step, target)  → Grant (still sealed), or Refusal
//!          → Peer      model  lease::propose(…)                 → Terms
//!                             journal.commit(…)                 → Permit, or Stale: decide again
//!                             permit.open(sealed, keyring)      → values → pb, wiped on drop
//! ```
//!
//! No plaintext without a [`journal::Permit`], no permit without a journal line.
//!
//! # Reading on
//!
//! `docs/architecture.md` walks through one Resolve, one change and one step, file by file. `docs/threat-model.md` says
//! who is resisted and who is not. `docs/decisions/` says why the code is as it is in places that look odd.

pub mod access;
pub mod broker;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod egress;
pub mod grpc;
pub mod identity;
pub mod integration;
pub mod journal;
pub mod lease;
pub mod mask;
pub mod metrics;
pub mod mint;
pub mod model;
pub mod relay;
pub mod seal;
pub mod ssh;
pub mod store;
pub mod sys;
