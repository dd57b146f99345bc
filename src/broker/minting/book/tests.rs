use super::*;
use crate::catalog::Values;
use crate::lease::MintedCredential;
use crate::mint::FailureReason;
use crate::model::WorkflowName;
use crate::seal::{RecordKey, RecordKind, Sealed};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn id(n: u8) -> Id {
    Id::from_bytes([n; 16])
}

/// The key of opening `n` and a connection.
fn key(connection: u8, n: u8) -> MintKey {
    key_of("w", connection, n)
}

fn key_of(workflow: &str, connection: u8, n: u8) -> MintKey {
    let workflow = WorkflowName::parse(workflow).unwrap();
    MintKey { connection: id(connection), version: 1, workflow, opening: Some(id(n)) }
}

/// Starts the next flight.
fn start<O>(book: &mut Book<O>, now: i64) -> Option<O> {
    let key = book.next(at(now))?;
    book.next_order(&key)
}

fn minted(end: i64) -> Outcome {
    let mint = id(9);
    let key = RecordKey { kind: RecordKind::MintedValues, uid: mint };
    // No test opens it.
    let sealed = Sealed::parse(&[&[1_u8][..], &[0; 200]].concat()).unwrap();
    let credential_expire_time = at(end);
    let minted = MintedCredential {
        mint,
        handle: None,
        credential_expire_time,
        end_told: true,
        outlives: false,
        owed: false,
    }
    .into();
    let values = Values { key, sealed };
    Outcome::Minted(Arc::new(Credential { minted, values, names: [].into(), refresh: at(end / 2) }))
}

fn failed() -> Outcome {
    Outcome::Failed(Some(id(9)), Failure::new(FailureReason::Unavailable, ""))
}

fn landing(arrival: &Arrival) -> Option<&'static str> {
    arrival.borrow().as_ref().map(|landing| match landing {
        Landing::Minted(_) => "minted",
        Landing::Failed(_) => "failed",
        Landing::Corrupt => "corrupt",
        Landing::GivenUp => "given up",
    })
}

#[test]
fn all_who_ask_for_one_key_join_one_flight() {
    let mut book = Book::default();
    let arrivals: Vec<_> =
        (0..1000).map(|n| book.join(&key(1, 1), n, at(0)).ok().unwrap().0).collect();
    assert_eq!(start(&mut book, 0), Some(0));
    assert!(book.next(at(0)).is_none());
    book.land(&key(1, 1), minted(100), at(1));
    assert!(arrivals.iter().all(|arrival| landing(arrival) == Some("minted")));
    assert!(matches!(book.offer(&key(1, 1), at(99)), Offer::Ready(_)));
    assert!(matches!(book.offer(&key(1, 1), at(100)), Offer::Missing));
    assert!(matches!(book.offer(&key(1, 2), at(1)), Offer::Missing));
}

#[test]
fn flights_of_one_and_of_all_connections_are_limited() {
    let mut book = Book::default();
    let mut arrivals = Vec::new();
    for connection in 0..8 {
        for n in 0..20 {
            arrivals.push(book.join(&key(connection, n), connection, at(0)).ok().unwrap());
        }
    }
    let started: Vec<_> = std::iter::from_fn(|| book.next(at(0))).collect();
    assert_eq!(started.len(), FLIGHTS);
    let of = |n: u8| started.iter().filter(move |key| key.connection == id(n));
    assert!((0..8).all(|n| of(n).count() == 8), "all have as many");
    // Each landing starts the next flight of the connection that has the fewest.
    book.land(of(5).next().unwrap(), failed(), at(1));
    assert_eq!(start(&mut book, 1), Some(5));
    let mut alone = Book::default();
    let _waiting: Vec<_> = (0..20).map(|n| alone.join(&key(1, n), n, at(0)).ok()).collect();
    assert_eq!(std::iter::from_fn(|| alone.next(at(0))).count(), FLIGHTS_OF_ONE);
    let mut few = Book::new(|flights| *flights);
    let _waiting: Vec<_> = (0..20).map(|n| few.join(&key(1, n), 4, at(0)).ok()).collect();
    assert_eq!(std::iter::from_fn(|| few.next(at(0))).count(), 4);
}

#[test]
fn upstreams_that_hang_do_not_hold_up_the_others() {
    let mut book = Book::default();
    let join = |book: &mut Book<u8>, connection, n, now| {
        assert!(book.join(&key(connection, n), connection, at(now)).is_ok());
    };
    for connection in 0..4 {
        (0..40).for_each(|n| join(&mut book, connection, n, 0));
    }
    let hanging: Vec<_> = std::iter::from_fn(|| book.next(at(0))).collect();
    assert_eq!(hanging.len(), FLIGHTS);
    join(&mut book, 9, 0, 1);
    book.land(&hanging[0], failed(), at(7));
    assert_eq!(start(&mut book, 7), Some(9), "not the next of a connection that hangs");
}

