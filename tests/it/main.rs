//! The promises of keyhatch, each as a test, through the real sockets with real clients.
//!
//! A new test goes into the folder whose subject it promises something about:
//!
//! | folder | who asks, or what is tried |
//! |---|---|
//! | `step` | a step, or a tool inside a step |
//! | `executor` | an executor: steps opened and closed, runs, registration |
//! | `operator` | an operator: connections, groups, secrets, journal, metrics |
//! | `cli` | the command line itself: arguments, messages, `check`, `doctor`, units |
//! | `security` | somebody who may do less than they try |
//! | `durability` | a kill, a restart, a failing disk, an upgrade |
//! | `load` | one client that does much, or is slow, beside others |
//! | `meta` | the sources, the documents and the dependencies, without a broker |
//!
//! `tests/run --quick` leaves out `durability` and `load`. A test's name is a sentence of at most 60 characters. It
//! waits for a condition (`wait_until`), never for time, and moves the broker's clock by hand (`advance`). Most tests
//! need ten lines:
//!
//! ```ignore
//! #[test]
//! fn a_step_gets_the_version_that_was_written_last() {
//!     let broker = TestBroker::start(); // a daemon in this process, with its own CA and clock
//!     broker.create_aws("prod", "first", &["workflow:deploy"]);
//!     let step = broker.open("deploy", "build"); // opened as the local executor, connected as the step
//!     assert_eq!(broker.resolve(&step, "aws/prod").unwrap().version, 1);
//!     let document = connection_document("aws/prod", &[("secret_access_key", "next")], vec![]);
//!     broker.apply(vec![document]).unwrap();
//!     assert_eq!(broker.resolve(&step, "aws/prod").unwrap().version, 2);
//!     assert_eq!(reason(broker.resolve(&step, "aws/other")), "RESOLVE_DENIED");
//! }
//! ```
//!
//! `Steps` is the same with the program as processes: `Steps::seeded(document)`, `steps.text(&["get", "aws/prod"])`.
//! `ServeProcess` is a daemon as a process, for tests that kill it or run it as another user.

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
mod executor;
mod harness;
mod load;
mod meta;
mod operator;
mod security;
mod step;
