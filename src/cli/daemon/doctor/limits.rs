//! Limits of the system for the daemon: open files, and memory that is not swapped out.

use rustix::process::{Resource, getrlimit};

use super::diagnosis::Diagnosis;
use super::site::Site;
use crate::daemon::steps_within;

const FILES: &str = "open files";
const MEMORY: &str = "keys in memory";

/// Enough for the keys of a daemon, each of 32 bytes.
const ENOUGH_LOCKED_BYTES: u64 = 64 * 1024;

/// The limits of a process. None means that there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// The hard limit. The daemon raises the soft limit to it.
    files: Option<u64>,
    locked_bytes: Option<u64>,
}

impl Granted {
    /// The limits of this process, which a daemon would have that is started from the same place.
    pub(super) fn here() -> Self {
        Self {
            files: getrlimit(Resource::Nofile).maximum,
            locked_bytes: getrlimit(Resource::Memlock).current,
        }
    }

    /// The limits of another process (proc(5)).
    pub(super) fn of_process(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str, column: usize| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let word = line.split_whitespace().nth(column)?;
            if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) }
        };
        Some(Self {
            files: value("Max open files", 1)?,
            locked_bytes: value("Max locked memory", 0)?,
        })
    }
}

/// `memory` is where the keys of the daemon are, if it serves and reports that.
pub(super) fn check(site: &Site, granted: Granted, memory: Option<&str>) -> Vec<Diagnosis> {
    vec![files(site, granted.files), locked(granted.locked_bytes, memory)]
}

fn files(site: &Site, files: Option<u64>) -> Diagnosis {
    let within = |files| steps_within(files, &site.limits, site.serves_tcp);
    let (steps, needed) = (within(files), site.limits.open_steps);
    let said = files.map_or("no limit".to_owned(), |files| format!("at most {files}"));
    let text = format!("{said}: {steps} of {needed} steps can be open at a time");
    if steps >= needed {
        return Diagnosis::ok(FILES, text);
    }
    // The smallest sufficient multiple of 1024.
    let mut multiples = (1..=4096).map(|thousands| thousands * 1024);
    let is_enough = |files: &u64| within(Some(*files)) >= needed;
    let enough = multiples.find(is_enough).unwrap_or(4 * u64::from(needed));
    let advice = format!(
        "LimitNOFILE={enough} in the daemon's unit, or ulimit -Hn {enough} before serve; or a smaller open_steps in \
         its configuration"
    );
    Diagnosis::warn(FILES, text, advice)
}

fn locked(bytes: Option<u64>, memory: Option<&str>) -> Diagnosis {
    let raise = "allow memfd_secret, or raise the limit: LimitMEMLOCK=8M in the daemon's unit, or ulimit \
                 -l 8192 before serve";
    match memory {
        Some("unprotected") => {
            Diagnosis::fail(MEMORY, "unprotected: they may be swapped out", raise)
        }
        Some(memory) => Diagnosis::ok(MEMORY, memory),
        None if bytes.is_some_and(|bytes| bytes < ENOUGH_LOCKED_BYTES) => {
            let text = "so little memory can be locked that keys may be swapped out";
            Diagnosis::warn(MEMORY, text, raise)
        }
        None => Diagnosis::ok(MEMORY, "enough memory can be locked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_process_are_read_as_the_system_writes_them() {
        let text = "Limit    Soft Limit  Hard Limit  Units\n\
                    Max open files    1024    524288    files\n\
                    Max locked memory   unlimited   unlimited   bytes\n";
        let granted = Granted { files: Some(524_288), locked_bytes: None };
        assert_eq!(Granted::parse(text), Some(granted));
        assert_eq!(Granted::parse("Max open files    1024\n"), None);
    }
}
