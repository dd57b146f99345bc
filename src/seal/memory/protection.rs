//! The protection of keys and values in this process's memory.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{DumpableBehavior, dumpable_behavior};

use super::secret_memory::{KeyMemory, key_memory};

static HAS_WIPING_ALLOCATOR: AtomicBool = AtomicBool::new(false);

/// The protection that is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryProtection {
    /// The memory of keys.
    pub key_memory: KeyMemory,
    /// True if there are no core dumps, and no debugger of the same user.
    pub has_no_core_dumps: bool,
    /// True if every heap block is wiped when it is freed.
    pub wipes_freed_memory: bool,
}

impl MemoryProtection {
    /// The protection of this process.
    pub fn of_this_process() -> Self {
        Self {
            key_memory: key_memory(),
            has_no_core_dumps: dumpable_behavior() == Ok(DumpableBehavior::NotDumpable),
            wipes_freed_memory: HAS_WIPING_ALLOCATOR.load(Ordering::Relaxed),
        }
    }
}

/// Notes that this program's allocator wipes freed blocks. The program that has chosen the allocator calls this.
pub fn note_wiping_allocator() {
    HAS_WIPING_ALLOCATOR.store(true, Ordering::Relaxed);
}
