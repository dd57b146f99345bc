//! keyhatch: a secrets broker beside a workflow executor.
//!
//! # The rooms
//!
//! Each may use only those below it; `tests/it/meta/layering.rs` holds this table.
//!
//! | layer | room | what is in it |
//! |---|---|---|
//! | 8 | [`cli`] | every command |
//! | 7 | [`daemon`] | wires the parts, serves, drains |
//! | 6 | [`grpc`] | the edge: tonic, protobuf, status codes |
//! | 5 | [`broker`] | the use cases, one file a story |
//! | 4 | [`catalog`] | what is known, in memory |
//! | 4 | [`store`] | the sealed store on disk: sled |
//! | 3 | [`journal`] | decisions before they take effect; permits; openings and leases |
//! | 2 | [`access`] | who may do what (pure) |
//! | 2 | [`lease`] | for how long (pure) |
//! | 2 | [`seal`] | keys and sealed records: chacha20poly1305 |
//! | 2 | [`identity`] | CA, certificates, TLS: rustls |
//! | 2 | [`integration`] | the types of connections |
//! | 2 | [`config`] | the daemon's configuration |
//! | 2 | [`relay`] | Puppet Relay's specs: references, expressions, evaluation (pure) |
//! | 1 | [`metrics`] | what is counted, and its text: prometheus_client |
//! | 1 | [`model`] | the words, parsed and checked |
//! | 1 | [`sys`] | directories that are fit to work in; users and access control lists: rustix |
//!
//! # How one Resolve flows
//!
//! ```text
//! socket ─ identity ─ grpc ─ broker (synchronous, on one snapshot) ─────────────── grpc ─ socket
//!          TLS, SVID   pb →   catalog.connection(name)        no bindings when absent
//!          → Peer      model  access::decide(…)               → Decision
//!                             lease::propose(…)               → Terms
//!                             journal.commit(…)               → Permit, or Stale: decide again
//!                             permit.open(sealed, keyring)    → values → pb, wiped on drop
//! ```
//!
//! No plaintext without a [`journal::Permit`], no permit without a journal line.
//!
//! # Threat model
//!
//! | who | what is done about it |
//! |---|---|
//! | hostile code in a step | has its own socket and certificate only; what it may resolve is decided by name, and what it may not have looks like what does not exist |
//! | another user on the host | works in no directory that others can change, from the top down; steps' directories by access control list, never by a secret name; SO_PEERCRED beside the certificate; no core dumps; metrics, if they are told, are counts and names of operators and executors |
//! | whoever reads freed memory | every heap block is wiped when it is freed |
//! | whoever reads another process's memory | the keys that seal the store are where nobody else can read, if the kernel has such memory; values are not |
//! | a stolen step certificate | works on its own socket only, until the step closes |
//! | a stolen disk or backup | sealed, names too; the KEK is to be kept elsewhere. The journal shows names |
//! | somebody who edits the disk | every record is bound to its place, every line is chained and tagged, the whole store has a digest: the broker refuses to start |
//! | an older journal that ends after the last change, or older copies of store and journal together | not noticed without an outside copy (`serve --expect-head`, `journal verify --expect`): what the missing lines said is lost |
//! | a curious operator | can write values and never read them; a destination changes only together with the secrets |
//! | root on the host, a compromised executor | not withstood: it can be every step |

pub mod access;
pub mod broker;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod grpc;
pub mod identity;
pub mod integration;
pub mod journal;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod relay;
pub mod seal;
pub mod store;
pub mod sys;
