//! How executors register, open, renew and close steps, and what is known of a run.
//! A test belongs here if an executor is the one that asks.

mod enrolment;
mod names;
mod registry;
mod runs;
