//! StepService.Send: a step uses a credential that it never gets. The upstreams are servers of the test, over real sockets.

mod bad_days;
mod ends;
mod gone;
mod kinds;
mod nginx;
mod requests;
mod upstream;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::send_head::Target;
use keyhatch::grpc::pb::send_request::Part as Ask;
use keyhatch::grpc::pb::send_response::Part;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{TestBroker, TestStep, allowing, bytes};
use upstream::RawUpstream;

/// The token of http/api. No step may see it.
const TOKEN: &str = "s3cret-token-of-the-api";

/// A broker, an upstream that it may ask, and an open step of workflow w.
struct World {
    broker: TestBroker,
    upstream: RawUpstream,
    step: TestStep,
}

/// A whole answer.
#[derive(Debug)]
struct Sent {
    status: i32,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    version: i64,
}

impl Sent {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl World {
    /// With http/api, whose token is sent as a bearer; workflow w is a user of it.
    fn start() -> Self {
        let upstream = RawUpstream::start();
        let mut broker = TestBroker::start();
        broker.config.egress = allowing(&[&upstream.origin()]);
        broker.restart();
        let base_url = format!("{}/v1", upstream.origin());
        let fields = [
            ("base_url", base_url.as_str()),
            ("tokens.key", TOKEN),
            ("headers.Authorization", "Bearer {{ key }}"),
        ];
        let step = broker.open("w", "s");
        let world = Self { broker, upstream, step };
        world.create("http/api", "token", &fields);
        world
    }

    /// Creates a connection of which workflow w is a user.
    fn create(&self, reference: &str, kind: &str, fields: &[(&str, &str)]) {
        let connection = pb::Connection {
            name: format!("connections/{reference}"),
            kind: kind.to_owned(),
            fields: bytes(fields),
            access: user("workflow:w"),
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.create_connection(request)).unwrap();
    }

    /// Changes http/api, which must succeed.
    fn update(&self, connection: pb::Connection, paths: &[&str]) {
        self.try_update(connection, paths).unwrap();
    }

    /// Changes http/api.
    fn try_update(&self, connection: pb::Connection, paths: &[&str]) -> Result<(), Status> {
        let name = "connections/http/api".to_owned();
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = pb::UpdateConnectionRequest {
            connection: Some(pb::Connection { name, ..connection }),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.update_connection(request)).map(drop)
    }

    /// Sends with http/api, without a body.
    fn get(&self, path: &str) -> Result<Sent, Status> {
        self.send(head("http/api", "GET", path), &[])
    }

    /// Sends a request whose body comes in these pieces.
    fn send(&self, head: pb::SendHead, pieces: &[&[u8]]) -> Result<Sent, Status> {
        self.broker.block_on(async {
            let answer = begin(&self.step.channel, head, pieces).await?;
            whole(answer).await
        })
    }
}

fn user(principal: &str) -> Vec<pb::AccessBinding> {
    vec![pb::AccessBinding {
        relation: pb::Relation::User.into(),
        principals: vec![principal.to_owned()],
    }]
}

/// A head without headers and with no known length of the body.
fn head(reference: &str, method: &str, path: &str) -> pb::SendHead {
    let (integration, name) = reference.split_once('/').unwrap();
    let target = pb::ConnectionTarget { integration: integration.into(), name: name.into() };
    pb::SendHead {
        target: Some(Target::Connection(target)),
        method: method.to_owned(),
        path: path.to_owned(),
        ..Default::default()
    }
}

fn with_headers(head: pb::SendHead, headers: &[(&str, &str)]) -> pb::SendHead {
    let header = |(name, value): &(&str, &str)| pb::HttpHeader {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    };
    pb::SendHead { headers: headers.iter().map(header).collect(), ..head }
}

/// Begins an exchange.
async fn begin(
    channel: &Channel,
    head: pb::SendHead,
    pieces: &[&[u8]],
) -> Result<Streaming<pb::SendResponse>, Status> {
    let pieces = pieces.iter().map(|piece| Ask::Body(piece.to_vec()));
    let parts: Vec<_> = std::iter::once(Ask::Head(head)).chain(pieces).collect();
    let messages = parts.into_iter().map(|part| pb::SendRequest { part: Some(part) });
    let messages = tokio_stream::iter(messages);
    Ok(StepServiceClient::new(channel.clone()).send(messages).await?.into_inner())
}

/// Reads an answer to its end.
async fn whole(mut answer: Streaming<pb::SendResponse>) -> Result<Sent, Status> {
    let mut sent: Option<Sent> = None;
    while let Some(message) = answer.message().await? {
        match (message.part.unwrap(), &mut sent) {
            (Part::Answer(head), None) => {
                sent = Some(Sent {
                    status: head.status,
                    headers: pairs(head.headers),
                    body: Vec::new(),
                    trailers: Vec::new(),
                    version: head.version,
                });
            }
            (Part::Body(body), Some(sent)) => sent.body.extend(body),
            (Part::End(end), Some(sent)) => sent.trailers = pairs(end.trailers),
            _ => panic!("parts out of order"),
        }
    }
    Ok(sent.unwrap())
}

fn pairs(headers: Vec<pb::HttpHeader>) -> Vec<(String, String)> {
    let text = |header: pb::HttpHeader| (header.name, String::from_utf8(header.value).unwrap());
    headers.into_iter().map(text).collect()
}
