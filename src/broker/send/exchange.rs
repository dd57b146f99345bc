//! One exchange under way: a task between the upstream and the step's stream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::own_body::OwnBody;
use super::standing::{Moved, Standing, reason};
use crate::broker::error::Error;
use crate::egress::{Address, AnswerPiece, Call, EgressError, Headers, Outgoing, Pieces, StepGone};
use crate::mask::{Masks, StreamMask};
use crate::mint::FailureReason;
use crate::model::{ResourceName, Value};

/// The longest piece of an answer that the step gets, in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// How long an end that may be the beginning of a value is held back.
const HELD: Duration = Duration::from_millis(200);

/// The places that an exchange takes: of its step, of its workflow, and of all.
pub(super) type Places = [OwnedSemaphorePermit; 3];

/// A part of an exchange's answer.
pub enum SendPart {
    /// The head: the first part.
    Answer(SendAnswer),
    /// A piece of the body.
    Body(Vec<u8>),
    /// The end, with the trailers: the last part.
    End(Headers),
}

/// The head of an answer.
pub struct SendAnswer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The full name of the connection.
    pub name: ResourceName,
    /// The version of the credential.
    pub version: u64,
    /// The path below the connection's address to which the header `location` leads, with its query; `None` if there is no
    /// such header, or it leads elsewhere or is relative to the request's own path.
    pub location: Option<String>,
}

/// The step's end of an exchange. When it is dropped, the exchange ends.
pub struct Exchange {
    pub(super) parts: mpsc::Receiver<Result<SendPart, Error>>,
}

impl Exchange {
    /// The next part; `None` after the last. An error is the last.
    pub async fn next(&mut self) -> Option<Result<SendPart, Error>> {
        self.parts.recv().await
    }
}

/// The upstream's end of an exchange.
pub(super) struct Exchanging {
    pub(super) standing: Standing,
    pub(super) masks: Masks,
    pub(super) places: Places,
    pub(super) parts: mpsc::Sender<Result<SendPart, Error>>,
}

/// Why an exchange is not complete.
enum Broken {
    /// The step has gone.
    Gone,
    By(Error),
}

impl From<EgressError> for Broken {
    fn from(error: EgressError) -> Self {
        let reason = match &error {
            EgressError::Body(_) => return Self::By(Error::SendInvalid(error.to_string())),
            EgressError::Malformed(_) => {
                return Self::By(Error::SendUnsupported(error.to_string()));
            }
            EgressError::Closed(_) | EgressError::Denied(_) => FailureReason::EgressDenied,
            EgressError::Invalid(_) => FailureReason::Invalid,
            EgressError::Unavailable(_) => FailureReason::Unavailable,
        };
        Self::By(Error::SendFailed { reason, detail: error.to_string() })
    }
}

impl Exchanging {
    /// Makes the exchange, and journals its end.
    pub(super) async fn run(self, call: Call, own: Option<OwnBody>) {
        let mut status = None;
        let ended = tokio::select! {
            biased;
            error = self.standing.ends() => Err(Broken::By(error)),
            () = self.parts.closed() => Err(Broken::Gone),
            done = self.exchange(call, own, &mut status) => done,
        };
        let Self { standing, masks, places, parts } = self;
        drop(masks);
        standing.sent(
            status,
            match &ended {
                Ok(()) => None,
                Err(Broken::Gone) => Some("CANCELLED"),
                Err(Broken::By(error)) => Some(reason(error)),
            },
        );
        drop(standing);
        if let Err(Broken::By(error)) = ended {
            let _ = parts.send(Err(error)).await;
        }
        // A step that does not read keeps its place.
        drop(places);
    }

