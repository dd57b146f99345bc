//! A reserve of room on the journal's disk: a file without contents, which is emptied when the disk is full.
//!
//! Without it a full disk would keep operators from taking access away, and steps from being closed. While it is
//! released, only lines that [take something away](crate::journal::Event::is_for_reserve) are written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::model::LogLimit;

/// The size of the reserve, in bytes: room for many thousand lines, and batches of the store.
pub const DISK_RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// The reserve is taken again when so many more bytes are free, so that it does not come and go.
const MARGIN_BYTES: u64 = 4 * 1024 * 1024;

/// The state of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveState {
    /// There has been no room for it yet.
    Absent,
    /// It is released, because the disk was full.
    GivenUp,
    /// It is held.
    Held,
}

impl ReserveState {
    /// The state of the reserve in the journal's directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self::of(&file(directory))
    }

    fn of(file: &Path) -> Self {
        match std::fs::metadata(file).map(|metadata| metadata.len()) {
            Ok(DISK_RESERVE_BYTES) => Self::Held,
            // It was released, and a restart does not change what the rest of the disk is for.
            Ok(_) => Self::GivenUp,
            Err(_) => Self::Absent,
        }
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("ballast")
}

/// The reserve.
pub(crate) struct DiskReserve {
    path: PathBuf,
    state: ReserveState,
}

impl DiskReserve {
    /// Takes the reserve in a directory, if there is room.
    pub(crate) fn open(directory: &Path) -> Self {
        let path = file(directory);
        let mut reserve = Self { state: ReserveState::of(&path), path };
        reserve.restore();
        reserve
    }

    /// Whether the reserve is released, and there is no room to take it again.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state == ReserveState::GivenUp
    }

    /// Releases the reserve. Returns whether it was held.
    pub(crate) fn release(&mut self) -> bool {
        if self.state != ReserveState::Held {
            return false;
        }
        // The empty file shows a later start that it is released.
        match OpenOptions::new().write(true).truncate(true).open(&self.path) {
            Ok(_) => tracing::error!(
                path = %self.path.display(), bytes = DISK_RESERVE_BYTES,
                "the disk is full: its reserve is released for changes that take access away; nothing is resolved \
                 until there is room; free space on the disk"
            ),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the reserve of the disk could not be released");
            }
        }
        self.state = ReserveState::GivenUp;
        true
    }

    /// Takes the reserve again if there is room for it and more. Costs nothing while it is held.
    pub(crate) fn restore(&mut self) {
        static LIMIT: LogLimit = LogLimit::new(1);
        if self.state == ReserveState::Held
            || free_bytes(self.path.parent().unwrap_or(&self.path))
                < DISK_RESERVE_BYTES + MARGIN_BYTES
        {
            return;
        }
        match self.allocate() {
            Ok(()) => self.state = ReserveState::Held,
            Err(error) => {
                if self.state == ReserveState::Absent {
                    let _ = std::fs::remove_file(&self.path);
                }
                if let Some(suppressed) = LIMIT.allow() {
                    tracing::warn!(path = %self.path.display(), %error, suppressed, "no reserve could be made on the disk");
                }
            }
        }
    }

    fn allocate(&self) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let file: File =
            options.write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, DISK_RESERVE_BYTES)?)
    }
}

/// The free bytes of a directory's disk, for users other than root; 0 if they cannot be found out.
pub fn free_bytes(directory: &Path) -> u64 {
    statvfs(directory).map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize))
}
