//! Access: who may do what, decided by pure functions over parsed values.
//!
//! - Deny by default: what no binding admits is refused.
//! - Relations are cumulative, viewer ⊂ user ⊂ resolver ⊂ editor.
//!   Datadog: "Viewer: Can view the connection. Resolver: Can resolve and view the connection.
//!   Editor: Can edit, resolve, and view the connection." A user is ours: the broker acts with the connection for a
//!   user, who gets no value.
//! - A connection that does not exist has no bindings, so it is refused by the same path as one that a
//!   step may not resolve.
//! - A block counts more than every binding: what is blocked is refused by that path, too.

mod bindings;
mod block;
mod decide;
mod glob;
mod pattern;
mod principal;
mod purpose;
mod scope;

pub use bindings::{Bindings, Relation};
pub use block::{Block, BlockTarget, Blocks};
pub use decide::{Decision, Examined, decide, decide_edit, decide_secret, examine, held};
pub use glob::{Glob, Prefix};
pub use pattern::Pattern;
pub use principal::{Principal, Role};
pub use purpose::Purpose;
pub use scope::{RunAsPattern, Scope};
