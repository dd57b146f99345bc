//! Whether anybody still waits for what is read.

use std::io;

/// How many bytes are read before it is asked again.
const ASK_BYTES: u64 = 64 * 1024;

/// Who waits for what is read. It is asked once a block.
pub(crate) struct Audience<'a> {
    is_gone: &'a dyn Fn() -> bool,
    unasked: u64,
}

impl<'a> Audience<'a> {
    /// It is asked first after the first block.
    pub(crate) fn new(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: 0 }
    }

    /// It is asked at once.
    pub(super) fn of_long_ago(is_gone: &'a dyn Fn() -> bool) -> Self {
        Self { is_gone, unasked: ASK_BYTES }
    }

    /// So much was read.
    pub(crate) fn read(&mut self, bytes: u64) {
        self.unasked += bytes;
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_gone(&mut self) -> bool {
        if self.unasked < ASK_BYTES {
            return false;
        }
        self.unasked = 0;
        (self.is_gone)()
    }

    /// So much was read, and more is to be.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] if nobody waits any more.
    pub(crate) fn go_on(&mut self, bytes: u64) -> io::Result<()> {
        self.read(bytes);
        if self.is_gone() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}
