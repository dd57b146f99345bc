//! Which workflows use a resource.

use serde_json::{Value as Json, json};

use crate::cli::io::time::moment;
use crate::grpc::pb;

/// The uses as rows of properties.
pub fn use_rows(uses: &[pb::ConnectionUse]) -> impl Iterator<Item = (&'static str, String)> {
    uses.iter().map(|one| {
        let last = moment(one.last_use_time.as_ref());
        let uses = format!("workflow {}, {} time(s), last {last}", one.workflow, one.use_count);
        ("used by", uses)
    })
}

/// The uses for scripts.
pub fn uses_json(uses: &[pb::ConnectionUse]) -> Json {
    let one = |one: &pb::ConnectionUse| {
        json!({
            "workflow": one.workflow,
            "use_count": one.use_count,
            "last_use_time": moment(one.last_use_time.as_ref()),
        })
    };
    uses.iter().map(one).collect()
}
