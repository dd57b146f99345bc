//! The body of an upstream's answer, as it comes.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame};

use crate::cli::step::send::{Broken, Exchange};

/// The body of an answer. It fails if the answer is not complete, so that the connection to the command is cut.
pub struct ForwardBody {
    /// `None` when it is over.
    exchange: Option<Exchange>,
    /// The bytes that are still to come; `None` if nobody knows.
    left: Option<u64>,
    /// The last bytes, until the broker says that the answer is complete: the server reads no further.
    last: Option<Bytes>,
    /// The request's body, which the command may still send.
    broken: Option<Broken<hyper::Error>>,
}

impl ForwardBody {
    /// The rest of an exchange. `length` is the length of the body in bytes; `None` if it is not known.
    pub fn new(
        exchange: Exchange,
        length: Option<u64>,
        broken: Option<Broken<hyper::Error>>,
    ) -> Self {
        Self { exchange: Some(exchange), left: length, last: None, broken }
    }

    /// True if these bytes are the last ones.
    fn is_last(&mut self, piece: &Bytes) -> bool {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.left = self.left.map(|left| left.saturating_sub(length));
        self.left == Some(0)
    }
}

impl Body for ForwardBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(broken) = &mut self.broken
            && let Poll::Ready(error) = broken.poll(context)
        {
            self.exchange = None;
            return Poll::Ready(Some(Err(error.into())));
        }
        loop {
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
            match ready!(exchange.poll_next(context)) {
                Ok(Some(piece)) if self.is_last(&piece) => self.last = Some(piece),
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {
                    self.exchange = None;
                    return Poll::Ready(self.last.take().map(|last| Ok(Frame::data(last))));
                }
                Err(failure) => {
                    self.exchange = None;
                    return Poll::Ready(Some(Err(failure.reason.into())));
                }
            }
        }
    }
}
