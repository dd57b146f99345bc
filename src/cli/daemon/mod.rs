//! The commands for running a daemon.

pub(super) mod broker_args;
pub(super) mod configuration;
pub(super) mod dev;
pub(super) mod doctor;
pub(super) mod healthcheck;
pub(super) mod init;
pub(super) mod serve;
pub(super) mod status;
pub(super) mod unit;
