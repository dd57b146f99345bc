//! `keyhatch step list`

use serde_json::{Value as Json, json};

use crate::cli::Common;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::list;
use crate::cli::io::pages;
use crate::cli::io::time::moment;
use crate::grpc::pb;

/// Arguments of `step list`.
#[derive(clap::Args)]
pub struct StepList {
    /// Only this workflow's steps.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

impl StepList {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        // An operator sees the steps of every executor.
        let endpoint = Endpoint::find_any(common.place())?;
        let mut steps = pages::steps(&endpoint.connect().await?, self.workflow.as_deref()).await?;
        let by_name =
            |step: &pb::Step| (step.workflow.clone(), step.run.clone(), step.step.clone());
        steps.sort_by_cached_key(by_name);
        let rows: Vec<_> = steps.iter().map(row).collect();
        let executor = endpoint.executor();
        let columns = [
            ("workflow", "workflow"),
            ("run", "run"),
            ("step", "step"),
            ("executor", "executor"),
            ("attempt", "attempt"),
            ("leases", "live_leases"),
            ("until", "expire_time"),
            ("opening", "opening"),
        ];
        let is_shown =
            |column: &(&str, &str)| executor.is_none() || *column != ("executor", "executor");
        let columns: Vec<_> = columns.into_iter().filter(is_shown).collect();
        let of = executor.map(|name| format!(" of {name}")).unwrap_or_default();
        list(common.output, &rows, "opening", &columns, &format!("no open steps{of}"))
    }
}

fn row(step: &pb::Step) -> Json {
    json!({
        "opening": step.name,
        "spiffe_id": step.spiffe_id,
        "workflow": step.workflow,
        "run": step.run,
        "step": step.step,
        "attempt": step.attempt,
        "executor": step.executor,
        "directory": step.directory,
        "open_time": moment(step.open_time.as_ref()),
        "expire_time": moment(step.expire_time.as_ref()),
        "live_leases": step.live_leases,
        "run_as": step.run_as,
    })
}
