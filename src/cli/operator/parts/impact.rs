//! What a change would break, shown before it is made. Every command that deletes, or changes access, members, tags or release,
//! asks here.

use std::io::IsTerminal as _;

use tonic::transport::Channel;

use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::{printable, short_name};
use crate::cli::io::time::second;
use crate::grpc::pb;
use crate::grpc::pb::impact_service_client::ImpactServiceClient;
use crate::grpc::pb::preview_request::Change;

/// The most lines of one kind.
const MAX_LINES: usize = 10;

/// Shows what a deletion would break, and asks.
///
/// # Errors
/// As `ImpactService.Preview`, and as [`confirm`].
pub async fn confirm_deletion(
    channel: &Channel,
    yes: bool,
    name: &str,
    question: &str,
) -> Result<(), Failure> {
    if !yes {
        show(&preview(channel, Change::Delete(name.to_owned())).await?);
    }
    confirm(yes, question)
}

/// Shows what changes would break, and asks if that is anything and somebody is at the terminal. Without a terminal the change goes
/// on: scripts make the changes that they were written for.
///
/// # Errors
/// As `ImpactService.Preview`; `CANCELLED` if the answer is not yes.
pub async fn confirm_changes(
    channel: &Channel,
    yes: bool,
    changes: Vec<Change>,
    question: &str,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let mut breaks = false;
    for change in changes {
        breaks |= show(&preview(channel, change).await?);
    }
    match breaks && std::io::stdin().is_terminal() {
        true => confirm(false, question),
        false => Ok(()),
    }
}

/// Shows what one deletion of several would break.
///
/// # Errors
/// As `ImpactService.Preview`.
pub async fn show_deletion(channel: &Channel, name: &str) -> Result<(), Failure> {
    let impact = preview(channel, Change::Delete(name.to_owned())).await?;
    let lines = lines(&impact);
    if !lines.is_empty() {
        say(&format!("{}:", short_name(name)));
        lines.iter().for_each(|line| say(&format!("  {line}")));
    }
    Ok(())
}

async fn preview(channel: &Channel, change: Change) -> Result<pb::Impact, Failure> {
    let request = pb::PreviewRequest { change: Some(change) };
    Ok(ImpactServiceClient::new(channel.clone()).preview(request).await?.into_inner())
}

/// Shows an impact. True if anything breaks.
fn show(impact: &pb::Impact) -> bool {
    let lines = lines(impact);
    lines.iter().for_each(|line| say(line));
    !lines.is_empty()
}

/// An impact in lines; empty if nothing breaks.
fn lines(impact: &pb::Impact) -> Vec<String> {
    let mut lines = Vec::new();
    if impact.lease_count > 0 {
        lines.push(format!(
            "{} live lease(s) end, of {} run(s):",
            impact.lease_count, impact.run_count
        ));
    }
    let run = |run: &pb::ImpactedRun| {
        let pb::ImpactedRun { workflow, run, executor, steps } = run;
        format!("  run {run} of {workflow}, by {executor}: {steps} step(s)")
    };
    push(&mut lines, impact.runs.iter().map(run), impact.run_count, "run(s)");
    let workflow = |one: &pb::ConnectionUse| {
        let last = second(one.last_use_time.as_ref());
        format!("workflow {} has used it {} time(s), last {last}", one.workflow, one.use_count)
    };
    let workflows = impact.workflows.iter().map(workflow);
    push(&mut lines, workflows, impact.workflow_count, "workflow(s) that have used it");
    let group = |one: &pb::ImpactedGroup| {
        let lost = one.lost_values.join(", ");
        let new = match one.new_values.as_slice() {
            [] => String::new(),
            new => format!(", which is {} then", new.join(", ")),
        };
        let (group, member) = (short_name(&one.group), short_name(&one.member));
        format!("group {group} loses {lost}: {member}{new}")
    };
    push(&mut lines, impact.groups.iter().map(group), impact.group_count, "member(s) of groups");
    if !impact.default_of.is_empty() {
        lines.push(format!("default:{} is nothing then", impact.default_of));
    }
    let ending = |one: &pb::PendingEnding| {
        let handle = if one.handle.is_empty() { "a credential" } else { &one.handle };
        format!(
            "{handle} of {} is ended upstream, made for {}",
            short_name(&one.connection),
            one.step
        )
    };
    let endings = impact.endings.iter().map(ending);
    push(&mut lines, endings, impact.ending_count, "credential(s) that are ended upstream");
    lines.iter().map(|line| printable(line)).collect()
}

/// Adds the first lines of a list, and how many more there are.
fn push(to: &mut Vec<String>, lines: impl Iterator<Item = String>, count: i64, what: &str) {
    let before = to.len();
    to.extend(lines.take(MAX_LINES));
    let shown = i64::try_from(to.len() - before).unwrap_or(count);
    if count > shown {
        to.push(format!("  and {} more {what}", count - shown));
    }
}
