//! The commands of an operator.

pub(super) mod access;
pub(super) mod apply;
mod bindings;
pub(super) mod check;
pub(super) mod connection;
pub(super) mod diff;
pub(super) mod ending;
pub(super) mod explain;
pub(super) mod export;
pub(super) mod group;
pub(super) mod import;
pub(super) mod incident;
pub(super) mod integration;
pub(super) mod journal;
mod labels;
pub(super) mod parts;
pub(super) mod plan;
mod prune;
mod release;
mod resource;
pub(super) mod secret;
pub(super) mod seed;
pub(super) mod workflow;
