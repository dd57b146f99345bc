//! Decisions that are ready together share one write to the journal, and stay decisions of their own.

use futures_util::future::{join_all, poll_immediate};
use keyhatch::broker::{Answer, Error, ResolveRequest, Room};
use keyhatch::journal::CommitGroup;

use crate::harness::{BareBroker, EndlessRoom};

const TOGETHER: usize = 8;

fn request() -> ResolveRequest {
    ResolveRequest {
        target: "slack/mine".parse().unwrap(),
        fields: vec![],
        ttl: None,
        action: None,
    }
}

async fn start() -> BareBroker {
    let bare = BareBroker::start().await;
    bare.create("slack/mine", "workflow:deploy").await;
    bare
}

async fn resolve(bare: &BareBroker, group: &CommitGroup) -> Result<Answer, Error> {
    bare.broker.resolve_in_group(group, &bare.session, &request(), &mut EndlessRoom).await
}

/// The write(2) calls of this thread so far (proc(5)).
fn writes() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn decisions_ready_together_share_one_write() {
    let (bare, group) = (start().await, CommitGroup::default());
    let (lines, before) = (bare.journal_lines(), writes());
    let resolved = join_all((0..TOGETHER).map(|_| resolve(&bare, &group))).await;
    assert!(resolved.iter().all(Result::is_ok));
    assert_eq!(writes() - before, 1);
    assert_eq!(bare.journal_lines() - lines, TOGETHER, "a line each");
}

#[tokio::test]
async fn a_request_that_ends_early_leaves_no_line_and_no_wait() {
    let (bare, group) = (start().await, CommitGroup::default());
    let lines = bare.journal_lines();
    let [mut gone, mut stays] =
        [Box::pin(resolve(&bare, &group)), Box::pin(resolve(&bare, &group))];
    assert!(
        poll_immediate(&mut gone).await.is_none() && poll_immediate(&mut stays).await.is_none()
    );
    drop(gone);
    assert!(stays.await.is_ok());
    assert_eq!(bare.journal_lines() - lines, 1);
}

#[tokio::test]
async fn a_change_between_decision_and_line_decides_again() {
    let (bare, group) = (start().await, CommitGroup::default());
    let mut early = Box::pin(resolve(&bare, &group));
    assert!(poll_immediate(&mut early).await.is_none());
    bare.create("slack/other", "workflow:deploy").await;
    assert!(early.await.is_ok());
}

/// Room that counts what is taken.
#[derive(Default)]
struct CountingRoom(usize);

impl Room for CountingRoom {
    fn take(&mut self, bytes: usize) -> bool {
        self.0 += bytes;
        true
    }
}

#[tokio::test]
async fn a_decision_made_again_takes_its_room_once() {
    let (bare, group) = (start().await, CommitGroup::default());
    let mut alone = CountingRoom::default();
    assert!(bare.broker.resolve(&bare.session, &request(), &mut alone).is_ok());
    let (mut again, request) = (CountingRoom::default(), request());
    let mut early =
        Box::pin(bare.broker.resolve_in_group(&group, &bare.session, &request, &mut again));
    assert!(poll_immediate(&mut early).await.is_none());
    bare.create("slack/other", "workflow:deploy").await;
    assert!(early.await.is_ok());
    // A batch, too.
    let mut asked = [Ok(request.clone())].into_iter();
    let batch = bare.broker.authorize_batch(&bare.session, &mut asked, 1);
    bare.create("slack/third", "workflow:deploy").await;
    let mut of_batch = CountingRoom::default();
    let answers = bare.broker.resolve_batch(&bare.session, batch, &mut of_batch);
    assert!(answers.iter().all(Result::is_ok));
    assert!(alone.0 > 0);
    assert_eq!([again.0, of_batch.0], [alone.0, alone.0]);
}
