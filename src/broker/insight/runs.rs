//! ListRuns and ListWorkflows: the runs that the journal knows in short.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::choice::{Candidate, Choice};
use crate::broker::list::{ListPage, OrderBy, PageQuery, Position, Total};
use crate::broker::registry::operators::require_operator;
use crate::catalog::{BoundFilter, Filter, FilterField, Filtered};
use crate::journal::{Live, LiveOpening, RunCounts, RunHistory, RunKey, RunList};
use crate::model::{Invalid, Timestamp, WorkflowName};

/// The number of runs that are copied while the journal waits.
const RUNS_A_LOOK: usize = 256;
/// The number of runs between two checks for a cancelled request.
const CHECK_RUNS: usize = 1024;

/// A run in a list.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Its names.
    pub key: RunKey,
    /// How many of its steps are open.
    pub open: usize,
    /// The rest.
    pub counts: RunCounts,
}

/// A workflow in a list.
#[derive(Clone, Debug)]
pub struct WorkflowSummary {
    /// Its name.
    pub name: WorkflowName,
    /// How many of its runs are known one by one.
    pub runs: usize,
    /// How many of its steps are open.
    pub open: usize,
    /// The rest, of the whole journal.
    pub counts: RunCounts,
}

/// The runs that an operator asks for.
pub struct RunQuery {
    /// Which runs.
    pub filter: Filter<RunSummary>,
    /// Only those that did something since then, or have an open step.
    pub since: Option<Timestamp>,
    /// Which page.
    pub page: PageQuery<RunPlace>,
}

/// The workflows that an operator asks for.
pub struct WorkflowQuery {
    /// Which workflows.
    pub filter: Filter<WorkflowSummary>,
    /// Which page.
    pub page: PageQuery<WorkflowName>,
}

/// The names of a run as the text of a page token: no name has a line break.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPlace(pub RunKey);

impl fmt::Display for RunPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}", self.0.run, self.0.workflow, self.0.executor)
    }
}

impl FromStr for RunPlace {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut names = text.splitn(3, '\n');
        let mut next = || names.next().unwrap_or_default();
        let (run, workflow, executor) = (next().parse()?, next().parse()?, next().parse()?);
        Ok(Self(RunKey { run, workflow, executor }))
    }
}

impl Filtered for RunSummary {
    const RULE: &'static str = "write terms such as workflow = deploy, open = true or text : part, with AND between them; fields: name, text, \
         workflow, executor, open, denied";

    fn field(name: &str) -> Option<FilterField> {
        match name {
            "workflow" => Some(FilterField::Workflow),
            "executor" => Some(FilterField::Executor),
            name => of_both(name),
        }
    }

    fn any(
        &self,
        field: &FilterField,
        scratch: &mut String,
        mut test: impl FnMut(&str) -> bool,
    ) -> bool {
        let RunKey { run, workflow, executor } = &self.key;
        match field {
            FilterField::Name => test(run.as_str()),
            FilterField::Workflow => test(workflow.as_str()),
            FilterField::Executor => test(executor.as_str()),
            FilterField::Text => {
                scratch.clear();
                scratch.extend([workflow.as_str(), "/", run.as_str()]);
                test(scratch)
            }
            field => truth(field, self.open, &self.counts).is_some_and(test),
        }
    }
}

impl Filtered for WorkflowSummary {
    const RULE: &'static str = "write terms such as name = deploy*, denied = true or text : part, with AND between them; fields: name, text, \
         open, denied";

    fn field(name: &str) -> Option<FilterField> {
        of_both(name)
    }

    fn any(&self, field: &FilterField, _: &mut String, mut test: impl FnMut(&str) -> bool) -> bool {
        match field {
            FilterField::Name | FilterField::Text => test(self.name.as_str()),
            field => truth(field, self.open, &self.counts).is_some_and(test),
        }
    }
}

/// The fields of runs and of workflows.
fn of_both(name: &str) -> Option<FilterField> {
    match name {
        "name" => Some(FilterField::Name),
        "text" => Some(FilterField::Text),
        "open" => Some(FilterField::Open),
        "denied" => Some(FilterField::Denied),
        _ => None,
    }
}

fn truth(field: &FilterField, open: usize, counts: &RunCounts) -> Option<&'static str> {
    let is_so = match field {
        FilterField::Open => open > 0,
        FilterField::Denied => counts.denials > 0,
        _ => return None,
    };
    Some(if is_so { "true" } else { "false" })
}

/// The runs of older files, each once, as of the newest list. No step waits for its lock.
#[derive(Default)]
pub(crate) struct MergedRuns(Mutex<(u64, Arc<RunList>)>);

impl MergedRuns {
    fn of(&self, history: &RunHistory) -> Arc<RunList> {
        let mut known = self.0.lock();
        if known.0 != history.files() {
            *known = (history.files(), Arc::new(history.merged()));
        }
        Arc::clone(&known.1)
    }
}

/// What the journal knows of runs at one moment.
struct Known {
    history: RunHistory,
    current: RunList,
    open: HashMap<RunKey, (usize, Timestamp)>,
}

