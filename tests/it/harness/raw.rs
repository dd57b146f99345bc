//! HTTP/2 over the real socket, for what no gRPC client sends.

use std::path::Path;

use h2::client::{ResponseFuture, SendRequest};
use h2::{PingPong, RecvStream, SendStream};
use keyhatch::identity::{BrokerAddress, ClientIdentity, TlsClientStream, connect};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Builder;
use tonic::codegen::http::{HeaderMap, Request};
use tonic_types::StatusExt as _;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const RESOLVE: &str = "/keyhatch.v1.StepService/Resolve";

/// A connection of well-formed frames.
pub struct Raw {
    sender: SendRequest<Bytes>,
    pings: PingPong,
    ended: JoinHandle<Result<(), h2::Error>>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub http: u16,
    pub headers: HeaderMap,
    pub status: Option<Status>,
}

/// A request with a part of its message.
pub struct Half {
    pub stream: SendStream<Bytes>,
    response: ResponseFuture,
    rest: Bytes,
}

impl Raw {
    /// Connects with a flow-control window of this many bytes for each reply.
    pub async fn connect(socket: &Path, identity: &ClientIdentity, window: u32) -> Self {
        Self::at(socket.into(), identity, window).await
    }

    /// The same at any address.
    pub async fn at(address: BrokerAddress, identity: &ClientIdentity, window: u32) -> Self {
        let stream = connect(address, identity).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let (sender, mut connection) = builder.handshake(stream).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        Self { sender, pings, ended: tokio::spawn(connection) }
    }

    /// Sends a request, with a message if `message` is `Some`.
    pub async fn send(
        &self,
        request: Request<()>,
        message: Option<Bytes>,
    ) -> Result<ResponseFuture, h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, message.is_none())?;
        if let Some(message) = message {
            // A refusal may be here already, because it waits for no message.
            let _ = stream.send_data(message, true);
        }
        Ok(response)
    }

    pub async fn ask(
        &self,
        request: Request<()>,
        message: Option<Bytes>,
    ) -> Result<Answer, h2::Error> {
        answer(self.send(request, message).await?).await
    }

    /// Sends the head of a request, and no message.
    pub async fn head(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.sender.clone().ready().await.unwrap().send_request(request, false).unwrap()
    }

    /// Sends a request and a part of its message.
    pub async fn begin(&self, request: Request<()>, message: &Bytes) -> Half {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(message.slice(..3), false).unwrap();
        Half { stream, response, rest: message.slice(3..) }
    }

    /// Pings until the connection ends.
    pub async fn ping_to_the_end(mut self) {
        while self.pings.ping(h2::Ping::opaque()).await.is_ok() {}
        let _ = self.ended.await;
    }

    /// Waits until the other side ends the connection.
    pub async fn end(self) {
        let Self { sender, ended, .. } = self;
        let _ = ended.await;
        drop(sender);
    }
}

impl Half {
    /// Sends the rest of the message.
    pub async fn finish(mut self) -> Result<Answer, h2::Error> {
        let _ = self.stream.send_data(self.rest.clone(), true);
        answer(self.response).await
    }

    /// Waits for the answer without the rest of the message.
    pub async fn answer(self) -> Result<Answer, h2::Error> {
        let Self { stream, response, .. } = self;
        let answer = answer(response).await;
        drop(stream);
        answer
    }
}

impl Answer {
    /// The stable reason, else the gRPC code, else the HTTP status.
    pub fn reason(&self) -> String {
        match &self.status {
            None => self.http.to_string(),
            Some(status) => match status.get_error_details().error_info() {
                Some(info) => info.reason.clone(),
                None => format!("{:?}", status.code()),
            },
        }
    }
}

async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let trailers = read(&mut body).await?;
    let status = [&head.headers, &trailers].into_iter().find_map(Status::from_header_map);
    Ok(Answer { http: head.status.as_u16(), headers: head.headers, status })
}

async fn read(body: &mut RecvStream) -> Result<HeaderMap, h2::Error> {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(body.trailers().await?.unwrap_or_default())
}

/// A gRPC request as clients send it.
pub fn post(path: &str) -> Builder {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A message in a gRPC frame.
pub fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// The bytes of an HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The bytes of a header list without indexing (RFC 7541, 6.2.2).
pub fn header_list(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Sends these bytes. Returns all bytes that arrive until the other side ends the connection.
pub async fn say_to_the_end(mut stream: TlsClientStream, bytes: &[u8]) -> Vec<u8> {
    // The other side may end the connection before all bytes are sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    heard
}
