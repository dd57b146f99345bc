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
mod attacks;
mod authentication;
mod backup;
mod bad_input;
mod bit_flips;
mod canaries;
mod certificates;
mod checking;
mod children;
mod clients;
mod command_line;
mod connections;
mod contention;
mod counted_work;
mod declarative;
mod descriptors;
mod directories;
mod disk;
mod disk_faults;
mod documents;
mod edge;
mod enrolment;
mod exec;
mod explain;
mod floods;
mod following;
mod formats;
mod fuzz_corpus;
mod given_values;
mod groups;
mod handshakes;
mod hanging_disk;
mod harness;
mod helpers;
mod import_formats;
mod importing;
mod injecting;
mod journal;
mod keys;
mod kill_nine;
mod killed;
mod layering;
mod leases;
mod lifecycle;
mod masking;
mod memory;
mod metrics;
mod names;
mod operating;
mod own_integrations;
mod padding;
mod power_cuts;
mod properties;
mod readme;
mod recovery;
mod registry;
mod relay;
mod resolve;
mod restarts;
mod room;
mod runs;
mod secrecy;
mod seeding;
mod slips;
mod sockets;
mod static_program;
mod tampering;
mod tools;
mod transcript;
mod units;
mod unreachable;
mod upgrades;
mod usage;
mod users;
mod watch;
mod whole_groups;
