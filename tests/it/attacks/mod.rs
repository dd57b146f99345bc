//! What somebody tries who may do a little and wants more.

mod groups;
mod lengths;
