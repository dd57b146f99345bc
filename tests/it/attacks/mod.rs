//! What somebody tries who may do a little and wants more.

mod directories;
mod doors;
mod groups;
mod helpers;
mod lengths;
mod relay_bomb;
mod variables;
