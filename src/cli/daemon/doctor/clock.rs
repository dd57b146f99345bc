//! The clock: whether it is behind the last line of the journal.

use std::time::Duration;

use super::certificates::SET_CLOCK;
use super::diagnosis::Diagnosis;
use super::site::Site;
use crate::journal::last_time;
use crate::model::Timestamp;
use crate::model::limits::MAX_CLOCK_STEP_BACK;

const CLOCK: &str = "clock";

/// The daemon reads its clock at a start, so it may differ a little from this one.
const TOLERANCE: Duration = Duration::from_secs(2);

pub(super) fn check(site: &Site) -> Diagnosis {
    let journal = site.state.join("journal");
    match last_time(&journal) {
        Ok(Some(last)) => compare(last, site.now),
        Ok(None) => Diagnosis::ok(CLOCK, "the journal has no line yet to compare it with"),
        Err(error) => {
            let text = format!("{}: {error}", journal.display());
            let advice = "restore the state directory from a backup: keyhatch restore FILE";
            Diagnosis::fail("journal", text, advice)
        }
    }
}

fn compare(last: Timestamp, now: Timestamp) -> Diagnosis {
    let behind = last.since(now);
    let text =
        format!("{} seconds behind the journal, which was written at {last}", behind.as_secs());
    match behind {
        behind if behind <= TOLERANCE => {
            Diagnosis::ok(CLOCK, format!("{now}, not before the journal's last line"))
        }
        behind if behind <= MAX_CLOCK_STEP_BACK => Diagnosis::warn(CLOCK, text, SET_CLOCK),
        _ => Diagnosis::fail(
            CLOCK,
            format!("{text}: a start would close every step and lease"),
            SET_CLOCK,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Level;
    use super::*;

    #[test]
    fn a_clock_far_behind_is_a_failure_and_a_small_step_a_warning() {
        let last = Timestamp::from_millis(1_795_298_123_456);
        let level = |seconds| compare(last, last.before(Duration::from_secs(seconds))).level;
        assert_eq!([0, 1, 60, 301].map(level), [Level::Ok, Level::Ok, Level::Warn, Level::Fail]);
    }
}
