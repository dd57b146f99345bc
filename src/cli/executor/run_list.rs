//! `keyhatch run list`: the runs, by the lines of the journal about opened steps.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::print;
use crate::cli::io::pages;
use crate::cli::io::text::table;
use crate::cli::io::time::{self, moment, second};
use crate::cli::operator::journal::stopped;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

/// Arguments of `run list`.
#[derive(clap::Args)]
pub struct RunList {
    /// Only runs of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Runs that opened a step since then: 2026-01-31T12:00:00Z, or a duration ago. Runs with open steps are always
    /// listed.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time::since)]
    since: Timestamp,
}

/// Workflow, run and executor.
type RunName = [String; 3];

/// One opening of a step.
struct JournaledOpening {
    run: RunName,
    time: Option<Timestamp>,
    is_open: bool,
}

/// The openings of a run.
#[derive(Default)]
struct RunSummary {
    steps: usize,
    open: usize,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl RunList {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let endpoint = Endpoint::find(Caller::Operator, common.place())?;
        let channel = endpoint.connect().await?;
        let opened = self.opened(&channel).await;
        let mut openings = opened.map_err(|failure| for_operators(failure, &endpoint))?;
        for step in pages::steps(&channel, self.workflow.as_deref()).await? {
            let (run, time) = ([step.workflow, step.run, step.executor], step.open_time);
            openings.insert(step.name, JournaledOpening { run, time, is_open: true });
        }
        let runs = by_run(openings.into_values());
        let answer: Vec<_> = runs.iter().map(to_json).collect();
        let rows = || match runs.is_empty() {
            true => format!("no runs since {}", second(Some(&self.since))),
            false => describe(&runs),
        };
        let names =
            || runs.iter().map(|([_, run, _], _)| run.as_str()).collect::<Vec<_>>().join("\n");
        print(common.output, &answer, rows, names)
    }

    /// The openings since then, by name.
    async fn opened(
        &self,
        channel: &Channel,
    ) -> Result<BTreeMap<String, JournaledOpening>, Failure> {
        let (mut openings, mut since) = (BTreeMap::new(), self.since);
        loop {
            let request = pb::TailJournalRequest {
                since: Some(since),
                events: vec!["opened".to_owned()],
                workflow: self.workflow.clone().unwrap_or_default(),
                ..Default::default()
            };
            let mut client = SystemServiceClient::new(channel.clone());
            let (mut lines, mut end) = (client.tail_journal(request).await?.into_inner(), None);
            while let Some(line) = lines.message().await? {
                if line.stopped {
                    end = Some(line);
                } else if let Some((name, opening)) = parse(&line) {
                    openings.insert(name, opening);
                }
            }
            // A call that has read as much as it may names the time to go on from.
            match end {
                None => return Ok(openings),
                Some(pb::JournalLine { time: Some(time), .. }) if time != since => since = time,
                Some(line) => stopped(&line, true)?,
            }
        }
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

fn parse(line: &pb::JournalLine) -> Option<(String, JournaledOpening)> {
    let body: Value = serde_json::from_str(&line.json).ok()?;
    let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
    let run = [text("workflow")?, text("run")?, text("executor")?];
    let opening = JournaledOpening { run, time: line.time, is_open: false };
    Some((format!("openings/{}", text("id")?), opening))
}

/// The runs of these openings, in the order of their beginning.
fn by_run(openings: impl Iterator<Item = JournaledOpening>) -> Vec<(RunName, RunSummary)> {
    let moment = |time: &Option<Timestamp>| time.map(|time| (time.seconds, time.nanos));
    let mut runs = BTreeMap::<RunName, RunSummary>::new();
    for JournaledOpening { run, time, is_open } in openings {
        let run = runs.entry(run).or_default();
        run.steps += 1;
        run.open += usize::from(is_open);
        if run.first.is_none() || moment(&time) < moment(&run.first) {
            run.first = time;
        }
        if moment(&time) > moment(&run.last) {
            run.last = time;
        }
    }
    let mut runs: Vec<_> = runs.into_iter().collect();
    runs.sort_by_key(|(_, run)| moment(&run.first));
    runs
}

fn describe(runs: &[(RunName, RunSummary)]) -> String {
    let rows = runs.iter().map(|(key, run)| {
        let mut row = key.to_vec();
        row.extend([run.steps, run.open].map(|count| count.to_string()));
        row.extend([&run.first, &run.last].map(|time| second(time.as_ref())));
        row
    });
    let header = ["workflow", "run", "executor", "openings", "open", "first", "last"];
    table(&header, rows.collect())
}

fn to_json(([workflow, name, executor], run): &(RunName, RunSummary)) -> Value {
    json!({
        "workflow": workflow,
        "run": name,
        "executor": executor,
        "openings": run.steps,
        "open": run.open,
        "first_time": moment(run.first.as_ref()),
        "last_time": moment(run.last.as_ref()),
    })
}
