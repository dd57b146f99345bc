//! `keyhatch apply`: seeding from files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;
use tonic::transport::Channel;

use super::bindings::{admits_steps, argument_of};
use super::plan::{self, PlannedStep, action_name};
use super::prune::{Described, Prunable, Pruning};
use super::seed::{self, AllowedReads, Seed, SeedContext, SeedPositions};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, print, say};
use crate::cli::io::progress::counted;
use crate::cli::io::remarks;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// At most so many connections that no step may resolve are named.
const MOST_SHOWN: usize = 5;

/// The seed files of `apply` and `diff`.
#[derive(clap::Args)]
pub struct SeedFiles {
    /// A seed file, a directory of *.yaml and *.yml files, or - for stdin; may be given more than once.
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The workflow of secrets whose document names no workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    #[command(flatten)]
    allowed: AllowedReads,
}

#[derive(clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: SeedFiles,
    /// Show the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pruning: Pruning,
    /// With --prune: do not ask.
    #[arg(long, requires = "prune")]
    yes: bool,
    /// With --prune: delete even what runs have used in the last 30 days.
    #[arg(long, requires = "prune")]
    force: bool,
}

impl SeedFiles {
    /// Reads every document.
    ///
    /// # Errors
    /// Every problem, with file, line and column.
    pub(crate) fn read(&self) -> Result<Vec<Seed>, Failure> {
        let (workflow, allowed) = (self.workflow.as_deref(), &self.allowed);
        let context = SeedContext { workflow, default_resolver: None, allowed };
        seed::read_all(&self.file, &context)
    }

    /// The resources that the files describe.
    pub(super) fn described(&self, seeds: &[Seed]) -> Described<'_> {
        Described { paths: &self.file, names: seeds.iter().map(Seed::name).collect() }
    }
}

impl Apply {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let seeds = self.files.read()?;
        let channel = common.operator().await?;
        let prunable = self.pruning.find(&channel, &self.files.described(&seeds)).await?;
        if self.dry_run {
            let steps = plan::of_seeds(channel, &seeds).await?;
            return print_plan(common.output, &steps.iter().collect::<Vec<_>>(), &prunable);
        }
        // The question comes before the first write: no means that nothing is done.
        if !self.yes && prunable.names().next().is_some() {
            say(&plan::to_text(&plan::of_seeds(channel.clone(), &seeds).await?));
            prunable.confirm(&channel).await?;
        }
        let without_steps = names_without_steps(&seeds);
        let applied = apply(channel.clone(), seeds).await?;
        let mut results: Vec<_> = applied.iter().map(AppliedResource::of_result).collect();
        let prunable = self.pruning.refreshed(&channel, prunable).await?;
        let deleted = prunable.delete(channel, self.force).await;
        let deletions = deleted.names.into_iter();
        results.extend(deletions.map(|name| AppliedResource { name, action: "deleted" }));
        print_results(common.output, &results)?;
        warn_without_steps(&results, &without_steps);
        deleted.outcome
    }
}

/// The full names of connections that no step may resolve or use.
fn names_without_steps(seeds: &[Seed]) -> BTreeSet<String> {
    let is_without = |seed: &&Seed| match &seed.document {
        Document::Connection(one) => !admits_steps(&one.access, pb::Relation::User),
        Document::Group(_) | Document::Integration(_) | Document::Secret(_) => false,
    };
    seeds.iter().filter(is_without).map(Seed::name).collect()
}

/// Says which new connections no step may resolve or use, and how to change that.
fn warn_without_steps(results: &[AppliedResource], without_steps: &BTreeSet<String>) {
    let created = results.iter().filter(|one| one.action == "created");
    let created = created.filter(|one| without_steps.contains(&one.name));
    let names: Vec<_> = created.map(|one| argument_of(&one.name)).collect();
    let (shown, more) = names.split_at(names.len().min(MOST_SHOWN));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    if !shown.is_empty() {
        say(&format!(
            "no step may resolve {}{more} yet: keyhatch access add REF --relation resolver --principal workflow:NAME",
            shown.join(", ")
        ));
    }
}

/// Sends the documents of files to the broker, and says what it finds odd about their values.
pub(crate) async fn apply(
    channel: Channel,
    seeds: Vec<Seed>,
) -> Result<Vec<pb::ApplyResult>, Failure> {
    let positions = SeedPositions::of(&seeds);
    let documents = seeds.into_iter().map(|seed| seed.document).collect();
    let applied = send(channel, documents).await.map_err(|status| positions.locate(status))?;
    for result in &applied {
        remarks::announce(&result.name, &result.findings);
    }
    Ok(applied)
}

/// Sends documents to the broker; as `ApplyService.Apply`.
pub(crate) async fn send(
    channel: Channel,
    documents: Vec<Document>,
) -> Result<Vec<pb::ApplyResult>, tonic::Status> {
    let request = |document| pb::ApplyRequest { document: Some(document) };
    let requests = counted("applying", documents.into_iter().map(request).collect());
    Ok(ApplyServiceClient::new(channel).apply(requests).await?.into_inner().results)
}

/// The result for a resource.
#[derive(Serialize)]
struct AppliedResource {
    name: String,
    action: &'static str,
}

impl AppliedResource {
    fn of_result(result: &pb::ApplyResult) -> Self {
        Self { name: result.name.clone(), action: action_name(result.action()) }
    }
}

/// Prints what was done to the resource of each document.
pub(super) fn print_applied(output: Output, applied: &[pb::ApplyResult]) -> Result<(), Failure> {
    print_results(output, &applied.iter().map(AppliedResource::of_result).collect::<Vec<_>>())
}

/// Prints what would be done, with what would be deleted.
pub(super) fn print_plan(
    output: Output,
    steps: &[&PlannedStep],
    prunable: &Prunable,
) -> Result<(), Failure> {
    let deleted = prunable.names().map(|name| json!({ "name": name, "action": "deleted" }));
    let answer: Vec<_> = steps.iter().map(|step| step.to_json()).chain(deleted).collect();
    let text = || {
        let deleted = prunable.names().map(|name| format!("- {name}"));
        steps.iter().map(|step| step.to_text()).chain(deleted).collect::<Vec<_>>().join("\n")
    };
    let names = || {
        steps.iter().map(|step| step.name()).chain(prunable.names()).collect::<Vec<_>>().join("\n")
    };
    print(output, &answer, text, names)
}

fn print_results(output: Output, results: &[AppliedResource]) -> Result<(), Failure> {
    let lines = |line: &dyn Fn(&AppliedResource) -> String| {
        results.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let text = || lines(&|one| format!("{} {}", one.name, one.action));
    print(output, &results, text, || lines(&|one| one.name.clone()))?;
    if output == Output::Table {
        let count = |action: &str| results.iter().filter(|one| one.action == action).count();
        let counts = ["created", "changed", "unchanged", "deleted"].map(|word| (count(word), word));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
        say(&counts.join(", "));
    }
    Ok(())
}
