//! Time, and the only place that reads clocks. The other rooms take `now` as an argument.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::text::read_from_text;

/// Milliseconds since the Unix epoch, written as RFC 3339 in UTC without zeros at the end of the fraction. `keyring.json` is
/// tagged over such texts, so a text that is read must be written again unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first and last times that RFC 3339 can write.
    const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

    /// A time, limited to the range that RFC 3339 can write.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*Self::RANGE.start(), *Self::RANGE.end()))
    }

    /// A moment in whole seconds since the Unix epoch, brought into the same range.
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The next whole second, or this one if it is whole.
    pub fn rounded_up(self) -> Self {
        Self::from_millis(self.0.saturating_add(999).div_euclid(1000).saturating_mul(1000))
    }

    /// The time after a duration; at most the end of the year 9999.
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The time before a duration.
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }

    /// The duration since `earlier`; zero if that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The time at two thirds of the way to `end`, when a renewal is due.
    pub fn two_thirds_to(self, end: Self) -> Self {
        self.after(end.since(self) * 2 / 3)
    }

    /// The same time for libraries that use the `time` crate.
    pub fn to_offset(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Calls `then` with the text, without a heap block: lines of the journal hold several, and the library is slower.
    fn with_text<T>(self, then: impl FnOnce(&str) -> T) -> T {
        let seconds = OffsetDateTime::from_unix_timestamp(self.seconds());
        let seconds = seconds.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let millis = u32::try_from(self.0.rem_euclid(1000)).unwrap_or_default();
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put::<4>(&mut text, 0, seconds.year().unsigned_abs());
        put::<2>(&mut text, 5, u8::from(seconds.month()).into());
        put::<2>(&mut text, 8, seconds.day().into());
        put::<2>(&mut text, 11, seconds.hour().into());
        put::<2>(&mut text, 14, seconds.minute().into());
        put::<2>(&mut text, 17, seconds.second().into());
        put::<3>(&mut text, 20, millis);
        let end = match millis {
            0 => 19,
            millis if millis.is_multiple_of(100) => 21,
            millis if millis.is_multiple_of(10) => 22,
            _ => 23,
        };
        let text = text.get_mut(..=end).unwrap_or_default();
        if let Some(last) = text.last_mut() {
            *last = b'Z';
        }
        then(std::str::from_utf8(text).unwrap_or_default())
    }
}

/// Writes the last `N` digits of a number.
#[inline(always)]
fn put<const N: usize>(text: &mut [u8; 24], at: usize, mut number: u32) {
    let places = text.get_mut(at..at + N).unwrap_or_default();
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| to.serialize_str(text))
    }
}

impl FromStr for Timestamp {
    type Err = time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment = OffsetDateTime::parse(text, &Rfc3339)?;
        let millis = moment.unix_timestamp_nanos().div_euclid(1_000_000);
        Ok(Self::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }
}

read_from_text!(Timestamp, str::parse);

/// The source of `now`.
///
/// The system clock is read once, when the process starts. From then on the kernel's boot clock counts, which nobody can
/// set, and which goes on while the machine is suspended. So setting the clock makes no lease longer or shorter.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    Boot { wall_at_boot: i64 },
    HandSet(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        let wall_at_boot = read(ClockId::Realtime).saturating_sub(read(ClockId::Boottime));
        Self(ClockSource::Boot { wall_at_boot })
    }

    /// A clock for tests that shows `start` until [`Clock::advance`] moves it.
    pub fn hand_set(start: Timestamp) -> Self {
        Self(ClockSource::HandSet(Arc::new(AtomicI64::new(start.millis()))))
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(match &self.0 {
            ClockSource::Boot { wall_at_boot } => {
                wall_at_boot.saturating_add(read(ClockId::Boottime))
            }
            ClockSource::HandSet(millis) => millis.load(Ordering::SeqCst),
        })
    }

    /// Advances a hand-set clock; has no effect on a system clock.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::HandSet(millis) = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::SeqCst);
        }
    }
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_comes_back_from_its_text() {
        let moment = Timestamp::from_millis(1_795_298_123_456);
        assert_eq!(moment.to_string(), "2026-11-21T21:55:23.456Z");
        let (first, last) = Timestamp::RANGE.into_inner();
        let some = (0..10_000).map(|n| first + n * ((last - first) / 10_000));
        for millis in some.chain([-1, 0, 1, 10, 100, 120, 1000, 951_782_400_000, last]) {
            let moment = Timestamp::from_millis(millis);
            assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
            // The library's own text, which files of the first versions have, and tags are of.
            assert_eq!(moment.to_string(), moment.to_offset().format(&Rfc3339).unwrap());
        }
    }

    #[test]
    fn two_thirds_are_counted_from_the_issue() {
        let start = Timestamp::from_millis(0);
        let end = Timestamp::from_millis(9000);
        assert_eq!(start.two_thirds_to(end), Timestamp::from_millis(6000));
        let rounded =
            [0, 1, 1000].map(|millis| Timestamp::from_millis(millis).rounded_up().seconds());
        assert_eq!(rounded, [0, 1, 1]);
    }
}
