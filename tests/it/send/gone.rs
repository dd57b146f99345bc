//! Steps that go away in the middle, by a client that resets single streams: gRPC's own go on with an upload.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use tonic::codegen::Bytes;

use super::ends::fill;
use super::kinds::two_step;
use super::{Ask, World, head};
use crate::harness::raw::{Raw, framed, post};
use crate::harness::{allowing, identity_in, wait_until};

/// A Send whose messages go on.
struct Sending {
    messages: SendStream<Bytes>,
    answer: ResponseFuture,
}

impl Sending {
    fn begin(world: &World, raw: &Raw, head: pb::SendHead) -> Self {
        let request = post("/keyhatch.v1.StepService/Send").body(()).unwrap();
        let (answer, messages) = world.broker.block_on(raw.head(request));
        let mut sending = Self { messages, answer };
        sending.say(Ask::Head(head));
        sending
    }

    fn say(&mut self, part: Ask) {
        let message = framed(&pb::SendRequest { part: Some(part) });
        self.messages.send_data(message, false).unwrap();
    }

    /// Ends its messages when the answer begins. Returns once the reply has ended.
    fn end_late(self, world: &World) -> Result<(), h2::Error> {
        let Self { mut messages, answer } = self;
        world.broker.block_on(async {
            let mut reply = answer.await?.into_body();
            let mut is_ended = false;
            while let Some(data) = reply.data().await {
                reply.flow_control().release_capacity(data?.len())?;
                if !std::mem::replace(&mut is_ended, true) {
                    messages.send_data(Bytes::new(), true)?;
                }
            }
            reply.trailers().await.map(drop)
        })
    }

    fn cancel(mut self) {
        self.messages.send_reset(Reason::CANCEL);
    }
}

fn connect(world: &World) -> Raw {
    let directory = PathBuf::from(&world.step.opened.directory);
    let (socket, identity) = (directory.join("keyhatch.sock"), identity_in(&directory));
    world.broker.block_on(Raw::connect(&socket, &identity, 65_535))
}

#[test]
fn an_upload_that_is_cancelled_never_looks_whole() {
    let world = World::start();
    let raw = connect(&world);
    // The end of the messages and the end of the exchange reach the broker's tasks in any order.
    for uploads in 1..=32 {
        let mut sending = Sending::begin(&world, &raw, head("http/api", "PUT", "/file"));
        sending.say(Ask::Body(b"half".to_vec()));
        wait_until("the upstream has begun", || world.upstream.begun() == uploads);
        sending.cancel();
        let broken_off = world.upstream.broken_off();
        assert!(broken_off.starts_with("PUT /v1/file "), "{broken_off}");
    }
    assert!(world.upstream.is_quiet());
    wait_until("all ends are journaled", || world.broker.journaled("sent").len() == 32);
    for line in world.broker.journaled("sent") {
        assert!(["CANCELLED", "SEND_INVALID"].contains(&line["fault"].as_str().unwrap()));
    }
}

#[test]
fn a_step_may_end_its_messages_after_the_answer_begins() {
    let mut world = World::start();
    world.broker.config.limits.step_request_burst = 10_000;
    world.broker.restart();
    world.step = world.broker.open("w", "many");
    let raw = connect(&world);
    // Each reset of a stream counts, and beyond 1,024 the connection is closed.
    for _ in 0..1_100 {
        let head = pb::SendHead { content_length: Some(0), ..head("http/api", "GET", "/") };
        Sending::begin(&world, &raw, head).end_late(&world).unwrap();
    }
}

#[test]
fn a_step_that_leaves_before_the_credential_holds_nothing() {
    let world = World::start();
    let connection = Some(two_step(&world.upstream.origin()));
    let create = pb::CreateConnectionRequest { connection, ..Default::default() };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    world.broker.block_on(client.create_connection(create)).unwrap();
    // The upstream that makes the credential does not answer.
    world.upstream.answers(|_, _| {});
    let raws: Vec<_> = (0..3).map(|_| connect(&world)).collect();
    let waiting: Vec<_> = (0..64)
        .map(|n| Sending::begin(&world, &raws[n / 30], head("http/two", "GET", "/")))
        .collect();
    let leases = |event: &str| -> BTreeSet<String> {
        let lines = world.broker.journaled(event);
        lines.iter().map(|line| line["lease"].to_string()).collect()
    };
    wait_until("all wait", || leases("send").len() == 64);
    let awaited = leases("send");
    waiting.into_iter().for_each(Sending::cancel);
    wait_until("no lease awaits a credential", || leases("mint_failed") == awaited);
    assert!(world.broker.journaled("sent").is_empty());
    // All places are free again.
    assert_eq!(fill(&world).len(), 64);
}

#[test]
fn a_step_that_leaves_a_deaf_upstream_waits_for_nothing() {
    let mut world = World::start();
    // It takes a connection, and says nothing in the handshake.
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base_url = format!("https://{}", deaf.local_addr().unwrap());
    world.broker.config.egress = allowing(&["127.0.0.1"]);
    world.broker.restart();
    world.step = world.broker.open("w", "other");
    world.create("http/deaf", "none", &[("base_url", &base_url)]);
    let ask = pb::SendHead { content_length: Some(0), ..head("http/deaf", "GET", "/") };
    let raw = connect(&world);
    let sending = Sending::begin(&world, &raw, ask);
    let _connection = deaf.accept().unwrap();
    sending.cancel();
    wait_until("the end is journaled", || world.broker.journaled("sent").len() == 1);
    assert_eq!(world.broker.journaled("sent")[0]["fault"], "CANCELLED");
}
