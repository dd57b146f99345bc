use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn id(n: u8) -> Id {
    Id::from_bytes([n; 16])
}

/// A schedule with so many endings of each of so many connections. Mints count from 1, connections from 100.
fn schedule(connections: u8, each: u8) -> Schedule {
    let mut schedule = Schedule::default();
    for n in 0..connections * each {
        schedule.insert(&new(n + 1, 100 + n / each), at(0));
    }
    schedule
}

fn new(mint: u8, connection: u8) -> NewEnding {
    NewEnding { mint: id(mint), connection: id(connection), last: None, is_disabled: false }
}

/// The upstream is away.
fn away(retry_after: Option<u64>) -> Failure {
    let retry_after = retry_after.map(Duration::from_secs);
    let failure = Failure::new(FailureReason::Unavailable, "why");
    Failure { retry_after, concerns_all: true, ..failure }
}

/// It has not ended this credential.
fn refused(reason: FailureReason, retry_after: Option<u64>) -> Failure {
    let retry_after = retry_after.map(Duration::from_secs);
    Failure { retry_after, ..Failure::new(reason, "why") }
}

/// All endings that start now.
fn started(schedule: &mut Schedule, now: i64) -> Vec<Id> {
    std::iter::from_fn(|| schedule.next(at(now))).collect()
}

/// How long an ending waits from `now`.
fn wait(schedule: &Schedule, mint: u8, now: i64) -> u64 {
    schedule.tries(id(mint)).unwrap().next.unwrap().since(at(now)).as_secs()
}

#[test]
fn a_connection_has_four_endings_at_a_time_and_all_have_32() {
    assert_eq!(started(&mut schedule(1, 10), 0).len(), 4);
    let mut schedule = schedule(10, 10);
    let first = started(&mut schedule, 0);
    assert_eq!(first.len(), 32);
    let of_first = first.iter().filter(|mint| **mint <= id(10)).count();
    assert!((3..=4).contains(&of_first), "every connection has its share");
    schedule.end(first[0]);
    assert_eq!(started(&mut schedule, 0).len(), 1);
}

#[test]
fn an_upstream_that_is_away_is_asked_by_one_for_all() {
    let mut schedule = schedule(1, 100);
    let first = started(&mut schedule, 0);
    for mint in &first {
        schedule.fail(*mint, &away(None), at(0));
    }
    // All four have failed together, which counts once.
    let mut now = 1;
    assert_eq!(started(&mut schedule, now - 1), []);
    for expected in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let [probe] = started(&mut schedule, now)[..] else { panic!("one asks for all") };
        schedule.fail(probe, &away(None), at(now));
        assert_eq!(wait(&schedule, 99, now), expected, "one that has not asked waits as well");
        assert_eq!(started(&mut schedule, now + i64::try_from(expected).unwrap() - 1), []);
        now += i64::try_from(expected).unwrap();
    }
    let [probe] = started(&mut schedule, now)[..] else { panic!("one asks for all") };
    schedule.end(probe);
    assert_eq!(started(&mut schedule, now).len(), 4);
}

#[test]
fn a_credential_that_is_refused_waits_alone() {
    let mut schedule = schedule(1, 2);
    assert_eq!(started(&mut schedule, 0), [id(1), id(2)]);
    let mut now = 0;
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        schedule.fail(id(1), &refused(FailureReason::Refused, None), at(now));
        assert_eq!(wait(&schedule, 1, now), expected);
        now += i64::try_from(expected).unwrap();
        assert_eq!(started(&mut schedule, now), [id(1)]);
    }
    schedule.end(id(2));
    assert_eq!(schedule.len(), 1);
}

#[test]
fn an_upstream_is_asked_when_it_wants_to_be() {
    for (asked, expected) in [(0, 1), (30, 30), (1000, 1000), (100_000, 3600)] {
        let mut schedule = schedule(1, 2);
        let first = schedule.next(at(0)).unwrap();
        schedule.fail(first, &away(Some(asked)), at(0));
        assert_eq!(wait(&schedule, 1, 0), expected);
        assert_eq!(wait(&schedule, 2, 0), expected, "it has asked for all");
        assert_eq!(started(&mut schedule, i64::try_from(expected).unwrap() - 1), []);
    }
}

