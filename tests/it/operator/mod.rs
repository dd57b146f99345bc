//! Connections, groups, integrations and secrets: written, planned, listed, explained, journaled and measured. A test
//! belongs here if an operator asks and the answer depends on the state of the broker.

mod backup;
mod connections;
mod declarative;
mod explain;
mod groups;
mod import_formats;
mod importing;
mod journal;
mod lists;
mod metrics;
pub mod own_integrations;
mod releases;
mod seeding;
mod usage;
mod value_checks;
mod whole_groups;
