//! `keyhatch apply`: seeding from files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::StreamExt as _;
use serde_json::json;
use tonic::transport::Channel;

use super::connection::view::{argument_of, is_for_steps};
use super::plan::{self, Step};
use super::prune::{Described, Prunable, Pruning};
use super::seed::{self, Allowed, Place, Seed, SeedContext};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, print, say};
use crate::cli::io::progress::Progress;
use crate::cli::io::remarks;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;
use crate::grpc::pb::apply_service_client::ApplyServiceClient;

/// How many connections are named that no step may resolve.
const MOST_SHOWN: usize = 5;

/// Which seed files.
#[derive(clap::Args)]
pub struct Files {
    /// A seed file, a directory of *.yaml and *.yml files, or - for stdin; may be given more than once.
    #[arg(short, long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The workflow of secrets that name none.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    #[command(flatten)]
    allowed: Allowed,
}

/// Arguments of `apply`.
#[derive(clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pruning: Pruning,
    /// For --prune: do not ask.
    #[arg(long, requires = "prune")]
    yes: bool,
    /// For --prune: although runs have used it in the last 30 days.
    #[arg(long, requires = "prune")]
    force: bool,
}

impl Files {
    /// Reads every document.
    ///
    /// # Errors
    /// All that is wrong, with file, line and column.
    pub(crate) fn read(&self) -> Result<Vec<Seed>, Failure> {
        let (workflow, allowed) = (self.workflow.as_deref(), &self.allowed);
        let context = SeedContext { workflow, default_resolver: None, allowed };
        seed::read_all(&self.file, &context)
    }

    /// What they describe.
    pub(super) fn described(&self, seeds: &[Seed]) -> Described<'_> {
        let names = seeds.iter().map(|seed| seed::name_of(&seed.document)).collect();
        Described { paths: &self.file, names }
    }
}

impl Apply {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let seeds = self.files.read()?;
        let channel = common.operator().await?;
        let prunable = self.pruning.find(&channel, &self.files.described(&seeds)).await?;
        if self.dry_run {
            let steps = plan::of_seeds(channel, &seeds).await?;
            let steps: Vec<_> = steps.iter().collect();
            return print_plan(common.output, &steps, &prunable);
        }
        // Asked before anything is written: who says no wants none of it.
        if !self.yes && prunable.names().next().is_some() {
            say(&plan::to_text(&plan::of_seeds(channel.clone(), &seeds).await?));
            prunable.confirm(self.yes)?;
        }
        let nobodys = nobodys(&seeds);
        let applied = apply(channel.clone(), seeds).await?;
        let mut results: Vec<_> = applied.iter().map(Line::of_result).collect();
        let prunable = self.pruning.refreshed(&channel, prunable).await?;
        let deleted = prunable.delete(channel, self.force).await;
        results.extend(deleted.names.iter().map(Line::deleted));
        print_results(common.output, &results)?;
        tell_nobodys(&results, &nobodys);
        deleted.outcome
    }
}

/// The connections that no step may resolve, by their full names.
fn nobodys(seeds: &[Seed]) -> BTreeSet<String> {
    let is_nobodys = |document: &Document| match document {
        Document::Connection(one) => !is_for_steps(&one.access, pb::Relation::Resolver),
        Document::Group(_) | Document::Integration(_) | Document::Secret(_) => false,
    };
    let documents = seeds.iter().map(|seed| &seed.document);
    documents.filter(|document| is_nobodys(document)).map(seed::name_of).collect()
}

/// Says of what was created, and that no step may resolve, how that is mended.
fn tell_nobodys(results: &[Line], nobodys: &BTreeSet<String>) {
    let created = results.iter().filter(|line| line.action == "created");
    let created = created.filter(|line| nobodys.contains(&line.name));
    let names: Vec<_> = created.map(|line| argument_of(&line.name)).collect();
    let (shown, more) = names.split_at(names.len().min(MOST_SHOWN));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    if !shown.is_empty() {
        say(&format!(
            "no step may resolve {}{more} yet: keyhatch access add REF --relation resolver --principal workflow:NAME",
            shown.join(", ")
        ));
    }
}

