//! How far something is that takes its time: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::say;
use crate::model::{Clock, Timestamp};

/// What is over sooner is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a line is said.
const LINES: Duration = Duration::from_secs(5);

/// How far something is.
pub struct Progress {
    what: &'static str,
    bar: ProgressBar,
    is_on_terminal: bool,
    clock: Clock,
    /// When the next word is due.
    due: Timestamp,
}

impl Progress {
    /// Begins; `what` stands before the numbers.
    pub fn begin(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        let clock = Clock::system();
        let due = clock.now().after(PATIENCE);
        Self { what, bar, is_on_terminal: std::io::stderr().is_terminal(), clock, due }
    }

    /// So much is done.
    pub fn show(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let now = self.clock.now();
        if now < self.due {
            return;
        }
        self.due = now.after(LINES);
        if !self.is_on_terminal {
            say(&format!("{}: {done} of {total}", self.what));
        } else if self.bar.is_hidden() {
            // From here on it draws itself.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
