//! Directories, files, users and local HTTP of this system: the only room that opens a directory to work in.
//!
//! [`Trust`] decides which directories are safe to work in; [`Directory`] is a directory that is open and safe.

mod acl;
mod directory;
pub(crate) mod files;
pub mod input;
pub mod local_http;
pub mod notify;
mod trust;
mod user;

pub use acl::{Grantees, Permission, copy_list, copy_list_of_open};
pub use directory::{Directory, Lock, names_in};
pub use trust::{DirectoryError, Trust, others_may_write};
pub use user::{OtherUser, as_owner, as_owner_of, group_id};
