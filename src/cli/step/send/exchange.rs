//! One HTTP exchange through the broker, for `keyhatch send` and the addresses of `exec --serve`.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt as _, stream};
use hyper::body::Bytes;
use tokio::sync::oneshot;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::cli::io::failure::{Failure, exit};
use crate::grpc::pb;
use crate::grpc::pb::send_head::Target;
use crate::grpc::pb::send_request::Part as RequestPart;
use crate::grpc::pb::send_response::Part as ResponsePart;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::model::Reference;

/// The longest piece of a request's body, in bytes.
pub const MAX_PIECE_BYTES: usize = 60 * 1024;

/// The connection whose upstream is asked.
pub struct SendTarget {
    target: Target,
    /// The service of the upstream; empty for its API.
    service: String,
}

impl SendTarget {
    /// A service of what this reference names. Fails for a secret.
    pub fn new(reference: &Reference, service: &str) -> Result<Self, Failure> {
        let target = match reference {
            Reference::Connection(connection) => Target::Connection(pb::ConnectionTarget {
                integration: connection.integration.to_string(),
                name: connection.name.to_string(),
            }),
            Reference::Default(integration) => Target::DefaultFor(integration.to_string()),
            Reference::Group(group) => {
                let pairs = group.identifiers.iter();
                let pairs = pairs.map(|tag| (tag.key.to_string(), tag.value.to_string()));
                let identifiers: BTreeMap<_, _> = pairs.collect();
                Target::Group(pb::GroupTarget { name: group.name.to_string(), identifiers })
            }
            Reference::Secret(_) => {
                return Err(Failure::usage(format!(
                    "{reference} has no upstream; name a connection, such as github/main"
                )));
            }
        };
        Ok(Self { target, service: service.to_owned() })
    }

    /// The head of a request to it. `length` is the body's length in bytes; `None` if it is not known.
    pub fn head(
        &self,
        (method, path): (&str, &str),
        headers: Vec<pb::HttpHeader>,
        length: Option<u64>,
    ) -> pb::SendHead {
        pb::SendHead {
            target: Some(self.target.clone()),
            service: self.service.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            content_length: length.map(|length| i64::try_from(length).unwrap_or(i64::MAX)),
        }
    }
}

/// An exchange whose answer has begun.
pub struct Exchange {
    pub answer: pb::SendAnswer,
    rest: Streaming<pb::SendResponse>,
}

impl Exchange {
    /// Sends a request, and waits for the head of its answer. Fails as `StepService.Send`.
    pub async fn begin(
        channel: Channel,
        head: pb::SendHead,
        body: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Self, Failure> {
        let pieces = body.map(|piece| RequestPart::Body(piece.into()));
        let parts = stream::iter([RequestPart::Head(head)]).chain(pieces);
        let requests = parts.map(|part| pb::SendRequest { part: Some(part) });
        let mut rest = StepServiceClient::new(channel).send(requests).await?.into_inner();
        match rest.message().await?.and_then(|first| first.part) {
            Some(ResponsePart::Answer(answer)) => Ok(Self { answer, rest }),
            _ => Err(broken_off()),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        u16::try_from(self.answer.status).unwrap_or_default()
    }

    /// The next piece of the answer's body. `None` if the answer is complete. Fails as `StepService.Send`, and then the
    /// answer is not complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, as a poll.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let part = match ready!(Pin::new(&mut self.rest).poll_next(context)) {
            Some(next) => next?.part,
            None => None,
        };
        Poll::Ready(match part {
            Some(ResponsePart::Body(piece)) => Ok(Some(piece.into())),
            Some(ResponsePart::End(_)) => Ok(None),
            Some(ResponsePart::Answer(_)) | None => Err(broken_off()),
        })
    }
}

fn broken_off() -> Failure {
    let text = "the broker has ended an exchange without a reason; the upstream may have done what was asked";
    Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
}

/// The pieces of a request's body, and the error that its source ends with. After an error the pieces never end: the
/// upstream must not take the part that was read for the whole.
pub fn pieces<E: Send + 'static>(
    source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> (impl Stream<Item = Bytes> + Send + 'static, Broken<E>) {
    let (broken, error) = oneshot::channel();
    let state = (Box::pin(source), Bytes::new(), broken);
    let pieces = stream::unfold(state, |(mut source, mut rest, broken)| async move {
        while rest.is_empty() {
            match source.next().await? {
                Ok(bytes) => rest = bytes,
                Err(error) => {
                    // The exchange may be over.
                    let _ = broken.send(error);
                    return pending().await;
                }
            }
        }
        let piece = rest.split_to(rest.len().min(MAX_PIECE_BYTES));
        Some((piece, (source, rest, broken)))
    });
    (pieces, Broken(Some(error)))
}

/// The error that the source of a body may end with.
pub struct Broken<E>(Option<oneshot::Receiver<E>>);

impl<E> Broken<E> {
    /// Waits for the error. Waits for ever if there is none.
    pub async fn wait(&mut self) -> E {
        poll_fn(|context| self.poll(context)).await
    }

    /// The same, as a poll.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<E> {
        let Some(error) = &mut self.0 else { return Poll::Pending };
        let told = ready!(Pin::new(error).poll(context));
        self.0 = None;
        told.map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_cut_into_pieces_and_nothing_is_lost() {
        let all = Bytes::from((0..=250).cycle().take(150_000).collect::<Vec<u8>>());
        let source = [all.slice(..100_000), Bytes::new(), all.slice(100_000..)];
        let (pieces, _error) = pieces(stream::iter(source.map(Ok::<_, ()>)));
        let pieces: Vec<Bytes> = pieces.collect().await;
        assert!(pieces.iter().all(|piece| (1..=MAX_PIECE_BYTES).contains(&piece.len())));
        assert_eq!(pieces.concat(), all);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_never_ends() {
        let source = [Ok(Bytes::from_static(b"half")), Err("gone")];
        let (pieces, mut error) = pieces(stream::iter(source));
        let mut pieces = Box::pin(pieces);
        assert_eq!(pieces.next().await.unwrap(), "half");
        tokio::select! {
            biased;
            piece = pieces.next() => panic!("{piece:?}"),
            error = error.wait() => assert_eq!(error, "gone"),
        }
    }
}
