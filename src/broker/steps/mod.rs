//! Steps: opened, renewed, closed, listed; their sessions, and their directories.

mod executor_budget;
pub(super) mod line_budget;
pub(super) mod list;
pub(super) mod maintenance;
pub(super) mod may_open;
pub(super) mod openings;
pub(super) mod reaper;
pub(super) mod request;
pub(super) mod runs;
pub(super) mod runtime_dir;
pub(super) mod session;
pub(super) mod sessions;
pub(super) mod used;
