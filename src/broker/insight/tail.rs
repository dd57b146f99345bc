//! Operators read the journal, and follow it.

use std::sync::Arc;
use std::time::Duration;

use super::readers::StreamPermit;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::journal::{ReadError, TailFilter, TailRead, TailReader};

/// The pause of a reader between two checks for new lines.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);
/// The most lines to begin with.
const MAX_LAST: usize = 100_000;

/// The request of a reader.
pub struct TailRequest {
    /// How many of the newest lines to begin with, unless the filter has a start time.
    pub last: usize,
    /// True to continue with new lines.
    pub follow: bool,
    /// Selects the lines.
    pub filter: TailFilter,
}

/// A reader of the journal's lines.
pub struct Tail {
    broker: Arc<Broker>,
    caller: Principal,
    /// `None` once the stream has ended.
    reader: Option<TailReader>,
    follow: bool,
    /// True once all earlier lines were returned.
    is_following: bool,
    _place: StreamPermit,
}

impl Broker {
    /// Begins a stream of lines for an operator.
    ///
    /// # Errors
    /// [`Error::OperatorRequired`], [`Error::TooManyReaders`], or if a file cannot be read.
    pub async fn begin_tail(
        self: &Arc<Self>,
        caller: &Principal,
        request: TailRequest,
    ) -> Result<Tail, Error> {
        require_operator(caller)?;
        let place = self.readers.begin_stream(caller)?;
        let TailRequest { last, follow, filter } = request;
        let (journal, bytes) = (Arc::clone(&self.journal), u64::from(self.limits.tail_bytes));
        let begin =
            move |_: &dyn Fn() -> bool| journal.begin_tail(&filter, last.min(MAX_LAST), bytes);
        let reader = self.readers.read(caller, begin).await?.map_err(unreadable)?;
        Ok(Tail {
            broker: Arc::clone(self),
            caller: caller.clone(),
            reader: Some(reader),
            follow,
            is_following: false,
            _place: place,
        })
    }
}

impl Tail {
    /// The next lines, possibly no line for now; `None` at the end.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn next(&mut self) -> Result<Option<TailRead>, Error> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        if self.is_following && self.broker.journal.written() <= reader.last() {
            tokio::time::sleep(FOLLOW_PAUSE).await;
            self.reader = Some(reader);
            return Ok(Some(TailRead::default()));
        }
        let look = move |is_cancelled: &dyn Fn() -> bool| {
            let read = reader.read(is_cancelled)?;
            Ok::<_, std::io::Error>((reader, read))
        };
        let looked = self.broker.readers.read(&self.caller, look).await?;
        let (reader, read) = looked.map_err(unreadable)?;
        self.is_following |= read.is_end;
        let is_over = read.is_end && (!self.follow || read.stopped.is_some());
        self.reader = Some(reader).filter(|_| !is_over);
        Ok(Some(read))
    }
}

fn unreadable(error: std::io::Error) -> Error {
    ReadError::from(error).into()
}