#[test]
fn among_workflows_the_one_with_fewest_flights_is_next() {
    let mut book = Book::default();
    for n in 0..20 {
        assert!(book.join(&key_of("busy", 1, n), "busy", at(0)).is_ok());
    }
    let started: Vec<_> = std::iter::from_fn(|| book.next(at(0))).collect();
    assert!(book.join(&key_of("other", 1, 99), "other", at(1)).is_ok());
    book.land(&started[0], failed(), at(1));
    assert_eq!(start(&mut book, 1), Some("other"));
}

#[test]
fn one_workflow_does_not_fill_the_queue() {
    let mut book = Book::default();
    let mut ask = |workflow: &str, n: usize| {
        let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
        book.join(&key_of(workflow, high, low), (), at(0)).map(drop)
    };
    assert!((0..QUEUED_OF_ONE).all(|n| ask("busy", n).is_ok()));
    assert!(matches!(ask("busy", QUEUED_OF_ONE), Err(None)));
    assert!(ask("busy", 0).is_ok(), "it may join what waits");
    assert!(ask("other", 0).is_ok());
}

#[test]
fn a_flight_outlives_the_one_who_asked_first() {
    let mut book = Book::default();
    let arrivals: Vec<_> =
        (0..20).map(|n| book.join(&key(1, 1), n, at(0)).ok().unwrap().0).collect();
    let flight = book.next(at(1)).unwrap();
    let orders: Vec<_> = std::iter::from_fn(|| book.next_order(&flight)).collect();
    assert_eq!(orders, (0..16).collect::<Vec<_>>(), "each may begin it");
    assert!(arrivals.iter().all(|arrival| landing(arrival).is_none()));
}

#[test]
fn a_flight_that_waits_too_long_is_given_up() {
    let mut book = Book::default();
    let busy: Vec<_> = (0..16).map(|n| book.join(&key(1, n), (), at(0)).ok().unwrap()).collect();
    assert_eq!(std::iter::from_fn(|| book.next(at(0))).count(), busy.len());
    let (waits, _) = book.join(&key(1, 99), (), at(0)).ok().unwrap();
    assert!(book.next(at(9)).is_none() && landing(&waits).is_none());
    assert!(book.next(at(10)).is_none());
    assert_eq!(landing(&waits), Some("given up"));
    assert!(book.join(&key(1, 99), (), at(10)).is_ok(), "it may ask again");
}

#[test]
fn a_failed_refresh_keeps_the_credential() {
    let mut book = Book::default();
    let fly = |book: &mut Book<()>, outcome, now| {
        let (arrival, _) = book.join(&key(1, 1), (), at(now)).ok().unwrap();
        assert!(book.next(at(now)).is_some());
        book.land(&key(1, 1), outcome, at(now));
        landing(&arrival)
    };
    assert_eq!(fly(&mut book, minted(100), 0), Some("minted"));
    assert_eq!(fly(&mut book, failed(), 60), Some("failed"));
    assert!(matches!(book.offer(&key(1, 1), at(60)), Offer::Ready(_)));
    assert!(matches!(book.join(&key(1, 1), (), at(60)), Err(Some(_))), "it backs off");
    assert_eq!(fly(&mut book, failed(), 99), Some("failed"));
    assert!(matches!(book.offer(&key(1, 1), at(100)), Offer::Failing(_)));
    assert_eq!(fly(&mut book, minted(900), 102), Some("minted"));
}

#[test]
fn a_sweep_leaves_what_is_useful_and_flights() {
    let mut book = Book::default();
    for (n, outcome) in [(1, minted(100)), (2, minted(50)), (3, failed()), (4, minted(100))] {
        assert!(book.join(&key(1, n), (), at(0)).is_ok() && book.next(at(0)).is_some());
        book.land(&key(1, n), outcome, at(0));
    }
    let _flying = book.join(&key(1, 5), (), at(0));
    let left = |book: &Book<()>| {
        let mut left: Vec<_> = (1..=5).filter(|n| book.entries.contains_key(&key(1, *n))).collect();
        left.sort_unstable();
        left
    };
    book.sweep(at(50), |key| key.opening != Some(id(4)));
    assert_eq!(left(&book), [1, 3, 5]);
    book.sweep(at(61), |_| true);
    assert_eq!(left(&book), [1, 5]);
}

#[test]
fn only_the_credential_of_its_own_mint_is_forgotten() {
    let mut book = Book::default();
    let key = key(1, 1);
    let _ = book.join(&key, (), at(0));
    start(&mut book, 0).unwrap();
    book.land(&key, minted(100), at(0));
    book.forget(&key, id(8));
    assert!(matches!(book.offer(&key, at(1)), Offer::Ready(_)));
    book.forget(&key, id(9));
    assert!(matches!(book.offer(&key, at(1)), Offer::Missing));
    assert_eq!(book.keys().count(), 0);
    // A flight that is on goes on.
    let _ = book.join(&key, (), at(1));
    book.forget(&key, id(9));
    assert_eq!(book.keys().count(), 1);
}
