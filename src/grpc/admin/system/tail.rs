//! `SystemService.TailJournal`: lines from those who read files to a stream.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::bounded_stream::BoundedStream;
use crate::broker::{Error, Tail, TailRequest};
use crate::grpc::admin::call::Call;
use crate::grpc::convert::status::to_status;
use crate::grpc::{convert, pb};
use crate::identity::Peer;
use crate::journal::{By, EVENT_NAMES, Event, Stopped, TailFilter, TailLine};
use crate::model::{Invalid, RunName, WorkflowName};

/// Lines that wait for a reader, beside those that were read at once.
const WAITING_LINES: usize = 4;

/// Lines, as they are read.
pub(crate) type TailStream = Pin<Box<dyn Stream<Item = Result<pb::JournalLine, Status>> + Send>>;

/// Starts to read.
///
/// # Errors
/// See `SystemService.TailJournal`.
pub(crate) async fn begin(
    call: &Call,
    peer: Arc<Peer<()>>,
    request: pb::TailJournalRequest,
) -> Result<TailStream, Error> {
    let tail = call.broker.begin_tail(&call.caller, parse(request)?).await?;
    let (lines, read) = mpsc::channel(WAITING_LINES);
    let feed = BoundedStream::new(lines, Arc::clone(&call.broker), peer);
    let telling = tokio::spawn(tell(tail, feed));
    let end = futures_util::stream::once(async {
        match telling.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(to_status(&error))),
            Err(error) => Some(Err(to_status(&Error::Internal(error.to_string())))),
        }
    });
    let told = ReceiverStream::new(read).map(Ok);
    Ok(Box::pin(told.chain(end.filter_map(|end| end))))
}

/// Hands on lines until the end, or until nobody takes them, or may have them.
async fn tell(mut tail: Tail, feed: BoundedStream<pb::JournalLine>) -> Result<(), Error> {
    loop {
        // A look that is under way stops when nobody waits for it.
        let read = tokio::select! {
            () = feed.closed() => return Ok(()),
            read = tail.next() => read?,
        };
        let Some(read) = read else { return Ok(()) };
        let stopped = read.stopped.map(to_note);
        for line in stopped.into_iter().chain(read.lines.into_iter().map(to_message)) {
            if !feed.offer(line).await {
                return Ok(());
            }
        }
        if !feed.may_go_on() {
            return Ok(());
        }
    }
}

pub(crate) fn parse(request: pb::TailJournalRequest) -> Result<TailRequest, Error> {
    let workflow = Some(request.workflow).filter(|name| !name.is_empty());
    let run = Some(request.run).filter(|name| !name.is_empty());
    if let Some(unknown) = request.events.iter().find(|name| !Event::is_name(name)) {
        return Err(Invalid::new("event", unknown, EVENT_NAMES).into());
    }
    let principal = Some(request.principal).filter(|name| !name.is_empty());
    let filter = TailFilter {
        events: request.events.into_iter().collect(),
        principal: principal.map(|text| By::parse(&text)).transpose()?,
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
