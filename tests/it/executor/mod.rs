//! Executors register, open, renew and close steps, and look at runs. A test belongs here if an executor sends the
//! request.

mod enrolment;
mod names;
mod registry;
mod runs;
