//! Minted credentials: a step gets what an upstream has made, and never what it was made from. The upstreams are servers
//! of the test, over real sockets.

mod aws;
mod bad_days;
mod canaries;
mod changes;
mod endings;
mod flows;
mod github;
mod issuer;
mod postgres;
mod processes;
mod refresh;
mod sources;
mod stories;
mod token_servers;
mod trial;
pub mod upstream;
mod watching;

use keyhatch::egress::Egress;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::integration::Source;
use keyhatch::mint::{self, End};
use keyhatch::model::{FieldName, Limits, Value};
use tonic::Status;

use crate::harness::{
    Got, TestBroker, TestStep, allowing, block_on, bytes, request, resolve_on, resolver, wait_until,
};
use upstream::Scripted;

/// The root of every connection here. No step may get it.
const ROOT: &str = "root-of-the-client";

/// A broker and an upstream that it may ask.
struct World {
    broker: TestBroker,
    upstream: Scripted,
}

/// A Resolve that is under way.
type Pending = tokio::task::JoinHandle<Result<Got, Status>>;

/// Ends a credential that these values end.
fn end_alone(egress: &Egress, source: Source, ending: &[(&str, &str)]) {
    let ending = ending.iter().map(|(name, value)| {
        (FieldName::parse(name).unwrap(), Value::new(value.as_bytes().to_vec()))
    });
    let ended = block_on(mint::end(egress, source, &ending.collect()));
    assert!(matches!(ended, Ok(End::Ended)));
}

impl World {
    /// With the connection oauth2/api, which steps of workflow w may resolve.
    fn start() -> Self {
        Self::start_with(Limits::default())
    }

    fn start_with(limits: Limits) -> Self {
        let upstream = Scripted::start();
        let mut broker = TestBroker::start_with(limits);
        broker.config.egress = allowing(&[&upstream.url("")]);
        broker.restart();
        let world = Self { broker, upstream };
        world.create("api", "/token");
        world
    }

    /// Creates a minted connection, which steps of workflow w may resolve.
    fn create_minted(&self, reference: &str, fields: &[(&str, &str)]) {
        let connection = pb::Connection {
            name: format!("connections/{reference}"),
            fields: bytes(fields),
            access: resolver(&["workflow:w"]),
            release: pb::Release::Minted.into(),
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.create_connection(request)).unwrap();
    }

    /// Creates oauth2/NAME, whose token is made at this path of the upstream.
    fn create(&self, name: &str, path: &str) {
        let url = self.upstream.url(path);
        let fields = [("token_url", url.as_str()), ("client_id", "me"), ("client_secret", ROOT)];
        self.broker.create_connection(&format!("oauth2/{name}"), &fields, &["workflow:w"]).unwrap();
    }

    /// Changes oauth2/api.
    fn update(&self, connection: pb::Connection) {
        let name = "connections/oauth2/api".to_owned();
        let connection = Some(pb::Connection { name, ..connection });
        let request = pb::UpdateConnectionRequest { connection, ..Default::default() };
        let mut client = ConnectionServiceClient::new(self.broker.operator());
        self.broker.block_on(client.update_connection(request)).unwrap();
    }

    /// Writes another root of oauth2/api.
    fn rotate(&self, root: &str) {
        self.update(pb::Connection {
            fields: bytes(&[("client_secret", root)]),
            ..Default::default()
        });
    }

    /// The token that a step gets of oauth2/api.
    fn token(&self, step: &TestStep) -> String {
        self.broker.resolve(step, "oauth2/api").unwrap().fields["access_token"].clone()
    }

    /// Begins a Resolve, and waits until the upstream has had this many calls.
    fn resolve_slowly(&self, step: &TestStep, reference: &str, calls: usize) -> Pending {
        let pending = self.broker.spawn(resolve_on(step.channel.clone(), request(reference)));
        wait_until("the upstream is asked", || self.upstream.calls() == calls);
        pending
    }

    /// The result of a Resolve that was under way.
    fn end(&self, pending: Pending) -> Result<Got, Status> {
        self.broker.block_on(pending).unwrap()
    }

    /// How many lines there are of an event.
    fn count(&self, event: &str) -> usize {
        self.broker.journaled(event).len()
    }
}
