//! The last text of metrics, for clients that ask too often.

use std::time::Duration;

use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{Rate, RateLimit};

/// How many texts are made. A text takes about a millisecond.
const TEXTS: RateLimit = RateLimit { per_second: 10, burst: 300 };
/// The oldest text that is still sent.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The same numbers in two formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MetricsText {
    /// OpenMetrics 1.0.
    pub(super) open_metrics: Bytes,
    /// The text format of Prometheus, 0.0.4.
    pub(super) classic: Bytes,
}

/// The last text.
pub(super) struct TextCache {
    started: Instant,
    last: Mutex<LastText>,
}

#[derive(Default)]
struct LastText {
    rate: Rate,
    text: Option<(Instant, MetricsText)>,
}

impl Default for TextCache {
    fn default() -> Self {
        Self { started: Instant::now(), last: Mutex::default() }
    }
}

impl TextCache {
    /// The last text, if it is to be sent again; `None` if a new one is to be made.
    pub(super) fn cached(&self, now: Instant) -> Option<MetricsText> {
        let since = now.saturating_duration_since(self.started).as_millis();
        let millis = i64::try_from(since).unwrap_or(i64::MAX);
        let has_turn = self.last.lock().rate.take(millis, TEXTS).is_ok();
        if has_turn { None } else { self.last(now) }
    }

    /// The last text, if it is no older than a second.
    pub(super) fn last(&self, now: Instant) -> Option<MetricsText> {
        let last = self.last.lock();
        let (made, text) = last.text.as_ref()?;
        (now.saturating_duration_since(*made) < MAX_AGE).then(|| text.clone())
    }

    /// Keeps a text that was begun at this time.
    pub(super) fn keep(&self, begun: Instant, text: &MetricsText) {
        self.last.lock().text = Some((begun, text.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_ask_too_often_get_a_text_of_the_last_second() {
        let (open_metrics, classic) = (Bytes::from_static(b"open"), Bytes::from_static(b"classic"));
        let (cache, text) = (TextCache::default(), MetricsText { open_metrics, classic });
        let now = cache.started;
        assert!((0..TEXTS.burst).all(|_| cache.cached(now).is_none()));
        assert!(cache.cached(now).is_none(), "there is none yet");
        cache.keep(now, &text);
        assert_eq!(cache.cached(now), Some(text));
        let later = now + MAX_AGE;
        assert!((0..=TEXTS.per_second).all(|_| cache.cached(later).is_none()), "it is too old");
    }
}
