//! Steps: opened, renewed, closed, listed, and the directories that they live in.

pub(super) mod list;
pub(super) mod listeners;
pub(super) mod maintenance;
pub(super) mod may_open;
pub(super) mod openings;
pub(super) mod reaper;
pub(super) mod runs;
pub(super) mod runtime_dir;
