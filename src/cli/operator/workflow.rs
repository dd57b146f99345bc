//! `keyhatch workflow`: the workflows that have had steps.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::list;
use crate::cli::io::pages;
use crate::cli::io::time::moment;
use crate::cli::operator::parts::listing::{Listing, say_total};
use crate::grpc::pb;
use crate::grpc::pb::run_service_client::RunServiceClient;

#[derive(Subcommand)]
pub enum WorkflowCommand {
    /// List the workflows that have had a step, with when and how much they did
    #[command(alias = "ls")]
    List(WorkflowListArgs),
}

#[derive(clap::Args)]
pub struct WorkflowListArgs {
    /// Only workflows with an open step.
    #[arg(long)]
    open: bool,
    /// Only workflows with a step that was refused something.
    #[arg(long)]
    denied: bool,
    #[command(flatten)]
    listing: Listing,
}

impl WorkflowCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::List(list) = self;
        list.run(common).await
    }
}

impl WorkflowListArgs {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let open = self.open.then(|| "open = true".to_owned());
        let denied = self.denied.then(|| "denied = true".to_owned());
        let wanted = pb::ListWorkflowsRequest {
            filter: self.listing.filter(open.into_iter().chain(denied))?,
            order_by: self.listing.order_or("last_time desc"),
            ..Default::default()
        };
        let workflows = match self.listing.limit {
            None => pages::workflows(&channel, wanted).await?,
            Some(page_size) => {
                let first = pb::ListWorkflowsRequest { page_size, ..wanted };
                let mut client = RunServiceClient::new(channel);
                let found = client.list_workflows(first).await?.into_inner();
                say_total(found.workflows.len(), found.total_size, found.total_size_estimated);
                found.workflows
            }
        };
        let rows: Vec<_> = workflows.iter().map(to_json).collect();
        let columns = [
            ("workflow", "workflow"),
            ("runs", "runs"),
            ("openings", "openings"),
            ("open", "open"),
            ("uses", "uses"),
            ("denials", "denials"),
            ("first", "first_time"),
            ("last", "last_time"),
        ];
        list(common.output, &rows, "workflow", &columns, "no workflow has had a step")
    }
}

fn to_json(one: &pb::WorkflowSummary) -> Json {
    json!({
        "workflow": one.workflow,
        "runs": one.run_count,
        "openings": one.opened_steps,
        "open": one.open_steps,
        "uses": one.use_count,
        "denials": one.denial_count,
        "first_time": moment(one.first_time.as_ref()),
        "last_time": moment(one.last_time.as_ref()),
    })
}
