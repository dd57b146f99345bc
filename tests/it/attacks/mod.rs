//! What somebody tries who may do a little and wants more.

mod decision_ids;
mod directories;
mod doors;
mod enrolment;
mod executors;
mod groups;
mod health;
mod helpers;
mod importing;
mod journal_growth;
mod journal_origin;
mod journal_readers;
mod keyring;
mod lengths;
mod memory;
mod plans;
mod reading;
mod relay_bomb;
mod request_ids;
mod variables;
