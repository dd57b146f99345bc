//! Moments and durations: as arguments say them, and as answers show them.

use std::time::Duration;

use prost_types::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};

use crate::model::{Clock, Timestamp as Moment};

/// Parses a duration as people write it: `500ms`, `90s`, `15m`, `2h`, `7d`.
///
/// # Errors
/// If it is not one, with what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is no duration; write for example 90s, 15m, 2h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("s") => 1000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 24 * 3_600_000,
        _ => return Err(invalid()),
    };
    let count: u64 = digits.parse().map_err(|_| invalid())?;
    count.checked_mul(millis).map(Duration::from_millis).ok_or_else(invalid)
}

/// The message for a time to live; `None` if it is zero, which means the limit of the broker.
pub fn ttl_message(ttl: Duration) -> Option<prost_types::Duration> {
    let ttl = Some(ttl).filter(|ttl| !ttl.is_zero())?;
    Some(prost_types::Duration::try_from(ttl).unwrap_or_default())
}

/// Parses `2026-12-31T12:00:00Z`, or `2026-12-31`, which means the end of that day in UTC.
///
/// # Errors
/// If it is neither, with what to write.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let invalid = || format!("{text:?} is no time; write 2026-12-31 or 2026-12-31T12:00:00Z");
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        let nanos = i32::try_from(moment.nanosecond()).unwrap_or(0);
        return Ok(Timestamp { seconds: moment.unix_timestamp(), nanos });
    }
    // RFC 3339 has no dates without a time.
    let moment = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
    let end = moment.map_err(|_| invalid())?.replace_time(Time::MAX);
    Ok(Timestamp { seconds: end.unix_timestamp(), nanos: 0 })
}

/// Parses a duration, and returns the moment that is so long ago.
///
/// # Errors
/// As [`parse_duration`].
pub fn ago(text: &str) -> Result<Timestamp, String> {
    parse_duration(text).map(|duration| to_message(Clock::system().now().before(duration)))
}

/// Parses a moment of the past: as [`ago`] or as [`parse`].
///
/// # Errors
/// If it is neither, with what to write.
pub fn since(text: &str) -> Result<Timestamp, String> {
    let rule = format!("{text:?} is no time; write 2026-01-31T12:00:00Z, or 2h for two hours ago");
    ago(text).or_else(|_| parse(text)).map_err(|_| rule)
}

/// Parses a duration, and returns the moment that is so far ahead.
///
/// # Errors
/// As [`parse_duration`].
pub fn ahead(text: &str) -> Result<Timestamp, String> {
    parse_duration(text).map(|duration| to_message(Clock::system().now().after(duration)))
}

fn to_message(moment: Moment) -> Timestamp {
    let nanos = i32::try_from(moment.millis().rem_euclid(1000) * 1_000_000).unwrap_or(0);
    Timestamp { seconds: moment.seconds(), nanos }
}

/// A moment of the API as text, to the millisecond; empty if there is none.
pub fn moment(given: Option<&Timestamp>) -> String {
    given.map_or_else(String::new, |given| {
        let millis = given.seconds.saturating_mul(1000) + i64::from(given.nanos / 1_000_000);
        Moment::from_millis(millis).to_string()
    })
}

/// A moment of the API as text, to the second; empty if there is none.
pub fn second(given: Option<&Timestamp>) -> String {
    let whole = given.map(|given| Timestamp { nanos: 0, ..*given });
    moment(whole.as_ref())
}
