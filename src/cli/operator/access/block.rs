//! `keyhatch access block|unblock|blocks`: what nobody may use for now, whatever the bindings say.

use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::endings::{pending_json, pending_lines};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{list, print};
use crate::cli::io::pages;
use crate::cli::io::text::short_name;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::block_service_client::BlockServiceClient;
use crate::model::{ConnectionRef, ResourceName, RunName, StepName, WorkflowName, WorkflowPath};

/// What is blocked, and why it is or is no more.
#[derive(clap::Args)]
pub struct BlockArgs {
    /// INTEGRATION/NAME of a connection; or give --workflow.
    #[arg(value_name = "REF", required_unless_present = "workflow", conflicts_with = "workflow")]
    reference: Option<String>,
    /// The workflow; alone, or with --run and --step. For administrators.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// A run of the workflow.
    #[arg(long, value_name = "NAME", requires = "workflow")]
    run: Option<String>,
    /// A step of the run.
    #[arg(long, value_name = "NAME", requires = "run")]
    step: Option<String>,
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl BlockArgs {
    /// As the API names it.
    fn target(&self) -> Result<String, Failure> {
        if let Some(reference) = &self.reference {
            let name = reference.parse::<ConnectionRef>()?;
            return Ok(ResourceName::Connection(name).to_text());
        }
        let path = WorkflowPath {
            workflow: WorkflowName::parse(self.workflow.as_deref().unwrap_or_default())?,
            run: self.run.as_deref().map(RunName::parse).transpose()?,
            step: self.step.as_deref().map(StepName::parse).transpose()?,
        };
        Ok(path.to_string())
    }

    pub(super) async fn block(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let request = pb::BlockRequest { target: self.target()?, reason: self.reason };
        let done = BlockServiceClient::new(channel).block(request).await?.into_inner();
        let block = done.block.unwrap_or_default();
        let mut answer = row(&block);
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("revoked_leases".to_owned(), done.revoked_leases.into());
            answer.insert("pending_endings".to_owned(), pending_json(&done.pending_endings));
        }
        let text = || {
            let (since, leases) = (moment(block.time.as_ref()), done.revoked_leases);
            let target = shown(&block.target);
            let done_so = format!(
                "{target} is blocked since {since}, by {}: {}; {leases} lease(s) revoked",
                block.principal, block.reason
            );
            let lines = std::iter::once(done_so).chain(pending_lines(&done.pending_endings));
            lines.collect::<Vec<_>>().join("\n")
        };
        print(common.output, &answer, text, || block.target.clone())
    }

    pub(super) async fn unblock(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let request = pb::UnblockRequest { target: self.target()?, reason: self.reason };
        let done = BlockServiceClient::new(channel).unblock(request).await?.into_inner();
        let block = done.block.unwrap_or_default();
        let text = || format!("{} is no longer blocked", shown(&block.target));
        print(common.output, &row(&block), text, || block.target.clone())
    }
}

/// Lists all blocks.
pub(super) async fn list_all(common: &Common, channel: Channel) -> Result<(), Failure> {
    let blocks = pages::blocks(&channel).await?;
    let rows: Vec<_> = blocks.iter().map(row).collect();
    let columns =
        [("blocked", "blocked"), ("since", "time"), ("by", "principal"), ("why", "reason")];
    list(common.output, &rows, "blocked", &columns, "nothing is blocked")
}

/// A target as people write it.
fn shown(target: &str) -> &str {
    if target.starts_with("connections/") { short_name(target) } else { target }
}

fn row(block: &pb::AccessBlock) -> Json {
    json!({
        "blocked": shown(&block.target),
        "principal": block.principal,
        "reason": block.reason,
        "time": moment(block.time.as_ref()),
    })
}
