//! When a credential ends, by this machine's clock.

use std::time::Duration;

use crate::model::Timestamp;

use super::failure::Failure;

/// Clocks that differ by less are taken for equal: `Date` is in whole seconds, and a reply takes time.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The farthest that our signatures follow an upstream's clock.
const MAX_CORRECTION: Duration = Duration::from_secs(15 * 60);

/// The longest that a credential counts as living, whatever its upstream tells.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The upstream's clock if it differs from ours; `None` if the clocks agree, or the upstream tells no time.
pub fn differing(theirs: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    theirs.filter(|theirs| theirs.since(now).max(now.since(*theirs)) > TOLERANCE)
}

/// The time at which a refused signature is made again: the upstream's, if its clock differs from ours by at most
/// [`MAX_CORRECTION`]; `None` if the clocks agree. An upstream that could choose the time would get signatures for later.
///
/// # Errors
/// If the clocks differ by more.
pub fn corrected(theirs: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, Failure> {
    let theirs = differing(theirs, now);
    match theirs.filter(|theirs| theirs.since(now).max(now.since(*theirs)) > MAX_CORRECTION) {
        None => Ok(theirs),
        Some(far) => Err(Failure::invalid(&format!(
            "the upstream refused the request and tells the time {far}, more than 15 minutes from this machine's {now}; correct this machine's clock"
        ))),
    }
}

/// The end that an upstream tells, by our clock: if `theirs` shows that the clocks differ, what counts is how long the
/// credential lives. It is never later than was `asked`, so that no lease is longer than the connection says, nor than
/// [`MAX_LIFE`], so that a wrong end does not keep a credential for years.
///
/// # Errors
/// If the credential has ended already.
pub fn end(
    told: Timestamp,
    theirs: Option<Timestamp>,
    now: Timestamp,
    asked: Option<Duration>,
) -> Result<Timestamp, Failure> {
    let told = differing(theirs, now).map_or(told, |theirs| now.after(told.since(theirs)));
    if told <= now {
        return Err(Failure::invalid(
            "the upstream made a credential that has ended already; compare this machine's clock with the upstream's",
        ));
    }
    let longest = asked.map_or(MAX_LIFE, |asked| asked.min(MAX_LIFE));
    Ok(told.min(now.after(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn no_credential_counts_as_longer_than_a_day() {
        let (day, years) = (24 * 3600, 999_999_999);
        assert_eq!(end(at(1000 + years), None, at(1000), None).unwrap(), at(1000 + day));
        let asked = Some(Duration::from_secs(2 * 24 * 3600));
        assert_eq!(end(at(1000 + years), None, at(1000), asked).unwrap(), at(1000 + day));
        assert_eq!(end(at(1000 + day - 1), None, at(1000), asked).unwrap(), at(999 + day));
    }

    #[test]
    fn signatures_follow_a_clock_by_fifteen_minutes_at_most() {
        let corrected = |theirs: i64| corrected(Some(at(theirs)), at(10_000));
        for near in [9_940, 10_000, 10_060] {
            assert!(matches!(corrected(near), Ok(None)), "{near}");
        }
        for theirs in [9_100, 9_400, 10_600, 10_900] {
            assert_eq!(corrected(theirs).ok().flatten(), Some(at(theirs)));
        }
        for far in [0, 9_099, 10_901, 999_999_999] {
            assert!(corrected(far).is_err_and(|failure| failure.detail.contains("clock")), "{far}");
        }
    }

    #[test]
    fn an_end_is_by_our_clock_and_never_later_than_asked() {
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(end(at(5000), None, at(1000), None).unwrap(), at(5000));
        assert_eq!(end(at(5000), Some(at(1060)), at(1000), hour).unwrap(), at(4600));
        // Our clock is ten minutes late, or early: an hour is an hour.
        assert_eq!(end(at(5200), Some(at(1600)), at(1000), None).unwrap(), at(4600));
        assert_eq!(end(at(4000), Some(at(400)), at(1000), None).unwrap(), at(4600));
        for (told, theirs) in [(1000, None), (999, Some(990)), (400, Some(400))] {
            assert!(end(at(told), theirs.map(at), at(1000), hour).is_err(), "{told}");
        }
    }
}
