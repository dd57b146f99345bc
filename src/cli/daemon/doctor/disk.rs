//! Room, on the disks of the store, of the journal and of the sockets.

use std::path::Path;

use super::Site;
use super::diagnosis::{Diagnosis, Remedy, quoted};
use crate::journal::{DISK_RESERVE_BYTES, ReserveState, free_bytes};
use crate::model::limits::MIN_FREE_BYTES;

const STORE: &str = "room for the store";
const JOURNAL: &str = "room for the journal";
const STEPS: &str = "room for steps";

const MIB: u64 = 1024 * 1024;
/// The directory of a step, by what five small files and a directory take of a disk.
const STEP_BYTES: u64 = 6 * 4096;
/// Fewer steps than this, and a busy hour takes the rest.
const FEW_STEPS: u64 = 100;

pub(super) fn look(site: &Site) -> Vec<Diagnosis> {
    let journal = site.state.join("journal");
    let mut findings = vec![store(&site.state, free_bytes(&site.state))];
    // That it is not there is told elsewhere.
    if journal.is_dir() {
        let reserve = ReserveState::in_directory(&journal);
        findings.push(journal_room(site, &journal, free_bytes(&journal), reserve));
    }
    if site.runtime.is_dir() {
        findings.push(steps(&site.runtime, free_bytes(&site.runtime)));
    }
    findings
}

fn store(directory: &Path, free: u64) -> Diagnosis {
    let text = format!("{} MiB free in {}", free / MIB, directory.display());
    match free {
        0..MIN_FREE_BYTES => Diagnosis::fail(
            STORE,
            format!("{text}: below {} MiB nothing is added", MIN_FREE_BYTES / MIB),
            make_room(directory),
        ),
        _ if free < 16 * MIN_FREE_BYTES => Diagnosis::warn(STORE, text, make_room(directory)),
        _ => Diagnosis::ok(STORE, text),
    }
}

fn journal_room(site: &Site, directory: &Path, free: u64, reserve: ReserveState) -> Diagnosis {
    let file = u64::from(site.limits.journal_file_bytes);
    let text = format!("{} MiB free in {}", free / MIB, directory.display());
    let remedy = || make_room(directory);
    match reserve {
        ReserveState::GivenUp => Diagnosis::fail(
            JOURNAL,
            format!("{text}: the reserve is used up, and nothing is resolved until there is room"),
            remedy(),
        ),
        ReserveState::Absent => Diagnosis::warn(
            JOURNAL,
            format!("{text}: the reserve of {} MiB could not be made", DISK_RESERVE_BYTES / MIB),
            remedy(),
        ),
        ReserveState::Held if free < file => Diagnosis::warn(
            JOURNAL,
            format!("{text}, less than its next file of {} MiB; no file is deleted", file / MIB),
            remedy(),
        ),
        ReserveState::Held => Diagnosis::ok(JOURNAL, text),
    }
}

fn steps(directory: &Path, free: u64) -> Diagnosis {
    let more = free / STEP_BYTES;
    let text = format!("for {more} more open at a time in {}", directory.display());
    match more {
        0 => Diagnosis::fail(STEPS, text, make_room(directory)),
        1..FEW_STEPS => Diagnosis::warn(STEPS, text, make_room(directory)),
        _ => Diagnosis::ok(STEPS, text),
    }
}

fn make_room(directory: &Path) -> Remedy {
    Remedy::Do(format!("free space on, or enlarge, what this shows: df -h {}", quoted(directory)))
}
