//! The commands of whoever runs the daemon.

pub(super) mod configuration;
pub(super) mod dev;
pub(super) mod doctor;
pub(super) mod healthcheck;
pub(super) mod init;
pub(super) mod serve;
pub(super) mod status;
pub(super) mod unit;
