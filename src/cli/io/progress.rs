//! Progress of work that takes longer than a second: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::say;
use crate::model::{Clock, Timestamp};

/// Shorter work shows nothing.
const DELAY: Duration = Duration::from_secs(1);
/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one piece of work.
pub struct ProgressDisplay {
    what: &'static str,
    bar: ProgressBar,
    is_on_terminal: bool,
    clock: Clock,
    /// When to show the next line.
    due: Timestamp,
}

impl ProgressDisplay {
    /// Starts; `what` is shown before the numbers.
    pub fn begin(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        let clock = Clock::system();
        let due = clock.now().after(DELAY);
        Self { what, bar, is_on_terminal: std::io::stderr().is_terminal(), clock, due }
    }

    /// Shows that `done` of `total` are done.
    pub fn show(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let now = self.clock.now();
        if now < self.due {
            return;
        }
        self.due = now.after(INTERVAL);
        if !self.is_on_terminal {
            say(&format!("{}: {done} of {total}", self.what));
        } else if self.bar.is_hidden() {
            // From now on the bar draws itself.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A stream of messages that shows how many of them were sent.
pub fn counted<T: Send + 'static>(
    what: &'static str,
    messages: Vec<T>,
) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    let total = messages.len() as u64;
    let mut progress = ProgressDisplay::begin(what);
    tokio_stream::iter(messages).enumerate().map(move |(sent, message)| {
        progress.show(sent as u64 + 1, total);
        message
    })
}
