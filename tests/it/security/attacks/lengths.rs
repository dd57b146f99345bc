//! No answer reveals the length of a stored secret.

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, reason};

/// The most bytes of all values of a connection.
const MOST: usize = 256 * 1024;
/// The bytes for which a short stored secret counts.
const ROOM: usize = 2 * 1024;

fn with_fields<'a>(name: &str, fields: impl Iterator<Item = (&'a str, usize)>) -> pb::Connection {
    let fields = fields.map(|(name, length)| (name.to_owned(), vec![b'x'; length]));
    pb::Connection {
        name: format!("connections/generic/{name}"),
        fields: fields.collect(),
        ..Default::default()
    }
}

fn create(broker: &TestBroker, connection: pb::Connection) {
    let request =
        pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.create_connection(request)).map(drop).unwrap();
}

fn update(broker: &TestBroker, change: pb::Connection, validate_only: bool) -> Result<(), Status> {
    let connection = Some(change);
    let request = pb::UpdateConnectionRequest { connection, validate_only, ..Default::default() };
    let mut client = ConnectionServiceClient::new(broker.operator());
    broker.block_on(client.update_connection(request)).map(drop)
}

/// A connection with this many bytes in other fields.
fn padding(name: &str, bytes: usize) -> pb::Connection {
    let names = ["p0", "p1", "p2", "p3", "p4"];
    let part = |place: usize| bytes.saturating_sub(place * 64 * 1024).min(64 * 1024);
    with_fields(name, names.into_iter().enumerate().map(|(place, name)| (name, part(place))))
}

#[test]
fn how_much_fits_beside_a_secret_does_not_tell_its_length() {
    let broker = TestBroker::start();
    for (name, length) in [("short", 1), ("long", 1999)] {
        create(&broker, with_fields(name, [("secret", length)].into_iter()));
    }
    for (given, fits) in [(MOST - ROOM, true), (MOST - ROOM + 1, false), (MOST - 1, false)] {
        let told = ["short", "long"].map(|name| update(&broker, padding(name, given), true));
        let text = |told: &Result<(), Status>| {
            let violations = |error: &Status| error.get_details_bad_request().unwrap();
            told.as_ref().err().map(|error| format!("{error:?} {:?}", violations(error)))
        };
        assert_eq!(told[0].is_ok(), fits, "{given}");
        assert_eq!(text(&told[0]), text(&told[1]));
        assert!(text(&told[0]).is_none_or(|text| !text.contains(&given.to_string())));
    }
    // A trial is refused with the message of the real request.
    let words = ["short", "long"].map(|name| {
        let refused = update(&broker, padding(name, MOST - ROOM + 1), false).unwrap_err();
        refused.get_details_bad_request().unwrap().field_violations[0].description.clone()
    });
    assert_eq!(words[0], words[1]);
}

#[test]
fn trials_beside_stored_secrets_are_few_and_journaled() {
    let broker = TestBroker::start();
    create(&broker, with_fields("one", [("secret", 10)].into_iter()));
    for _ in 0..10 {
        update(&broker, padding("one", 10), true).unwrap();
    }
    assert_eq!(reason(update(&broker, padding("one", 10), true)), "TOO_MANY_REQUESTS");
    assert_eq!(broker.journaled("compared").len(), 10);
    // A request without values is no trial.
    let labels = pb::Connection {
        name: "connections/generic/one".to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    update(&broker, labels, true).unwrap();
    update(&broker, padding("one", 10), false).unwrap();
}

#[test]
fn ordinary_changes_fit_beside_secrets_that_stay() {
    let broker = TestBroker::start();
    let five = ["a", "b", "c", "d", "e"].map(|name| (name, 3000));
    create(&broker, with_fields("five", five.into_iter()));
    update(&broker, with_fields("five", [("new", 100)].into_iter()), false).unwrap();
    let names: Vec<String> = (0..127).map(|n| format!("f{n}")).collect();
    create(&broker, with_fields("many", names.iter().map(|name| (name.as_str(), 40))));
    update(&broker, with_fields("many", [("new", 2000)].into_iter()), false).unwrap();
    // Five values of 60 KiB do not fit together, and four stored values leave no room for another.
    let four = ["a", "b", "c", "d"].map(|name| (name, 60 * 1024));
    create(&broker, with_fields("four", four.into_iter()));
    let fifth = update(&broker, with_fields("four", [("e", 1)].into_iter()), false);
    assert_eq!(reason(fifth), "FIELDS_INVALID");
    update(&broker, with_fields("four", [("a", 60 * 1024)].into_iter()), false).unwrap();
}
