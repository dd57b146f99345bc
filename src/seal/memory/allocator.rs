//! The program's allocator: freed blocks are wiped, and each large block is a mapping of its own.
//!
//! Zeros from the kernel take no memory until they are written to, and an unmapped block is freed at once. mimalloc writes
//! zeros into reused memory itself, and keeps freed memory. That was a tenth of an idle daemon, most of it sled's page table,
//! which has 2 MB and is nearly empty.

#![expect(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;

use mimalloc::MiMalloc;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use zeroizing_alloc::ZeroAlloc;

/// Wipes every block when it is freed: values pass through buffers of libraries that do not wipe them.
pub type Allocator = ZeroAlloc<LargeMapped>;

/// The program's `#[global_allocator]`.
pub const ALLOCATOR: Allocator = ZeroAlloc(LargeMapped(MiMalloc));

/// The smallest block that is a mapping of its own: a node of sled's page table. sled's buffers have a quarter of that, and
/// hundreds are made while a store is opened; a mapping for each takes too long.
const LARGE_BYTES: usize = 2 * 1024 * 1024;

/// The alignment of mappings.
const PAGE_BYTES: usize = 4096;

/// Returns memory to the system: blocks of this thread that any thread has freed, and those of ended threads. Otherwise
/// mimalloc keeps them for later blocks, and an idle thread has none. Takes about a millisecond.
pub fn release_free_memory() {
    // SAFETY: the call changes free memory only.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Small blocks come from mimalloc; large blocks are mappings of their own.
pub struct LargeMapped(MiMalloc);

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE_BYTES && layout.align() <= PAGE_BYTES
}

/// Maps a block; null if there is no memory.
fn map(layout: Layout) -> *mut u8 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place of the mapping, where nothing else is.
    let place = unsafe { mmap_anonymous(null_mut(), layout.size(), access, MapFlags::PRIVATE) };
    place.map_or(null_mut(), |place| place.cast())
}

// SAFETY: the layout alone decides which allocator a block comes from, and a block is freed with the layout that it was made
// with. A mapping has at least as many bytes, is aligned to a page, and is used by nobody else until it is unmapped.
unsafe impl GlobalAlloc for LargeMapped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout);
        }
        // SAFETY: mimalloc requires what the caller promises.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout);
        }
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: the block is a whole mapping, which the caller no longer uses. It stays mapped if the kernel refuses: that
            // happens if a mapping would have to be split and there are too many.
            let _ = unsafe { munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }
}
