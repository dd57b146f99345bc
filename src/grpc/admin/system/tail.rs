//! `SystemService.TailJournal`: journal lines from the threads that read files to a stream.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::bounded_stream::{BoundedStream, ReplyStream, reply_stream};
use crate::broker::{Error, Tail, TailRequest};
use crate::grpc::admin::call::Call;
use crate::grpc::request::parse_requests;
use crate::grpc::{convert, pb};
use crate::journal::{EVENT_NAMES, Event, PrincipalFilter, Stopped, TailFilter, TailLine};
use crate::model::{Invalid, RunName, WorkflowName};

/// Lines that wait for a reader, beside those that were read at once.
const WAITING_LINES: usize = 4;

/// Lines, in the order in which they are read.
pub(crate) type TailStream = ReplyStream<pb::JournalLine>;

parse_requests! {
    TailJournalRequest -> TailRequest = |one| tail_request(one);
}

/// Starts to read.
///
/// # Errors
/// See `SystemService.TailJournal`.
pub(crate) async fn begin(call: &Call, request: TailRequest) -> Result<TailStream, Error> {
    let tail = call.broker.begin_tail(&call.caller, request).await?;
    let (lines, read) = mpsc::channel(WAITING_LINES);
    let stream = BoundedStream::new(lines, Arc::clone(&call.broker), Arc::clone(&call.peer));
    Ok(reply_stream(read, tokio::spawn(send_lines(tail, stream))))
}

/// Sends lines until the end, or until the client takes no more lines or may not have more.
async fn send_lines(mut tail: Tail, stream: BoundedStream<pb::JournalLine>) -> Result<(), Error> {
    loop {
        // Reading stops as soon as the client is gone.
        let read = tokio::select! {
            () = stream.closed() => return Ok(()),
            read = tail.next() => read?,
        };
        let Some(read) = read else { return Ok(()) };
        let stopped = read.stopped.map(to_note);
        for line in stopped.into_iter().chain(read.lines.into_iter().map(to_message)) {
            if !stream.send(line).await {
                return Ok(());
            }
        }
        if !stream.may_go_on() {
            return Ok(());
        }
    }
}

fn tail_request(request: pb::TailJournalRequest) -> Result<TailRequest, Error> {
    if let Some(unknown) = request.events.iter().find(|name| !Event::is_name(name)) {
        return Err(Invalid::new("event", unknown, EVENT_NAMES).into());
    }
    let principal = convert::given(&request.principal);
    let workflow = convert::given(&request.workflow);
    let run = convert::given(&request.run);
    let filter = TailFilter {
        events: request.events.into_iter().collect(),
        principal: principal.map(|text| PrincipalFilter::parse(&text)).transpose()?,
        resource: request.resource,
        workflow: workflow.map(|name| WorkflowName::parse(&name)).transpose()?,
        run: run.map(|name| RunName::parse(&name)).transpose()?,
        since: request.since.as_ref().map(convert::moment),
        denied: request.denied,
    };
    let last = usize::try_from(request.last).unwrap_or(0);
    Ok(TailRequest { last, follow: request.follow, filter })
}

fn to_message(line: TailLine) -> pb::JournalLine {
    pb::JournalLine {
        id: line.id,
        time: convert::timestamp(line.time),
        event: line.event,
        json: line.json,
        stopped: false,
    }
}

fn to_note(stopped: Stopped) -> pb::JournalLine {
    let time = convert::timestamp(stopped.time);
    pb::JournalLine { id: stopped.id, time, stopped: true, ..Default::default() }
}
