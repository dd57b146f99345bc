//! How long a broker that is away is waited for. One that restarts is back within a second.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;

/// How long commands wait that are not told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before another try, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Who waits at a terminal for longer than this is told why.
const UNNOTICED: Duration = Duration::from_secs(1);

/// The time that is left for further tries.
pub struct Patience {
    begin: Instant,
    end: Instant,
    pause: Duration,
    is_told: bool,
    has_connected_anew: bool,
}

impl Patience {
    /// All of it.
    pub fn of(duration: Duration) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            end: begin.checked_add(duration).unwrap_or(begin),
            pause: FIRST_PAUSE,
            is_told: false,
            has_connected_anew: false,
        }
    }

    /// Pauses before another try, if there is time for one.
    pub async fn pause(&mut self) -> bool {
        let now = Instant::now();
        if now + self.pause >= self.end {
            return false;
        }
        if now - self.begin > UNNOTICED && !std::mem::replace(&mut self.is_told, true) {
            let left = (self.end - now).as_secs();
            if std::io::stderr().is_terminal() {
                say(&format!("the broker is away; waiting for it for another {left} seconds"));
            }
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// Whether what failed so may be done again, on another connection; returns after the pause before it.
    pub async fn allows(&mut self, failure: &Failure) -> bool {
        match failure.reason.as_str() {
            // The connection was older than a renewed certificate.
            "SVID_INVALID" => !std::mem::replace(&mut self.has_connected_anew, true),
            "UNREACHABLE" | "DRAINING" => self.pause().await,
            _ => false,
        }
    }
}
