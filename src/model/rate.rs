//! A rate with a burst, as every limit of requests, lines, bytes and connections over time counts it.

use std::time::Duration;

/// The most events: a rate, and a burst that is allowed after a pause.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Events per second.
    pub per_second: u32,
    /// Events at once.
    pub burst: u32,
}

impl RateLimit {
    /// The time between two events, in microseconds.
    fn interval(self) -> i64 {
        1_000_000 / i64::from(self.per_second.max(1))
    }
}

/// The state of a rate limit (GCRA, the generic cell rate algorithm of ITU-T I.371), as a pure function of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the next request would be exactly on time, in microseconds of the caller's clock.
    due: i64,
}

impl Rate {
    /// True if the whole burst is available at this time.
    pub fn is_rested(&self, now_millis: i64) -> bool {
        self.due <= now_millis.saturating_mul(1000)
    }

    /// Takes one event.
    ///
    /// # Errors
    /// How long to wait, if the limit is reached.
    pub fn take(&mut self, now_millis: i64, limit: RateLimit) -> Result<(), Duration> {
        let mut next = *self;
        next.advance(now_millis, limit)?;
        *self = next;
        Ok(())
    }

    /// Takes `count` events, even beyond the limit. Later calls wait until the debt is paid.
    pub fn owe(&mut self, now_millis: i64, limit: RateLimit, count: u32) {
        let next = self.due.max(now_millis.saturating_mul(1000));
        let interval = limit.interval().saturating_mul(i64::from(count));
        self.due = next.saturating_add(interval);
    }

    /// Takes `count` events, but at least one, if one event is left. Later calls wait until the debt is paid.
    ///
    /// # Errors
    /// How long to wait, if no event is left.
    pub fn take_some(
        &mut self,
        now_millis: i64,
        limit: RateLimit,
        count: u32,
    ) -> Result<(), Duration> {
        self.take(now_millis, limit)?;
        self.owe(now_millis, limit, count.saturating_sub(1));
        Ok(())
    }

    /// As [`Rate::take_some`], of `per_minute` events a minute, all of them at once if need be.
    ///
    /// # Errors
    /// How long to wait, if no event is left.
    pub fn take_of_minute(
        &mut self,
        now_millis: i64,
        per_minute: u32,
        count: u32,
    ) -> Result<(), Duration> {
        let limit = RateLimit { per_second: per_minute, burst: per_minute };
        // Counted on a clock that is 60 times slower.
        self.take_some(now_millis / 60, limit, count).map_err(|wait| wait * 60)
    }

    /// Checks that an event is left, without taking it.
    ///
    /// # Errors
    /// How long to wait, if not.
    pub fn check(&self, now_millis: i64, limit: RateLimit) -> Result<(), Duration> {
        let mut copy = *self;
        copy.advance(now_millis, limit)
    }

    fn advance(&mut self, now_millis: i64, limit: RateLimit) -> Result<(), Duration> {
        let now = now_millis.saturating_mul(1000);
        let interval = limit.interval();
        let ahead = interval.saturating_mul(i64::from(limit.burst.max(1)) - 1);
        let due = self.due.max(now.saturating_sub(1_000_000 * 3600));
        let early = due.saturating_sub(ahead).saturating_sub(now);
        if early > 0 {
            return Err(Duration::from_micros(early.unsigned_abs()));
        }
        self.due = due.max(now).saturating_add(interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { per_second: 100, burst: 400 };

    #[test]
    fn a_rate_allows_its_burst_at_once_and_then_its_rate() {
        let mut rate = Rate::default();
        assert_eq!((0..1000).filter(|_| rate.take(5_000, LIMIT).is_ok()).count(), 400);
        let wait = rate.take(5_000, LIMIT).unwrap_err();
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!((0..1000).filter(|_| rate.take(6_000, LIMIT).is_ok()).count(), 100);
    }

    #[test]
    fn a_debt_is_waited_for() {
        let mut rate = Rate::default();
        rate.owe(5_000, LIMIT, 500);
        assert_eq!(rate.check(5_000, LIMIT), Err(Duration::from_millis(1_010)));
        assert!(rate.check(6_010, LIMIT).is_ok());
    }
}