#[test]
fn a_credential_that_has_expired_needs_no_upstream() {
    let mut schedule = schedule(1, 1);
    let last = Some(LastTry { time: at(7), is_end_told: true });
    for mint in [2, 3] {
        schedule.insert(&NewEnding { last, ..new(mint, 100) }, at(0));
    }
    for mint in started(&mut schedule, 0) {
        schedule.fail(mint, &away(Some(100)), at(0));
    }
    assert_eq!(schedule.expired(at(6)), []);
    let mut expired = schedule.expired(at(7));
    expired.sort_unstable();
    assert_eq!(expired, [id(2), id(3)]);
    expired.into_iter().for_each(|mint| schedule.end(mint));
    assert_eq!(wait(&schedule, 1, 7), 93, "the upstream has not answered");
}

#[test]
fn an_end_that_was_not_told_is_tried_once_at_least() {
    let last = Some(LastTry { time: at(7), is_end_told: false });
    let of = |mint, connection| NewEnding { last, ..new(mint, connection) };
    let mut schedule = Schedule::default();
    (1..=6).for_each(|mint| schedule.insert(&of(mint, 100), at(9)));
    schedule.insert(&of(7, 101), at(9));
    schedule.insert(&of(8, 101), at(9));
    assert_eq!(schedule.expired(at(9)), [], "nobody has asked");
    let asked = started(&mut schedule, 9);
    assert_eq!((asked.len(), schedule.expired(at(9)).len()), (6, 0));
    schedule.fail(id(1), &refused(FailureReason::Refused, None), at(9));
    schedule.give_up(id(2), at(9));
    schedule.fail(id(7), &away(None), at(9));
    assert_eq!(schedule.expired(at(9)), [id(1), id(7)], "the others are under way or not asked");
    schedule.give_up(id(8), at(9));
    assert_eq!(schedule.expired(at(9)), [id(1), id(7), id(8)], "one has asked for both");
}

#[test]
fn endings_that_fail_by_themselves_leave_places_to_others() {
    for reason in [FailureReason::Refused, FailureReason::Unavailable] {
        let mut schedule = schedule(1, 8);
        for _ in 0..2 {
            for mint in started(&mut schedule, 0) {
                schedule.fail(mint, &refused(reason, None), at(0));
            }
        }
        // All eight may be asked for again, and take their time.
        assert_eq!(started(&mut schedule, 9).len(), 2);
        schedule.insert(&new(9, 100), at(10));
        assert_eq!(started(&mut schedule, 10), [id(9)]);
        schedule.end(id(9));
        assert_eq!(started(&mut schedule, 10), [], "half of the places stay free");
    }
}

#[test]
fn who_waits_hears_when_an_ending_is_over_or_tried_later() {
    let mut schedule = schedule(1, 2);
    let [one, two] = [1, 2].map(|n| schedule.follow(id(n)).unwrap());
    assert_eq!(*one.borrow(), Stage::Waiting(at(0)));
    assert_eq!(started(&mut schedule, 0), [id(1), id(2)]);
    assert_eq!((*one.borrow(), *two.borrow()), (Stage::UnderWay, Stage::UnderWay));
    schedule.fail(id(1), &refused(FailureReason::Refused, Some(9)), at(0));
    assert_eq!(*one.borrow(), Stage::Waiting(at(9)));
    schedule.end(id(1));
    schedule.disable(id(2), "it owns tables".to_owned(), at(0));
    assert_eq!((*one.borrow(), *two.borrow()), (Stage::Over, Stage::Over));
    assert!(schedule.follow(id(1)).is_none() && schedule.tries(id(1)).is_none());
    // The clean-up of the disabled one is tried again, which nobody waits for.
    assert_eq!(wait(&schedule, 2, 0), 3600);
    assert_eq!(started(&mut schedule, 3600), [id(2)]);
    assert_eq!(*two.borrow(), Stage::Over);
}

#[test]
fn an_ending_that_is_forgotten_leaves_its_place() {
    let mut schedule = schedule(1, 5);
    schedule.end(id(5));
    assert_eq!(started(&mut schedule, 0).len(), 4);
    schedule.give_up(id(1), at(0));
    assert_eq!(started(&mut schedule, 0), []);
    assert_eq!(started(&mut schedule, 1), [id(1)]);
    for mint in [1, 2, 3, 4] {
        schedule.end(id(mint));
    }
    assert_eq!((schedule.len(), schedule.upstreams.len(), schedule.under_way), (0, 0, 0));
    assert!(schedule.by_last.is_empty() && schedule.turns.is_empty());
}
