//! When a credential ends, by this machine's clock.

use std::time::Duration;

use crate::model::Timestamp;

use super::failure::Failure;

/// Clocks that differ by less are taken for equal: `Date` is in whole seconds, and a reply takes time.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The farthest that our signatures follow an upstream's clock.
const MAX_CORRECTION: Duration = Duration::from_secs(15 * 60);

/// The longest that a credential counts as living, whatever its upstream tells.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The life of a credential whose end the upstream does not tell, and that nobody has asked for a time.
const UNTOLD_LIFE: Duration = Duration::from_secs(3600);

/// When a credential ends, by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialEnd {
    /// The end that counts.
    pub time: Timestamp,
    /// True if the upstream has told this very end. Else the upstream may accept the credential for longer.
    pub is_told: bool,
}

impl CredentialEnd {
    /// An end that the upstream keeps to.
    pub fn told(time: Timestamp) -> Self {
        Self { time, is_told: true }
    }

    /// The end that counts although the upstream has told none.
    pub fn assumed(now: Timestamp, life: Duration) -> Self {
        Self { time: now.after(life.min(MAX_LIFE)), is_told: false }
    }

    /// The end that counts if neither the upstream nor the connection tells one: an hour from now.
    pub fn untold(now: Timestamp) -> Self {
        Self::assumed(now, UNTOLD_LIFE)
    }
}

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
) -> Result<CredentialEnd, Failure> {
    let told = differing(theirs, now).map_or(told, |theirs| now.after(told.since(theirs)));
    if told <= now {
        return Err(Failure::invalid(
            "the upstream made a credential that has ended already; compare this machine's clock with the upstream's",
        ));
    }
    let longest = CredentialEnd::assumed(now, asked.unwrap_or(MAX_LIFE));
    Ok(if told <= longest.time { CredentialEnd::told(told) } else { longest })
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
        let capped = CredentialEnd { time: at(1000 + day), is_told: false };
        assert_eq!(end(at(1000 + years), None, at(1000), None).unwrap(), capped);
        let asked = Some(Duration::from_secs(2 * 24 * 3600));
        assert_eq!(end(at(1000 + years), None, at(1000), asked).unwrap(), capped);
        for told in [999, 1000].map(|seconds| at(seconds + day)) {
            assert_eq!(end(told, None, at(1000), asked).unwrap(), CredentialEnd::told(told));
        }
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
        let told = |seconds| CredentialEnd::told(at(seconds));
        assert_eq!(end(at(5000), None, at(1000), None).unwrap(), told(5000));
        let asked = CredentialEnd { is_told: false, ..told(4600) };
        assert_eq!(end(at(5000), Some(at(1060)), at(1000), hour).unwrap(), asked);
        // Our clock is ten minutes late, or early: an hour is an hour.
        assert_eq!(end(at(5200), Some(at(1600)), at(1000), None).unwrap(), told(4600));
        assert_eq!(end(at(4000), Some(at(400)), at(1000), None).unwrap(), told(4600));
        for (told, theirs) in [(1000, None), (999, Some(990)), (400, Some(400))] {
            assert!(end(at(told), theirs.map(at), at(1000), hour).is_err(), "{told}");
        }
    }
}