/// Sends the documents to the broker, and says what is odd about their values.
pub(crate) async fn apply(
    channel: Channel,
    seeds: Vec<Seed>,
) -> Result<Vec<pb::ApplyResult>, Failure> {
    let places = places_of(&seeds);
    let documents = seeds.into_iter().map(|seed| seed.document).collect();
    let applied = send(channel, documents).await.map_err(|status| places.located(status))?;
    for result in &applied {
        remarks::announce(&result.name, &result.findings);
    }
    Ok(applied)
}

/// The same of documents that stand in no file.
///
/// # Errors
/// As `ApplyService.Apply`.
pub(crate) async fn send(
    channel: Channel,
    documents: Vec<Document>,
) -> Result<Vec<pb::ApplyResult>, tonic::Status> {
    let request = |document| pb::ApplyRequest { document: Some(document) };
    let requests = counted("applying", documents.into_iter().map(request).collect());
    Ok(ApplyServiceClient::new(channel).apply(requests).await?.into_inner().results)
}

/// Where each resource is described.
pub(crate) struct Places(BTreeMap<String, Place>);

impl Places {
    /// The failure, with the place of each resource that it names.
    pub(crate) fn located(&self, status: tonic::Status) -> Failure {
        let failure = Failure::from(status);
        let located = |text: &String| {
            // "connections/aws/prod: fields.x: …"
            let mut ends = text.match_indices(": ").map(|(at, _)| at);
            let place = ends.find_map(|end| self.0.get(text.get(..end)?));
            place.map_or_else(|| text.clone(), |place| format!("{place}: {text}"))
        };
        Failure {
            message: located(&failure.message),
            details: failure.details.iter().map(located).collect(),
            ..failure
        }
    }
}

/// Where each document stands.
pub(super) fn places_of(seeds: &[Seed]) -> Places {
    let places = seeds.iter().map(|seed| (seed::name_of(&seed.document), seed.place.clone()));
    Places(places.collect())
}

/// A stream of messages that shows how many of them were taken.
pub(crate) fn counted<T: Send + 'static>(
    what: &'static str,
    messages: Vec<T>,
) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    let total = messages.len() as u64;
    let mut progress = Progress::begin(what);
    tokio_stream::iter(messages).enumerate().map(move |(sent, message)| {
        progress.show(sent as u64 + 1, total);
        message
    })
}

/// What was done to one resource.
struct Line {
    name: String,
    action: &'static str,
}

impl Line {
    fn of_result(result: &pb::ApplyResult) -> Self {
        Self { name: result.name.clone(), action: word(result.action()) }
    }

    fn deleted(name: impl AsRef<str>) -> Self {
        Self { name: name.as_ref().to_owned(), action: "deleted" }
    }
}

/// Prints what was done to each document's resource.
///
/// # Errors
/// If it cannot be written.
pub(super) fn print_applied(output: Output, applied: &[pb::ApplyResult]) -> Result<(), Failure> {
    let lines: Vec<_> = applied.iter().map(Line::of_result).collect();
    print_results(output, &lines)
}

/// Prints what would be done, with what would be deleted.
///
/// # Errors
/// If it cannot be written.
pub(super) fn print_plan(
    output: Output,
    steps: &[&Step],
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

fn print_results(output: Output, results: &[Line]) -> Result<(), Failure> {
    let answer: Vec<_> =
        results.iter().map(|line| json!({ "name": line.name, "action": line.action })).collect();
    let lines = || {
        let line = |line: &Line| format!("{} {}", line.name, line.action);
        results.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let names = || results.iter().map(|line| line.name.clone()).collect::<Vec<_>>().join("\n");
    print(output, &answer, lines, names)?;
    if output == Output::Table {
        say(&summary(results));
    }
    Ok(())
}

fn summary(results: &[Line]) -> String {
    let count = |action: &str| results.iter().filter(|line| line.action == action).count();
    let counts = ["created", "changed", "unchanged", "deleted"].map(|word| (count(word), word));
    let told = counts.iter().filter(|(count, _)| *count > 0);
    told.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// What happens to a document's resource, in a word.
pub(crate) fn word(action: pb::ApplyAction) -> &'static str {
    match action {
        pb::ApplyAction::Changed => "changed",
        pb::ApplyAction::Created => "created",
        pb::ApplyAction::Unchanged | pb::ApplyAction::Unspecified => "unchanged",
    }
}
