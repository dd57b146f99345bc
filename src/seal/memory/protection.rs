//! What keeps the keys and values in this process's memory from everybody else.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{DumpableBehavior, dumpable_behavior};

use super::secret_memory::{KeyMemory, key_memory};

static HAS_WIPING_ALLOCATOR: AtomicBool = AtomicBool::new(false);

/// What there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryProtection {
    /// Where keys are kept.
    pub key_memory: KeyMemory,
    /// Whether there are no core dumps, and no debugger of the same user.
    pub has_no_core_dumps: bool,
    /// Whether every heap block is wiped when it is freed.
    pub wipes_freed_memory: bool,
}

impl MemoryProtection {
    /// That of this process.
    pub fn of_this_process() -> Self {
        Self {
            key_memory: key_memory(),
            has_no_core_dumps: dumpable_behavior() == Ok(DumpableBehavior::NotDumpable),
            wipes_freed_memory: HAS_WIPING_ALLOCATOR.load(Ordering::Relaxed),
        }
    }
}

/// Notes that this program's allocator wipes what is freed. Only who has chosen the allocator can know.
pub fn note_wiping_allocator() {
    HAS_WIPING_ALLOCATOR.store(true, Ordering::Relaxed);
}
