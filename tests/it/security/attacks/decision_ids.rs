//! A refused step learns nothing from the decision's id.

use tonic_types::StatusExt as _;

use crate::harness::{TestBroker, TestStep, reason};

fn refused(broker: &TestBroker, step: &TestStep) -> String {
    let status = broker.resolve(step, "aws/nothere").unwrap_err();
    status.get_error_details().error_info().unwrap().metadata["decision_id"].clone()
}

#[test]
fn a_decision_id_counts_nothing() {
    let broker = TestBroker::start();
    let (step, other) = (broker.open("deploy", "build"), broker.open("other", "build"));
    let ids: Vec<_> = (0..20).map(|_| refused(&broker, &step)).collect();
    refused(&broker, &other);
    let numbers: Vec<_> = ids.iter().map(|id| u128::from_str_radix(id, 16).unwrap()).collect();
    assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert!(!numbers.is_sorted() && !numbers.iter().rev().is_sorted(), "{ids:?}");
    // Consecutive ids differ in about half of their bits, in both halves.
    for pair in numbers.windows(2) {
        let differing = pair[0] ^ pair[1];
        let halves = [differing >> 64, differing & u128::from(u64::MAX)];
        assert!(halves.iter().all(|half| (12..52).contains(&half.count_ones())), "{ids:?}");
    }
}

#[test]
fn an_operator_finds_a_decision_by_either_name() {
    let mut broker = TestBroker::start();
    let step = broker.open("deploy", "build");
    let ids = [refused(&broker, &step), refused(&broker, &step)];
    broker.restart();
    for id in ids {
        let told = broker.explain_decision(&id).unwrap();
        let place = told.past.as_ref().unwrap().decision_id.clone();
        let line: u64 = place.strip_prefix("1.").unwrap().parse().unwrap();
        let journal = broker.journal();
        let written = journal.iter().find(|one| one["n"] == line).unwrap();
        assert_eq!(
            (&written["event"], &written["decision"]),
            (&"resolve".into(), &"refuse".into())
        );
        assert_eq!(broker.explain_decision(&place).unwrap(), told);
    }
    let unknown = "0123456789abcdef0123456789abcdef";
    assert_eq!(reason(broker.explain_decision(unknown)), "DECISION_NOT_FOUND");
    assert_eq!(reason(broker.explain_decision(&unknown[1..])), "DECISION_INVALID");
}
