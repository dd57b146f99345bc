//! Memory for keys. If the kernel has memfd_secret(2), no other process can read it, not even root's. Otherwise it is never
//! swapped nor dumped. If it cannot be locked either, it is plain memory.
//!
//! Keys share pages, which are never freed: locked memory is limited (RLIMIT_MEMLOCK), and keys are few. A key leaves its
//! slot only as a copy for one use.

#![expect(unsafe_code, reason = "mapped memory and memfd_secret(2) have no safe interface")]

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous};
use zeroize::Zeroizing;

/// The kind of memory that keys are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyMemory {
    /// memfd_secret(2): removed from the kernel's own map of memory.
    MemfdSecret,
    /// Locked, and not in core dumps.
    Locked,
    /// Plain memory, which is wiped when it is freed.
    Unprotected,
}

impl fmt::Display for KeyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Locked => "locked",
            Self::Unprotected => "unprotected",
        })
    }
}

/// The slot of one key. It consists of atomics, so that safe code can share it.
#[derive(Default)]
#[repr(transparent)]
struct Slot([AtomicU64; 4]);

const PAGE_BYTES: usize = 4096;
const SLOTS: usize = PAGE_BYTES / size_of::<Slot>();

type Page = [Slot; SLOTS];

struct SlotPool {
    free: Vec<&'static Slot>,
    /// The weakest kind of memory in use.
    memory: KeyMemory,
}

static POOL: Mutex<SlotPool> =
    Mutex::new(SlotPool { free: Vec::new(), memory: KeyMemory::MemfdSecret });

/// A key of 32 bytes. Wiped on drop.
pub(crate) struct SecretKey(&'static Slot);

impl SecretKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let slot = Self::take();
        for (place, part) in slot.0.iter().zip(key.as_chunks().0) {
            place.store(u64::from_ne_bytes(*part), Ordering::Relaxed);
        }
        Self(slot)
    }

    /// A copy, for one use.
    pub(crate) fn copy(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        for (place, part) in self.0.0.iter().zip(key.as_chunks_mut().0) {
            *part = place.load(Ordering::Relaxed).to_ne_bytes();
        }
        key
    }

    fn take() -> &'static Slot {
        let mut pool = POOL.lock();
        loop {
            if let Some(slot) = pool.free.pop() {
                return slot;
            }
            let (page, memory) = new_page();
            pool.memory = pool.memory.max(memory);
            pool.free.extend(page);
        }
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        for place in &self.0.0 {
            place.store(0, Ordering::Relaxed);
        }
        POOL.lock().free.push(self.0);
    }
}

/// The memory that this process has its keys in: the weakest kind, if there are several.
pub fn key_memory() -> KeyMemory {
    POOL.lock().memory
}

fn new_page() -> (&'static Page, KeyMemory) {
    let secret = match secret_page() {
        Ok(page) => return (page, KeyMemory::MemfdSecret),
        Err(error) => error,
    };
    let locked = match locked_page() {
        Ok(page) => {
            tracing::info!(%secret, "keys are in locked memory: this kernel has no memfd_secret");
            return (page, KeyMemory::Locked);
        }
        Err(error) => error,
    };
    tracing::warn!(
        memfd_secret = %secret, mlock = %locked,
        "keys are in memory that may be swapped out; allow memfd_secret, or raise the limit of locked memory"
    );
    (Box::leak(Box::new(std::array::from_fn(|_| Slot::default()))), KeyMemory::Unprotected)
}

/// A page that only this process can read.
fn secret_page() -> io::Result<&'static Page> {
    let file = memfd_secret()?;
    rustix::fs::ftruncate(&file, PAGE_BYTES as u64)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place of the mapping, where nothing else is.
    let place = unsafe { mmap(null_mut(), PAGE_BYTES, access, MapFlags::SHARED, &file, 0) }?;
    // SAFETY: the mapping has PAGE_BYTES zero bytes, which are a valid `Page`. It begins on a page and so is aligned, and is
    // never unmapped. No other process has its file.
    Ok(unsafe { &*place.cast::<Page>() })
}

/// A page that is neither swapped out nor dumped.
fn locked_page() -> io::Result<&'static Page> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place of the mapping, where nothing else is.
    let place = unsafe { mmap_anonymous(null_mut(), PAGE_BYTES, access, MapFlags::PRIVATE) }?;
    // SAFETY: both calls concern the mapping that was just made, and change no byte of it. A mapping that cannot be locked
    // stays mapped and unused; a process tries this only a few times.
    unsafe {
        madvise(place, PAGE_BYTES, Advice::LinuxDontDump)?;
        mlock(place, PAGE_BYTES)?;
    }
    // SAFETY: the mapping has PAGE_BYTES zero bytes, which are a valid `Page`. It begins on a page and so is aligned, and is
    // never unmapped.
    Ok(unsafe { &*place.cast::<Page>() })
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn memfd_secret() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer; it returns a descriptor or an error.
    let made = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(made).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn memfd_secret() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_unchanged_and_its_slot_is_wiped_on_drop() {
        let keys: Vec<_> = (0..=u8::MAX).map(|n| SecretKey::new(&[n; 32])).collect();
        assert!(keys.iter().zip(0..=u8::MAX).all(|(key, n)| *key.copy() == [n; 32]));
        let places: Vec<_> = keys.iter().map(|key| key.0).collect();
        // Other tests take and release slots meanwhile, but only a few of these.
        drop(keys);
        let is_wiped = |slot: &&&Slot| slot.0.iter().all(|part| part.load(Ordering::Relaxed) == 0);
        assert!(places.iter().filter(is_wiped).count() > 200);
    }

    #[test]
    fn locked_memory_holds_a_page_of_keys() {
        let page = locked_page().unwrap();
        page[SLOTS - 1].0[3].store(7, Ordering::Relaxed);
        assert_eq!(page[SLOTS - 1].0[3].load(Ordering::Relaxed), 7);
    }
}
