//! Steps: opened, renewed, closed, listed, and the directories that they live in.

pub(super) mod directory;
pub(super) mod housekeeping;
pub(super) mod list;
pub(super) mod listeners;
pub(super) mod may_open;
pub(super) mod openings;
pub(super) mod reaper;
pub(super) mod runs;
