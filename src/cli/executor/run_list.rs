//! `keyhatch run list`: the runs that the journal knows, as an operator.

use prost_types::Timestamp;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::list;
use crate::cli::io::pages;
use crate::cli::io::time::{self, moment, second};
use crate::cli::operator::parts::listing::{Listing, say_total, term};
use crate::grpc::pb;
use crate::grpc::pb::run_service_client::RunServiceClient;

/// Arguments of `run list`.
#[derive(clap::Args)]
pub struct RunList {
    /// Only runs of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Runs that did something since then: 2026-01-31T12:00:00Z, or a duration ago. Runs with open steps are always
    /// listed.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time::since)]
    since: Timestamp,
    /// Only runs with an open step.
    #[arg(long)]
    open: bool,
    /// Only runs with a step that was refused something.
    #[arg(long)]
    denied: bool,
    #[command(flatten)]
    listing: Listing,
}

impl RunList {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let endpoint = Endpoint::find(Caller::Operator, common.place())?;
        let channel = endpoint.connect().await?;
        let runs = self.found(&channel).await;
        let runs = runs.map_err(|failure| for_operators(failure, &endpoint))?;
        let rows: Vec<_> = runs.iter().map(to_json).collect();
        let columns = [
            ("workflow", "workflow"),
            ("run", "run"),
            ("executor", "executor"),
            ("openings", "openings"),
            ("open", "open"),
            ("uses", "uses"),
            ("denials", "denials"),
            ("first", "first_time"),
            ("last", "last_time"),
        ];
        let nothing = format!("no runs since {}", second(Some(&self.since)));
        list(common.output, &rows, "run", &columns, &nothing)
    }

    async fn found(&self, channel: &Channel) -> Result<Vec<pb::RunSummary>, Failure> {
        let workflow = self.workflow.as_deref().map(|name| term("workflow", "=", name));
        let open = self.open.then(|| "open = true".to_owned());
        let denied = self.denied.then(|| "denied = true".to_owned());
        let terms = workflow.transpose()?.into_iter().chain(open).chain(denied);
        let wanted = pb::ListRunsRequest {
            filter: self.listing.filter(terms)?,
            order_by: self.listing.order_or("last_time desc"),
            since: Some(self.since),
            ..Default::default()
        };
        let Some(page_size) = self.listing.limit else { return pages::runs(channel, wanted).await };
        let first = pb::ListRunsRequest { page_size, ..wanted };
        let found = RunServiceClient::new(channel.clone()).list_runs(first).await?.into_inner();
        say_total(found.runs.len(), found.total_size, found.total_size_estimated);
        Ok(found.runs)
    }
}

/// Adds what an executor can do, which may not ask this.
fn for_operators(failure: Failure, asked: &Endpoint) -> Failure {
    let executor = asked.executor().filter(|_| failure.reason == "ROLE_REQUIRED");
    let Some(executor) = executor else { return failure };
    let message = format!(
        "{} and this is {executor}: ask with KEYHATCH_DIR=DIRECTORY keyhatch run list, the directory being an operator's; an \
         executor's own are in keyhatch step list and keyhatch run show RUN",
        failure.message
    );
    Failure { message, ..failure }
}

fn to_json(run: &pb::RunSummary) -> Json {
    json!({
        "workflow": run.workflow,
        "run": run.run,
        "executor": run.executor,
        "openings": run.opened_steps,
        "open": run.open_steps,
        "uses": run.use_count,
        "denials": run.denial_count,
        "first_time": moment(run.first_time.as_ref()),
        "last_time": moment(run.last_time.as_ref()),
    })
}
