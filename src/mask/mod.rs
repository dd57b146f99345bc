//! Masks: the values of sensitive fields are replaced in what a command prints, and in what an upstream answers (pure).
//!
//! | file | |
//! |---|---|
//! | `parts`, `keys`, `logins`, `pem` | which parts of a value are secret |
//! | `forms`, `literals` | how programs print them |
//! | `masks`, `escapes`, `names` | a stream of output, with those forms masked; names of headers that have them |

mod escapes;
mod forms;
mod keys;
mod literals;
mod logins;
mod masks;
mod names;
mod parts;
mod pem;

pub use masks::{Masks, Patterns, StreamMask, TooLarge};
pub use parts::{LEAST_BYTES, Unmasked};
