//! `keyhatch diff`: what apply would change.

use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::apply::{Files, counted, split, word};
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::output::{print, printable, say};
use super::seed::Seed;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// What is there differs from the files, as diff(1) and `kubectl diff` say it; errors are above.
const DIFFERS: u8 = 1;
const TROUBLE: u8 = 2;

/// Arguments of `diff`.
#[derive(clap::Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
}

impl Diff {
    pub(super) async fn run(self, common: &Common) -> Result<u8, Failure> {
        self.compare(common).await.map_err(|failure| match failure.exit_code {
            exit::FAILED => failure.with_exit_code(TROUBLE),
            _ => failure,
        })
    }

    async fn compare(self, common: &Common) -> Result<u8, Failure> {
        let seeds = self.files.read()?;
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        let planned = plan(channel, seeds).await?;
        let is_other = |one: &&pb::PlannedResult| one.action() != pb::ApplyAction::Unchanged;
        let others: Vec<_> = planned.iter().filter(is_other).collect();
        let answer: Vec<_> = others.iter().map(|one| to_json(one)).collect();
        let names = || others.iter().map(|one| one.name.clone()).collect::<Vec<_>>().join("\n");
        let text = || others.iter().map(|one| describe(one)).collect::<Vec<_>>().join("\n");
        if others.is_empty() {
            say(&format!("{} of {} are as the files say", planned.len(), planned.len()));
            return Ok(0);
        }
        print(common.output, &answer, text, names)?;
        say(&format!("{} of {} differ", others.len(), planned.len()));
        Ok(DIFFERS)
    }
}

/// Asks the broker what it would do with the documents.
///
/// # Errors
/// As apply.
pub(super) async fn plan(
    channel: Channel,
    seeds: Vec<Seed>,
) -> Result<Vec<pb::PlannedResult>, Failure> {
    let (documents, places) = split(seeds);
    ask(channel, documents).await.map_err(|status| places.located(status))
}

/// The same of documents that stand in no file.
///
/// # Errors
/// As `ApplyService.Plan`.
pub(super) async fn ask(
    channel: Channel,
    documents: Vec<Document>,
) -> Result<Vec<pb::PlannedResult>, tonic::Status> {
    let message = |document| {
        let document = pb::ApplyRequest { document: Some(document) };
        pb::PlanRequest { document: Some(document) }
    };
    let requests = counted("comparing", documents.into_iter().map(message).collect());
    Ok(ApplyServiceClient::new(channel).plan(requests).await?.into_inner().results)
}

fn to_json(planned: &pb::PlannedResult) -> serde_json::Value {
    let difference = |one: &pb::Difference| json!({ "path": one.path, "old": one.old, "new": one.new, "sensitive": one.sensitive });
    json!({
        "name": planned.name,
        "action": word(planned.action()),
        "differences": planned.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}

fn describe(planned: &pb::PlannedResult) -> String {
    let sign = match planned.action() {
        pb::ApplyAction::Created => "+",
        _ => "~",
    };
    let line = |one: &pb::Difference| match (one.sensitive, &one.old, &one.new) {
        (true, ..) | (_, None, None) => format!("\n    {}: (changed)", one.path),
        (_, Some(old), Some(new)) => {
            format!("\n    {}: {} -> {}", one.path, printable(old), printable(new))
        }
        (_, None, Some(new)) => format!("\n  + {}: {}", one.path, printable(new)),
        (_, Some(old), None) => format!("\n  - {}: {}", one.path, printable(old)),
    };
    let lines: String = planned.differences.iter().map(line).collect();
    format!("{sign} {}{lines}", planned.name)
}
