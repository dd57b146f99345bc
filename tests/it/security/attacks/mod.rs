//! Attempts of clients with few rights to gain more.

mod decision_ids;
mod directories;
mod enrolment;
mod executors;
mod groups;
mod health;
mod helpers;
mod importing;
mod journal_origin;
mod keyring;
mod lengths;
mod plans;
mod relay_bomb;
mod request_ids;
mod variables;
