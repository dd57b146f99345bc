//! `SystemService.TailJournal`: lines from a thread that reads files to a stream.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::call::Call;
use super::feed::Feed;
use super::status::to_status;
use super::{convert, pb};
use crate::access::Principal;
use crate::broker::{Error, TailRequest};
use crate::identity::Peer;
use crate::journal::{By, Event, TailFilter, TailLine};
use crate::model::{Invalid, RunName, WorkflowName};

/// Lines that wait for a reader.
const WAITING_LINES: usize = 64;

/// Lines, as they are read.
pub(super) type TailStream = Pin<Box<dyn Stream<Item = Result<pb::JournalLine, Status>> + Send>>;

/// Starts to read.
///
/// # Errors
/// See `SystemService.TailJournal`.
pub(super) fn begin(
    call: &Call,
    peer: Arc<Peer<()>>,
    request: pb::TailJournalRequest,
) -> Result<TailStream, Error> {
    if !matches!(call.caller, Principal::Operator(..)) {
        return Err(Error::OperatorRequired);
    }
    let request = parse(request)?;
    let reader = call.broker.begin_reading()?;
    let (lines, read) = mpsc::channel(WAITING_LINES);
    let (broker, caller) = (Arc::clone(&call.broker), call.caller.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let _reader = reader;
        let lines = Feed::new(lines, Arc::clone(&broker), peer);
        broker.tail_journal(&caller, &request, |line| lines.send(line), || lines.may_go_on())
    });
    let told = ReceiverStream::new(read).map(|line| Ok(to_message(line)));
    let end = futures_util::stream::once(async {
        match reading.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(to_status(&error))),
            Err(error) => Some(Err(to_status(&Error::Internal(error.to_string())))),
        }
    });
    Ok(Box::pin(told.chain(end.filter_map(|end| end))))
}

pub(super) fn parse(request: pb::TailJournalRequest) -> Result<TailRequest, Error> {
    let principal = Some(request.principal).filter(|name| !name.is_empty());
    let workflow = Some(request.workflow).filter(|name| !name.is_empty());
    let run = Some(request.run).filter(|name| !name.is_empty());
    if let Some(unknown) = request.events.iter().find(|name| !Event::is_name(name)) {
        return Err(Invalid::new("event", unknown, "see the events in the journal").into());
    }
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
    }
}
