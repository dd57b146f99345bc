//! A rate with a burst, as every limit of requests, lines, bytes and connections over time counts it; and what was noted
//! lately.

use std::collections::HashMap;
use std::hash::Hash;
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

/// The keys that were noted lately: a bounded number, each for a while.
#[derive(Debug)]
pub struct Recent<K> {
    most: usize,
    lasts: Duration,
    noted: HashMap<K, i64>,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    /// Remembers at most so many keys, each for so long after it was noted last.
    pub fn new(most: usize, lasts: Duration) -> Self {
        Self { most, lasts, noted: HashMap::new() }
    }

    /// True if the key was noted in the while before this time, in milliseconds of the caller's clock.
    pub fn has(&self, now_millis: i64, key: &K) -> bool {
        let age = self.noted.get(key).map(|noted| now_millis.saturating_sub(*noted));
        age.and_then(|age| u64::try_from(age).ok())
            .is_some_and(|age| Duration::from_millis(age) < self.lasts)
    }

    /// Notes a key at this time. If there are too many, the key that was noted longest ago is forgotten.
    pub fn note(&mut self, now_millis: i64, key: K) {
        if self.noted.len() >= self.most && !self.noted.contains_key(&key) {
            let oldest = self.noted.iter().min_by_key(|(_, noted)| **noted).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.noted.remove(&oldest));
        }
        self.noted.insert(key, now_millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_remembered_for_a_while() {
        let mut recent = Recent::new(2, Duration::from_secs(1));
        for (now, key) in [(0, "a"), (10, "b"), (20, "a"), (30, "c")] {
            recent.note(now, key);
        }
        for (now, known) in [(30, "ac"), (1_019, "ac"), (1_020, "c"), (1_030, ""), (25, "a")] {
            let has: String =
                ["a", "b", "c"].into_iter().filter(|key| recent.has(now, key)).collect();
            assert_eq!(has, known, "{now}");
        }
    }

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
