//! The methods that each role includes, as `OperatorService.WhoAmI` lists them.
//!
//! The broker itself checks roles. The authorization table in the tests holds both to the same answer.

use crate::access::Role;
use crate::grpc::edge::methods::methods;

/// Beginnings of the names of methods that only read, or that concern the caller alone.
const READING: [&str; 7] = ["Explain", "Get", "List", "Renew", "Suggest", "Tail", "WhoAmI"];

/// The methods of ours that a role includes, each as "package.Service/Method", sorted.
pub(super) fn included(role: Role) -> Vec<String> {
    let mut included = methods().admin;
    included.retain(|method| least_role(method).is_some_and(|least| role >= least));
    included.sort_unstable();
    included
}

/// The least role that a method needs; `None` if it is for executors, or of another project.
fn least_role(method: &str) -> Option<Role> {
    let (service, name) = method.strip_prefix("keyhatch.v1.")?.split_once('/')?;
    let is_reading = READING.iter().any(|beginning| name.starts_with(beginning));
    match (service, name) {
        ("ExecutorService", "GetRun" | "ListSteps") => Some(Role::Viewer),
        ("ExecutorService", "CloseRun" | "CloseStep") => Some(Role::Administrator),
        ("ExecutorService", _) => None,
        _ if is_reading => Some(Role::Viewer),
        (
            "ApplyService" | "BlockService" | "ConnectionService" | "GroupService"
            | "ImpactService" | "LeaseService" | "SecretService",
            _,
        ) => Some(Role::Operator),
        _ => Some(Role::Administrator),
    }
}
