//! Masks: the values of sensitive fields are replaced in what a command prints, and in what an upstream answers (pure).
//!
//! | file | |
//! |---|---|
//! | `parts`, `keys`, `logins`, `pem` | which parts of a value are secret |
//! | `forms`, `literals` | how programs print them |
//! | `masks` | the values to mask |
//! | `patterns`, `search`, `escapes`, `names` | where those forms are in a text, and in names of headers |
//! | `stream` | a stream of output, with those forms masked |

mod escapes;
mod forms;
mod keys;
mod literals;
mod logins;
mod masks;
mod names;
mod parts;
mod patterns;
mod pem;
mod search;
mod stream;

pub use masks::Masks;
pub use parts::{LEAST_BYTES, Unmasked};
pub use patterns::Patterns;
pub use search::TooLarge;
pub use stream::StreamMask;
