//! Moments on the command line.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};

use crate::cli::step::get::parse_duration;
use crate::model::{Clock, Timestamp};

/// `2026-12-31T12:00:00Z`, or `2026-12-31`, which ends with the day, in UTC.
///
/// # Errors
/// What to write.
pub fn parse(text: &str) -> Result<prost_types::Timestamp, String> {
    let invalid = || format!("{text:?} is no time; write 2026-12-31 or 2026-12-31T12:00:00Z");
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(prost_types::Timestamp { seconds: moment.unix_timestamp(), nanos: 0 });
    }
    // RFC 3339 has no dates alone: the last second of the day completes it.
    let moment = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
    let end = moment.map_err(|_| invalid())?.replace_time(Time::MAX);
    Ok(prost_types::Timestamp { seconds: end.unix_timestamp(), nanos: 0 })
}

/// So long ago.
///
/// # Errors
/// What to write.
pub fn ago(text: &str) -> Result<prost_types::Timestamp, String> {
    parse_duration(text).map(|duration| message(Clock::system().now().before(duration)))
}

/// In so much time.
///
/// # Errors
/// What to write.
pub fn ahead(text: &str) -> Result<prost_types::Timestamp, String> {
    parse_duration(text).map(|duration: Duration| message(Clock::system().now().after(duration)))
}

fn message(moment: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(moment.millis().rem_euclid(1000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: moment.seconds(), nanos }
}
