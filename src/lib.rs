pub mod access;
pub mod integration;
pub mod lease;
pub mod model;
pub mod seal;
