//! The program's allocator: what is freed is wiped, and large blocks come from the kernel one by one.
//!
//! The kernel's zeros take no memory until they are written to, and what is given back to it is gone at once. mimalloc
//! writes zeros itself where somebody may have been before, and keeps what is freed for the next: of an idle daemon that
//! was a tenth, most of it sled's page table, which is 2 MB and nearly empty.

#![expect(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;

use mimalloc::MiMalloc;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use zeroizing_alloc::ZeroAlloc;

/// Wipes every block when it is freed: values pass through buffers of libraries that do not.
pub type Allocator = ZeroAlloc<LargeMapped>;

/// To be the program's `#[global_allocator]`.
pub const ALLOCATOR: Allocator = ZeroAlloc(LargeMapped(MiMalloc));

/// What a block has that is mapped by itself, at least: as much as a node of sled's page table. Its buffers, of a quarter of
/// that, come and go by the hundred while a store is opened, for which a mapping each takes too long.
const LARGE_BYTES: usize = 2 * 1024 * 1024;

/// How mappings are aligned, at least.
const PAGE_BYTES: usize = 4096;

/// Gives what this thread and those that have ended have freed back to the system. Else it is kept for the next, and a
/// daemon that nobody asks has no next. Takes a millisecond or so.
pub fn give_back_what_is_free() {
    // SAFETY: it concerns free memory only.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Small blocks are mimalloc's, large ones mappings of their own.
pub struct LargeMapped(MiMalloc);

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE_BYTES && layout.align() <= PAGE_BYTES
}

/// Null if there is no memory, as allocators say it.
fn map(layout: Layout) -> *mut u8 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping at a place of the kernel's choice touches nothing that there is.
    let place = unsafe { mmap_anonymous(null_mut(), layout.size(), access, MapFlags::PRIVATE) };
    place.map_or(null_mut(), |place| place.cast())
}

// SAFETY: whose a block is depends on its layout alone, and it is freed with the layout that it was made with. A mapping has
// at least as many bytes, is aligned to a page, and is nobody else's until it is unmapped.
unsafe impl GlobalAlloc for LargeMapped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(layout);
        }
        // SAFETY: what the caller promises is what mimalloc asks for.
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
            // SAFETY: the block is a whole mapping, and the caller has no use for it any more. It stays mapped if the kernel
            // refuses, which it does where it would have to split a mapping and there are too many.
            let _ = unsafe { munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }
}