    async fn exchange(
        &self,
        mut call: Call,
        own: Option<OwnBody>,
        status: &mut Option<u16>,
    ) -> Result<(), Broken> {
        call.body = self.body(call.body, own).await?;
        let (patterns, address) = (self.masks.patterns(), call.address.clone());
        let opening = self.standing.opening.record().id;
        let mut answer = self.standing.broker.mints.egress().call(opening, call).await?;
        *status = Some(answer.status);
        let headers = std::mem::take(&mut answer.headers);
        self.give(SendPart::Answer(self.head(answer.status, headers, &address))).await?;
        let (mut mask, mut trailers) = (StreamMask::default(), Vec::new());
        loop {
            let next = answer.next();
            let next = match mask.is_holding() {
                true => timeout(HELD, next).await.ok(),
                false => Some(next.await),
            };
            let data = match next {
                None => mask.release(&patterns),
                Some(next) => match next? {
                    None => break,
                    Some(AnswerPiece::Trailers(found)) => {
                        trailers = self.masked(found);
                        continue;
                    }
                    Some(AnswerPiece::Body(data)) if patterns.is_empty() => data.to_vec(),
                    Some(AnswerPiece::Body(data)) => mask.feed(&patterns, &data),
                },
            };
            self.give_body(data).await?;
        }
        self.give_body(mask.finish(&patterns)).await?;
        self.give(SendPart::End(trailers)).await
    }

    /// The body that goes out.
    async fn body(&self, of_step: Outgoing, own: Option<OwnBody>) -> Result<Outgoing, Broken> {
        let of_step = self.counted(begun(of_step).await?);
        match own {
            None => Ok(of_step),
            Some(own) => own.joined(of_step).await.map_err(Broken::By),
        }
    }

    /// The head of the answer for the step.
    fn head(&self, status: u16, headers: Headers, address: &Address) -> SendAnswer {
        let headers = self.masked(headers);
        let location = headers.iter().find(|(name, _)| name == "location");
        let location = location.and_then(|(_, value)| std::str::from_utf8(value.expose()).ok());
        SendAnswer {
            status,
            location: location.and_then(|location| address.path_to(location)),
            headers,
            name: self.standing.name.clone(),
            version: self.standing.lease.version,
        }
    }

    async fn give_body(&self, mut data: Vec<u8>) -> Result<(), Broken> {
        Moved::add(&self.standing.moved.received, data.len());
        while data.len() > PIECE_BYTES {
            let rest = data.split_off(PIECE_BYTES);
            self.give(SendPart::Body(std::mem::replace(&mut data, rest))).await?;
        }
        if data.is_empty() { Ok(()) } else { self.give(SendPart::Body(data)).await }
    }

    /// Gives a part to the step, and lets others of this thread have their turn: an upstream may answer as fast as a thread can
    /// pass on.
    async fn give(&self, part: SendPart) -> Result<(), Broken> {
        let given = self.parts.send(Ok(part)).await.map_err(|_| Broken::Gone);
        tokio::task::yield_now().await;
        given
    }

    fn masked(&self, headers: Headers) -> Headers {
        let patterns = self.masks.patterns();
        let masked = headers
            .into_iter()
            .filter(|(name, _)| !patterns.are_in_name(name))
            .map(|(name, value)| (name, Value::new(self.masks.masked_pieces(&[value.expose()]))));
        masked.collect()
    }

    /// The body, whose bytes are counted as they are taken.
    fn counted(&self, body: Outgoing) -> Outgoing {
        let Outgoing::Pieces { length, pieces } = body else { return body };
        let moved = Arc::clone(&self.standing.moved);
        let pieces = pieces.inspect(move |piece| {
            Moved::add(&moved.sent, piece.as_ref().map_or(0, |piece| piece.len()));
        });
        Outgoing::Pieces { length, pieces: Box::pin(pieces) }
    }
}

/// The body, once it is known whether there is one.
async fn begun(body: Outgoing) -> Result<Outgoing, Broken> {
    let Outgoing::Pieces { length: None, mut pieces } = body else { return Ok(body) };
    Ok(match pieces.next().await {
        None => Outgoing::Nothing,
        Some(Err(StepGone)) => return Err(EgressError::Body(StepGone.to_string()).into()),
        Some(first) => {
            let pieces: Pieces = Box::pin(stream::iter([first]).chain(pieces));
            Outgoing::Pieces { length: None, pieces }
        }
    })
}
