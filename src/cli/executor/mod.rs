//! The commands of an executor.

pub(super) mod open_step;
pub(super) mod placeholder;
pub(super) mod run;
mod run_list;
pub(super) mod step;
mod step_list;
pub(super) mod step_run;
