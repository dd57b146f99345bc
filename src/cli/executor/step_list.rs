//! `keyhatch step list`

use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::print;
use crate::cli::io::pages;
use crate::cli::io::text::table;
use crate::cli::io::time::moment;
use crate::grpc::pb;

/// The column of executors in the list.
const EXECUTOR: usize = 3;

/// Arguments of `step list`.
#[derive(clap::Args)]
pub struct StepList {
    /// Only this workflow's steps.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

impl StepList {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        // Operators see every executor's.
        let endpoint = Endpoint::find_any(common.state.as_deref())?;
        let mut steps = pages::steps(&endpoint.connect().await?, self.workflow.as_deref()).await?;
        let by_name =
            |step: &pb::Step| (step.workflow.clone(), step.run.clone(), step.step.clone());
        steps.sort_by_cached_key(by_name);
        let answer: Vec<_> = steps.iter().map(to_json).collect();
        let rows = || {
            let rows = steps.iter().map(|step| {
                vec![
                    step.workflow.clone(),
                    step.run.clone(),
                    step.step.clone(),
                    step.executor.clone(),
                    step.attempt.to_string(),
                    step.live_leases.to_string(),
                    moment(step.expire_time.as_ref()),
                    step.name.clone(),
                ]
            });
            let mut header = vec![
                "workflow", "run", "step", "executor", "attempt", "leases", "until", "opening",
            ];
            let mut rows: Vec<Vec<String>> = rows.collect();
            match (steps.is_empty(), endpoint.executor()) {
                (true, Some(executor)) => format!("no open steps of {executor}"),
                (true, None) => "no open steps".to_owned(),
                (false, None) => table(&header, rows),
                (false, Some(_)) => {
                    // All are its own.
                    header.remove(EXECUTOR);
                    rows.iter_mut().for_each(|row| drop(row.remove(EXECUTOR)));
                    table(&header, rows)
                }
            }
        };
        let names = || steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>().join("\n");
        print(common.output, &answer, rows, names)
    }
}

fn to_json(step: &pb::Step) -> serde_json::Value {
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
