//! `keyhatch apply`: seeding from files.

use std::path::PathBuf;

use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::endpoint::{Caller, connect};
use super::failure::Failure;
use super::output::{Output, print};
use super::seed::{self, SeedContext};
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// Arguments of `apply`.
#[derive(clap::Args)]
pub struct Apply {
    /// A seed file, a directory of *.yaml and *.yml files, or - for stdin; may be given more than once.
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The workflow of secrets that name none.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
}

impl Apply {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let context = SeedContext { workflow: self.workflow.as_deref(), default_resolver: None };
        let documents = read_all(&self.file, &context)?;
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        let results = apply(channel, documents).await?;
        print_results(common.output, &results)
    }
}

/// Reads every document of these files and directories.
pub(super) fn read_all(
    paths: &[PathBuf],
    context: &SeedContext<'_>,
) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        if !path.is_dir() {
            documents.extend(seed::read(path, context)?);
            continue;
        }
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
        files.sort();
        for file in files {
            documents.extend(seed::read(&file, context)?);
        }
    }
    Ok(documents)
}

/// Sends the documents to the broker.
pub(super) async fn apply(
    channel: Channel,
    documents: Vec<Document>,
) -> Result<Vec<pb::ApplyResult>, Failure> {
    let requests =
        documents.into_iter().map(|document| pb::ApplyRequest { document: Some(document) });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    Ok(ApplyServiceClient::new(channel).apply(requests).await?.into_inner().results)
}

/// Prints what happened to each document's resource.
///
/// # Errors
/// If it cannot be written.
pub(super) fn print_results(output: Output, results: &[pb::ApplyResult]) -> Result<(), Failure> {
    let answer: Vec<_> = results
        .iter()
        .map(|result| json!({ "name": result.name, "action": word(result) }))
        .collect();
    let lines = |line: fn(&pb::ApplyResult) -> String| {
        results.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let table = || lines(|result| format!("{} {}", result.name, word(result)));
    print(output, &answer, table, || lines(|result| result.name.clone()))
}

/// What happened to a document's resource, in a word.
pub(super) fn word(result: &pb::ApplyResult) -> &'static str {
    match result.action() {
        pb::ApplyAction::Changed => "changed",
        pb::ApplyAction::Created => "created",
        pb::ApplyAction::Unchanged | pb::ApplyAction::Unspecified => "unchanged",
    }
}
