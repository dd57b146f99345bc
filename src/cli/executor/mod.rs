//! The commands of an executor.

pub(super) mod placeholder;
pub(super) mod run;
pub(super) mod run_list;
pub(super) mod step;
pub(super) mod step_run;
