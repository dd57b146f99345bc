//! The parts that commands share. To write a command:
//!
//! 1. Its arguments are a `clap::Args` struct in the folder of the people who call it; `cli/mod.rs` gets a variant of
//!    `Command` and an arm of `dispatch`, and `help/examples.txt` an example.
//! 2. `run(self, common: &Common)` connects with `common.operator()`, or with `Endpoint` as a step or an executor, and
//!    makes one request; every `tonic::Status` becomes a [`failure::Failure`] by `?`. [`pages`] has the list RPCs.
//! 3. The answer is `json!` or a struct that derives `Serialize`, for scripts. [`output::list`] and
//!    [`output::show`] print it in every form, and for people only the keys that are named with a title. Where people get
//!    more than that, [`output::print`] takes their text, made with [`text`].
//! 4. Anything beside the answer goes to stderr by [`output::say`]; a question by [`prompt::confirm`].

pub(super) mod child;
pub(super) mod endings;
pub(super) mod failure;
pub(super) mod fingerprint;
pub(super) mod output;
pub(super) mod pages;
pub(super) mod private_file;
pub(super) mod progress;
pub(super) mod prompt;
pub(super) mod remarks;
pub(super) mod signals;
pub(super) mod text;
pub(super) mod time;
pub(super) mod values;
pub(super) mod variable;
