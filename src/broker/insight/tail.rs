//! An operator reads the journal.

use std::sync::Arc;
use std::time::Duration;

use super::readers::StreamPermit;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::require_operator;
use crate::journal::{ReadError, TailFilter, TailRead, TailReader};

/// How often a reader looks whether there is more.
const LOOK: Duration = Duration::from_millis(200);
/// The most lines to begin with.
const MAX_LAST: usize = 100_000;

/// What a reader asks for.
pub struct TailRequest {
    /// How many of the newest lines to begin with, unless the filter says since when.
    pub last: usize,
    /// Whether it goes on with lines as they are written.
    pub follow: bool,
    /// Which lines.
    pub filter: TailFilter,
}

/// Somebody who is told lines.
pub struct Tail {
    broker: Arc<Broker>,
    caller: Principal,
    /// None once it has ended.
    reader: Option<TailReader>,
    follow: bool,
    /// Everything that was there is told.
    is_following: bool,
    _place: StreamPermit,
}

impl Broker {
    /// Begins to read for an operator.
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
        let reader = self.readers.look(caller, begin).await?.map_err(unreadable)?;
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
    /// The next lines, which may be none for now; nothing at the end.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub async fn next(&mut self) -> Result<Option<TailRead>, Error> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        if self.is_following && self.broker.journal.written() <= reader.last() {
            tokio::time::sleep(LOOK).await;
            self.reader = Some(reader);
            return Ok(Some(TailRead::default()));
        }
        let look = move |is_cancelled: &dyn Fn() -> bool| {
            let read = reader.read(is_cancelled)?;
            Ok::<_, std::io::Error>((reader, read))
        };
        let looked = self.broker.readers.look(&self.caller, look).await?;
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
