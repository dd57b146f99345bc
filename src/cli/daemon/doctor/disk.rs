//! Free space on the disks of the store, the journal and the sockets.

use std::path::Path;

use super::diagnosis::{Diagnosis, quoted};
use super::site::Site;
use crate::journal::{DISK_RESERVE_BYTES, ReserveState, free_bytes};
use crate::model::limits::MIN_FREE_BYTES;

const STORE: &str = "room for the store";
const JOURNAL: &str = "room for the journal";
const STEPS: &str = "room for steps";

const MIB: u64 = 1024 * 1024;
/// The space that the directory of a step takes: five small files and the directory.
const STEP_BYTES: u64 = 6 * 4096;
/// Fewer steps than this may be opened within a busy hour.
const FEW_STEPS: u64 = 100;

pub(super) fn check(site: &Site) -> Vec<Diagnosis> {
    let journal = site.state.join("journal");
    let mut diagnoses = vec![store(&site.state)];
    // The check of the clock reports a missing journal.
    if journal.is_dir() {
        diagnoses.push(journal_room(site, &journal));
    }
    if site.runtime.is_dir() {
        diagnoses.push(steps(&site.runtime));
    }
    diagnoses
}

fn store(directory: &Path) -> Diagnosis {
    let free = free_bytes(directory);
    let text = format!("{} MiB free in {}", free / MIB, directory.display());
    match free {
        0..MIN_FREE_BYTES => {
            let text = format!("{text}: below {} MiB nothing is added", MIN_FREE_BYTES / MIB);
            Diagnosis::fail(STORE, text, make_room(directory))
        }
        _ if free < 16 * MIN_FREE_BYTES => Diagnosis::warn(STORE, text, make_room(directory)),
        _ => Diagnosis::ok(STORE, text),
    }
}

fn journal_room(site: &Site, directory: &Path) -> Diagnosis {
    let (free, file) = (free_bytes(directory), u64::from(site.limits.journal_file_bytes));
    let text = format!("{} MiB free in {}", free / MIB, directory.display());
    let remedy = make_room(directory);
    match ReserveState::in_directory(directory) {
        ReserveState::GivenUp => Diagnosis::fail(
            JOURNAL,
            format!("{text}: the reserve is used up, and nothing is resolved until there is room"),
            remedy,
        ),
        ReserveState::Absent => Diagnosis::warn(
            JOURNAL,
            format!("{text}: the reserve of {} MiB could not be made", DISK_RESERVE_BYTES / MIB),
            remedy,
        ),
        ReserveState::Held if free < file => Diagnosis::warn(
            JOURNAL,
            format!("{text}, less than its next file of {} MiB; no file is deleted", file / MIB),
            remedy,
        ),
        ReserveState::Held => Diagnosis::ok(JOURNAL, text),
    }
}

fn steps(directory: &Path) -> Diagnosis {
    let more = free_bytes(directory) / STEP_BYTES;
    let text = format!("for {more} more open at a time in {}", directory.display());
    match more {
        0 => Diagnosis::fail(STEPS, text, make_room(directory)),
        1..FEW_STEPS => Diagnosis::warn(STEPS, text, make_room(directory)),
        _ => Diagnosis::ok(STEPS, text),
    }
}

fn make_room(directory: &Path) -> String {
    format!("free space on, or enlarge, what this shows: df -h {}", quoted(directory))
}
