//! The body of a request, as it comes from the step.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::model::Value;

/// The pieces of a body. An error says that the step has gone.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, StepGone>> + Send>>;

/// The step has gone before its body was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct StepGone;

/// The body of a request.
pub enum Outgoing {
    /// There is none.
    Nothing,
    /// A body that is made as a whole.
    Whole(Value),
    /// A body that is streamed.
    Pieces {
        /// Its length in bytes; `None` if it is not known, and the body is sent in chunks.
        length: Option<u64>,
        /// The pieces.
        pieces: Pieces,
    },
}

/// Why the step's body was not sent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    Gone,
    TooShort,
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the body broke off",
            Self::TooShort => "the body is shorter than content_length",
        })
    }
}

impl std::error::Error for BodyFault {}

/// The body for the HTTP library, which takes a piece when there is room for it.
pub(super) struct SentBody {
    whole: Option<Bytes>,
    pieces: Option<Pieces>,
    /// The bytes that are to come; `None` if that is not known.
    left: Option<u64>,
    /// True once the body is taken to its end.
    is_sent: Arc<AtomicBool>,
}

impl SentBody {
    /// The body, and whether it was taken to its end. Bytes beyond its length are left out.
    pub(super) fn new(body: Outgoing) -> (Self, Arc<AtomicBool>) {
        let (whole, pieces, left) = match body {
            Outgoing::Nothing | Outgoing::Pieces { length: Some(0), .. } => (None, None, Some(0)),
            Outgoing::Whole(value) => {
                let whole = Bytes::from(value.into_exposed());
                let left = Some(length_of(&whole));
                (Some(whole).filter(|whole| !whole.is_empty()), None, left)
            }
            Outgoing::Pieces { length, pieces } => (None, Some(pieces), length),
        };
        let is_sent = Arc::new(AtomicBool::new(whole.is_none() && pieces.is_none()));
        (Self { whole, pieces, left, is_sent: Arc::clone(&is_sent) }, is_sent)
    }
}

fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        if let Some(whole) = this.whole.take() {
            this.left = Some(0);
            this.is_sent.store(true, Ordering::Release);
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        let Some(pieces) = &mut this.pieces else { return Poll::Ready(None) };
        let mut piece = match ready!(pieces.as_mut().poll_next(context)) {
            Some(Ok(piece)) => piece,
            Some(Err(StepGone)) => {
                this.pieces = None;
                return Poll::Ready(Some(Err(BodyFault::Gone)));
            }
            None => {
                this.pieces = None;
                this.is_sent.store(true, Ordering::Release);
                let is_short = this.left.is_some_and(|left| left > 0);
                return Poll::Ready(is_short.then_some(Err(BodyFault::TooShort)));
            }
        };
        if let Some(left) = &mut this.left {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= length_of(&piece);
            if *left == 0 {
                this.pieces = None;
                this.is_sent.store(true, Ordering::Release);
            }
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
