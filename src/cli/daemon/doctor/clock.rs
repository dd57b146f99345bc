//! The clock: whether time has gone back since the journal was written last.

use std::time::Duration;

use super::Site;
use super::certificates::SET_CLOCK;
use super::diagnosis::{Diagnosis, Remedy};
use crate::journal::last_time;
use crate::model::Timestamp;
use crate::model::limits::MAX_CLOCK_STEP_BACK;

const CLOCK: &str = "clock";

/// Between the daemon's own clock and this one, which it reads when it starts.
const TOLERANCE: Duration = Duration::from_secs(2);

pub(super) fn look(site: &Site) -> Vec<Diagnosis> {
    let journal = site.state.join("journal");
    let finding = match last_time(&journal) {
        Ok(Some(last)) => compare(last, site.now),
        Ok(None) => Diagnosis::ok(CLOCK, "the journal has no line yet to compare it with"),
        Err(error) => {
            let text = format!("{}: {error}", journal.display());
            let advice = "restore the state directory from a backup: keyhatch restore FILE";
            Diagnosis::fail("journal", text, Remedy::Do(advice.to_owned()))
        }
    };
    vec![finding]
}

fn compare(last: Timestamp, now: Timestamp) -> Diagnosis {
    let set = || Remedy::Do(SET_CLOCK.to_owned());
    let behind = last.since(now);
    let text =
        format!("{} seconds behind the journal, which was written at {last}", behind.as_secs());
    match behind {
        behind if behind <= TOLERANCE => {
            Diagnosis::ok(CLOCK, format!("{now}, not before the journal's last line"))
        }
        behind if behind <= MAX_CLOCK_STEP_BACK => Diagnosis::warn(CLOCK, text, set()),
        _ => Diagnosis::fail(
            CLOCK,
            format!("{text}: a start would close every step and lease"),
            set(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Level;
    use super::*;

    #[test]
    fn a_clock_that_a_start_would_not_bear_is_a_failure_and_a_smaller_step_a_warning() {
        let last = Timestamp::from_millis(1_795_298_123_456);
        let level = |seconds| compare(last, last.before(Duration::from_secs(seconds))).level;
        assert_eq!([0, 1, 60, 301].map(level), [Level::Ok, Level::Ok, Level::Warn, Level::Fail]);
    }
}
