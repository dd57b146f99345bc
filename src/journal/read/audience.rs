//! Whether the caller still waits for what is read.

use std::io;

/// The caller is checked again after so many bytes.
const ASK_BYTES: u64 = 64 * 1024;

/// The caller that waits for what is read. It is checked once a block.
pub(crate) struct Audience<'a> {
    is_gone: &'a dyn Fn() -> bool,
    unasked: u64,
}

impl<'a> Audience<'a> {
    /// The caller is checked for the first time after the first block.
    pub(crate) fn new(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: 0 }
    }

    /// The caller is checked at once.
    pub(super) fn of_long_ago(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: ASK_BYTES }
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&mut self, bytes: u64) {
        self.unasked += bytes;
    }

    /// Whether the caller no longer waits.
    pub(crate) fn is_gone(&mut self) -> bool {
        if self.unasked < ASK_BYTES {
            return false;
        }
        self.unasked = 0;
        (self.is_gone)()
    }

    /// Counts bytes that were read, and checks that the caller waits for more.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] if the caller no longer waits.
    pub(crate) fn read_and_check(&mut self, bytes: u64) -> io::Result<()> {
        self.read(bytes);
        if self.is_gone() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}
