//! What somebody tries who may do a little and wants more.

mod directories;
mod doors;
mod groups;
mod helpers;
mod importing;
mod lengths;
mod plans;
mod relay_bomb;
mod variables;
