//! The program as people and scripts use it: arguments, error messages, `check`, `doctor`, manual and units. A test
//! belongs here if it is about the command line itself rather than about a decision of the broker.

mod bad_input;
mod checking;
mod command_line;
mod doctor;
mod hints;
mod packaging;
mod relations;
mod releases;
mod static_program;
mod units;
mod unreachable;
