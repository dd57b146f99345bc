//! The text that was told last: told again to those who ask too often.

use std::time::Duration;

use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::limits::Rate;

/// How many texts are made a second, and at once after a pause. One costs about a thousandth of a second.
const TEXTS_PER_SECOND: u32 = 10;
const TEXT_BURST: u32 = 300;
/// How old a text may be that is told again.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The same numbers in two formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// OpenMetrics 1.0.
    pub(super) open_metrics: Bytes,
    /// The text format of Prometheus, 0.0.4.
    pub(super) classic: Bytes,
}

/// The last text.
pub(super) struct Told {
    started: Instant,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    rate: Rate,
    text: Option<(Instant, Text)>,
}

impl Default for Told {
    fn default() -> Self {
        Self { started: Instant::now(), last: Mutex::default() }
    }
}

impl Told {
    /// The text to tell again; none if it is time for a new one.
    pub(super) fn again(&self, now: Instant) -> Option<Text> {
        let since = now.saturating_duration_since(self.started).as_millis();
        let millis = i64::try_from(since).unwrap_or(i64::MAX);
        let has_turn = self.last.lock().rate.take(millis, TEXTS_PER_SECOND, TEXT_BURST).is_ok();
        if has_turn { None } else { self.last(now) }
    }

    /// The last text, if it is no older than a second.
    pub(super) fn last(&self, now: Instant) -> Option<Text> {
        let last = self.last.lock();
        let (made, text) = last.text.as_ref()?;
        (now.saturating_duration_since(*made) < MAX_AGE).then(|| text.clone())
    }

    /// Keeps a text that was begun at this moment.
    pub(super) fn keep(&self, begun: Instant, text: &Text) {
        self.last.lock().text = Some((begun, text.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_is_told_a_text_of_the_last_second() {
        let (open_metrics, classic) = (Bytes::from_static(b"open"), Bytes::from_static(b"classic"));
        let (told, text) = (Told::default(), Text { open_metrics, classic });
        let now = told.started;
        assert!((0..TEXT_BURST).all(|_| told.again(now).is_none()));
        assert!(told.again(now).is_none(), "there is none yet");
        told.keep(now, &text);
        assert_eq!(told.again(now), Some(text));
        let later = now + MAX_AGE;
        assert!((0..=TEXTS_PER_SECOND).all(|_| told.again(later).is_none()), "it is too old");
    }
}