impl Broker {
    /// A page of the runs that the filter admits.
    ///
    /// # Errors
    /// If the caller is no operator or is gone, or the journal hangs.
    pub fn runs(
        &self,
        caller: &Principal,
        query: &RunQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<RunSummary, RunPlace>, Error> {
        require_operator(caller)?;
        let RunQuery { filter, since, page } = query;
        let snapshot = self.snapshot();
        let mut bound = filter.bind(&snapshot.catalog);
        let (mut choice, mut count) = (Choice::of_page(page, Clone::clone), 0);
        self.each_run(is_cancelled, &mut |run| {
            let is_recent = since.is_none_or(|since| run.open > 0 || run.counts.last >= since);
            if is_recent && bound.admits(&run) {
                count += 1;
                let time = time_of(page.order.by, &run.counts);
                choice.take(Candidate { name: RunPlace(run.key.clone()), item: run, time });
            }
        })?;
        Ok(paged(choice, page, count))
    }

    /// A page of the workflows that the filter admits.
    ///
    /// # Errors
    /// If the caller is no operator or is gone, or the journal hangs.
    pub fn workflows(
        &self,
        caller: &Principal,
        query: &WorkflowQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<WorkflowSummary, WorkflowName>, Error> {
        require_operator(caller)?;
        let WorkflowQuery { filter, page } = query;
        let mut all = BTreeMap::<WorkflowName, WorkflowSummary>::new();
        let mut add = |name: &WorkflowName, runs, open, counts: RunCounts| match all.get_mut(name) {
            Some(known) => {
                known.runs += runs;
                known.open += open;
                known.counts = known.counts.and(counts);
            }
            None => {
                let one = WorkflowSummary { name: name.clone(), runs, open, counts };
                all.insert(name.clone(), one);
            }
        };
        let history = self.each_run(is_cancelled, &mut |run| {
            add(&run.key.workflow, 1, run.open, run.counts);
        })?;
        history.dropped().iter().for_each(|(name, counts)| add(name, 0, 0, *counts));
        let snapshot = self.snapshot();
        let mut bound: BoundFilter<'_, WorkflowSummary> = filter.bind(&snapshot.catalog);
        let (mut choice, mut count) = (Choice::of_page(page, Clone::clone), 0);
        for one in all.into_values().filter(|one| bound.admits(one)) {
            count += 1;
            let time = time_of(page.order.by, &one.counts);
            choice.take(Candidate { name: one.name.clone(), item: one, time });
        }
        Ok(paged(choice, page, count))
    }

    /// Passes on every known run once, in no order. Returns what is known of older files.
    fn each_run(
        &self,
        is_cancelled: &dyn Fn() -> bool,
        take: &mut dyn FnMut(RunSummary),
    ) -> Result<RunHistory, Error> {
        let Known { history, current, mut open } = self.known_runs()?;
        let merged = self.lists.runs.of(&history);
        let mut current = current.into_iter().peekable();
        let mut pass = |key: RunKey, counts: RunCounts| {
            let open = open.remove(&key).map_or(0, |(count, _)| count);
            take(RunSummary { key, open, counts });
        };
        for (number, (key, counts)) in merged.iter().enumerate() {
            if number.is_multiple_of(CHECK_RUNS) {
                if is_cancelled() {
                    return Err(Error::Draining);
                }
                std::thread::yield_now();
            }
            while let Some((before, counts)) = current.next_if(|(one, _)| one < key) {
                pass(before, counts);
            }
            let now = current.next_if(|(one, _)| one == key);
            pass(key.clone(), now.map_or(*counts, |(_, now)| now.and(*counts)));
        }
        current.for_each(|(key, counts)| pass(key, counts));
        // Steps that are open for so long that their run is not known any more.
        for (key, (open, first)) in open {
            let counts = RunCounts { steps: open as u64, ..RunCounts::at(first) };
            take(RunSummary { key, open, counts });
        }
        Ok(history)
    }

    /// What the journal knows of runs now, in short looks.
    fn known_runs(&self) -> Result<Known, Error> {
        loop {
            let look = |live: &Live| {
                let open: Vec<Arc<LiveOpening>> = live.openings().cloned().collect();
                (live.usage().run_history().clone(), open)
            };
            let (history, opened) = self.journal.with_live(look)?;
            let mut current = RunList::new();
            let is_whole = loop {
                let after = current.last().map(|(key, _)| key);
                let (files, more) = self.journal.with_live(|live| {
                    let usage = live.usage();
                    (usage.run_history().files(), usage.current_runs(after, RUNS_A_LOOK))
                })?;
                // The file was followed by the next meanwhile: its runs are in the history now.
                if files != history.files() {
                    break false;
                }
                let is_last = more.len() < RUNS_A_LOOK;
                current.extend(more);
                if is_last {
                    break true;
                }
            };
            if is_whole {
                return Ok(Known { history, current, open: by_run(&opened) });
            }
        }
    }
}

/// How many steps of each run are open, and since when the first of them.
fn by_run(opened: &[Arc<LiveOpening>]) -> HashMap<RunKey, (usize, Timestamp)> {
    let mut open = HashMap::<RunKey, (usize, Timestamp)>::new();
    for one in opened {
        let record = one.record();
        let (count, first) = open.entry(RunKey::of(record)).or_insert((0, record.open_time));
        *count += 1;
        *first = record.open_time.min(*first);
    }
    open
}

fn time_of(by: OrderBy, counts: &RunCounts) -> Option<Timestamp> {
    match by {
        OrderBy::FirstTime => Some(counts.first),
        OrderBy::LastTime => Some(counts.last),
        _ => None,
    }
}

fn paged<T, N: Ord + Clone>(
    choice: Choice<T, N>,
    page: &PageQuery<N>,
    count: usize,
) -> ListPage<T, N> {
    let counted = Total { size: count, is_estimate: false };
    let total = page.total(counted);
    let (found, has_more) = choice.finish();
    let items =
        found.into_iter().map(|one| (one.item, Position { name: one.name, time: one.time }));
    ListPage { items: items.collect(), has_more, total }
}
