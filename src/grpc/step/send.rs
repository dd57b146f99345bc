//! `StepService.Send`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use super::StepPeer;
use super::target::reference;
use crate::broker::{Broker, Error, SendPart, SendRequest};
use crate::egress::{Bytes, Headers, Method, StepGone, StepHeaders, SubPath};
use crate::grpc::request::{ApiRequest as _, parse_requests};
use crate::grpc::{Reply, pb};
use crate::model::Reference;

/// The longest name of a service, in bytes.
const MAX_SERVICE_BYTES: usize = 32;

/// How long a step has to end its messages, once the reply is complete.
const PATIENCE: Duration = Duration::from_secs(1);

/// The step's messages after the head: the exchange takes the body from them.
type Messages = Arc<Mutex<Streaming<pb::SendRequest>>>;

/// A message of the step.
pub enum SendMessage {
    /// The head of a request.
    Head(Box<SendRequest>),
    /// A piece of its body.
    Body(Vec<u8>),
}

parse_requests! {
    SendRequest -> SendMessage = |one| match one.part {
        None => Err(Error::SendInvalid("a message has neither head nor body".to_owned())),
        Some(pb::send_request::Part::Head(head)) => {
            Ok(SendMessage::Head(Box::new(parse_head(head)?)))
        }
        Some(pb::send_request::Part::Body(body)) => Ok(SendMessage::Body(body)),
    };
}

type SendStream = Pin<Box<dyn Stream<Item = Result<pb::SendResponse, Status>> + Send>>;

/// Makes the exchange of a step.
pub(super) async fn send(
    broker: &Arc<Broker>,
    peer: &StepPeer,
    mut messages: Streaming<pb::SendRequest>,
) -> Reply<SendStream> {
    let first = messages.message().await?.map(pb::SendRequest::parse).transpose()?;
    let Some(SendMessage::Head(head)) = first else {
        let text = "the first message is the head of the request";
        return Err(Error::SendInvalid(text.to_owned()).into());
    };
    let messages = Arc::new(Mutex::new(messages));
    let pieces = stream::unfold(Arc::clone(&messages), |messages| async {
        let message = messages.lock().await.next().await?;
        let piece = match message.map(pb::SendRequest::parse) {
            Ok(Ok(SendMessage::Body(body))) => Ok(Bytes::from(body)),
            _ => Err(StepGone),
        };
        Some((piece, messages))
    });
    let sent = broker.send(&peer.tag, peer.svid.not_after, *head, Box::pin(pieces)).await;
    let exchange = match sent {
        Ok(exchange) => exchange,
        Err(error) => {
            read_to_end(&messages).await;
            return Err(error.into());
        }
    };
    let parts = stream::unfold((exchange, messages), |(mut exchange, messages)| async {
        let part = exchange.next().await?;
        if !matches!(part, Ok(SendPart::Answer(_) | SendPart::Body(_))) {
            read_to_end(&messages).await;
        }
        Some((part.map(to_message).map_err(Status::from), (exchange, messages)))
    });
    Ok(Response::new(Box::pin(parts)))
}

/// Reads what is left of a step's messages, for a short while. A reply that ends before them resets the stream, and a connection
/// with many streams that were reset is closed.
async fn read_to_end(messages: &Messages) {
    let rest = async { while messages.lock().await.next().await.is_some() {} };
    let _ = timeout(PATIENCE, rest).await;
}

fn parse_head(head: pb::SendHead) -> Result<SendRequest, Error> {
    let invalid = Error::SendInvalid;
    if head.service.len() > MAX_SERVICE_BYTES {
        return Err(invalid(format!("a service's name has at most {MAX_SERVICE_BYTES} bytes")));
    }
    let target = target(head.target)?;
    let pairs = head.headers.into_iter().map(|header| (header.name, header.value));
    let length = head.content_length.map(u64::try_from).transpose();
    Ok(SendRequest {
        target,
        service: head.service,
        method: Method::parse(&head.method).map_err(invalid)?,
        path: SubPath::parse(&head.path).map_err(invalid)?,
        headers: StepHeaders::parse(pairs).map_err(invalid)?,
        length: length.map_err(|_| invalid("content_length is below 0".to_owned()))?,
    })
}

fn target(target: Option<pb::send_head::Target>) -> Result<Reference, Error> {
    use pb::resolve_request::Target;
    use pb::send_head::Target as Asked;
    let Some(target) = target else {
        let text = "no target: name a connection, a group or default_for".to_owned();
        return Err(Error::TargetInvalid(text));
    };
    reference(Some(match target {
        Asked::Connection(target) => Target::Connection(target),
        Asked::DefaultFor(integration) => Target::DefaultFor(integration),
        Asked::Group(target) => Target::Group(target),
    }))
}

fn to_message(part: SendPart) -> pb::SendResponse {
    use pb::send_response::Part;
    let part = match part {
        SendPart::Answer(answer) => Part::Answer(pb::SendAnswer {
            status: i32::from(answer.status),
            headers: headers(answer.headers),
            name: answer.name.to_string(),
            version: i64::try_from(answer.version).unwrap_or(i64::MAX),
            location: answer.location,
        }),
        SendPart::Body(body) => Part::Body(body),
        SendPart::End(trailers) => Part::End(pb::SendEnd { trailers: headers(trailers) }),
    };
    pb::SendResponse { part: Some(part) }
}

fn headers(headers: Headers) -> Vec<pb::HttpHeader> {
    let message = |(name, value): (String, crate::model::Value)| pb::HttpHeader {
        name,
        value: value.into_exposed(),
    };
    headers.into_iter().map(message).collect()
}
