//! The amount of work reveals no more than the answer does.

use allocation_counter::measure;
use keyhatch::broker::{Error, ResolveRequest};

use crate::harness::{BareBroker, EndlessRoom};

/// The heap blocks and bytes of a resolve on this thread.
fn cost(bare: &BareBroker, reference: &str) -> (u64, u64) {
    let request = ResolveRequest {
        target: reference.parse().unwrap(),
        fields: vec!["api_token".to_owned()],
        ttl: None,
        action: None,
    };
    let mut outcome = None;
    let used = measure(|| {
        outcome = Some(bare.broker.resolve(&bare.session, &request, &mut EndlessRoom));
    });
    match outcome.unwrap() {
        Ok(_) | Err(Error::Denied { .. }) => (used.count_total, used.bytes_total),
        Err(error) => panic!("{reference}: {error}"),
    }
}

/// A missing connection and a forbidden one get the same message (see `resolve`) and cost the same work. A clock is too
/// coarse to show this. The number of heap blocks is exact.
#[test]
fn a_missing_connection_costs_the_same_as_a_forbidden_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bare = BareBroker::start().await;
        bare.create("slack/mine", "workflow:deploy").await;
        bare.create("slack/hers", "workflow:other").await;
        // The first requests grow the buffers and the line numbers.
        for _ in 0..100 {
            cost(&bare, "slack/hers");
            cost(&bare, "slack/none");
        }
        let costs = |reference: &str| (0..50).map(|_| cost(&bare, reference)).collect::<Vec<_>>();
        let forbidden = costs("slack/hers");
        assert_eq!(costs("slack/none"), forbidden);
        // The control: a permitted resolve costs more.
        assert!(cost(&bare, "slack/mine").0 > forbidden[0].0);
    });
}
