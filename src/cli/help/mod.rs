//! The help of the commands, for shells and for man(1).

pub(super) mod completion;
pub(super) mod manual;
pub(super) mod tree;
