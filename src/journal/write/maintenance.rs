//! Regular maintenance of the journal. It reads and writes files: call it where blocking is allowed.

use std::os::unix::fs::MetadataExt as _;

use super::disk_reserve::free_bytes;
use super::signature::SignedRange;
use crate::journal::event::Event;
use crate::journal::{Journal, NewestSignature, Unavailable};
use crate::model::limits::{MIN_FREE_BYTES, SIGNATURE_INTERVAL};
use crate::model::{LogLimit, Timestamp};

impl Journal {
    /// Continues in a new file if this one is full, and signs the journal now and then.
    pub fn run_maintenance(&self, now: Timestamp) {
        static LIMIT: LogLimit = LogLimit::new(1);
        let is_new = self.rotate_if_full(now).unwrap_or_else(|error| {
            if let Some(suppressed) = LIMIT.allow() {
                tracing::error!(%error, suppressed, "the journal cannot continue in a new file");
            }
            false
        });
        let is_due = {
            let mut due = self.sign_due.lock();
            let is_due = is_new || now >= *due;
            if is_due {
                *due = now.after(SIGNATURE_INTERVAL);
            }
            is_due
        };
        if is_due {
            self.sign(now);
        }
    }

    /// Checks the journal's file and the room on its disk, and takes the reserve again if there is room. If the last
    /// write has failed, it tries another line: clients may not ask for anything while health reports that nothing is
    /// resolved.
    pub fn check_disk(&self, now: Timestamp) {
        self.check_file();
        let Ok(mut chain) = self.lock_unless_hanging() else { return };
        let has_failed = chain.check_disk();
        let place = chain.signed_range();
        drop(chain);
        // Any line would do; a failure is logged where it happens.
        if has_failed && let Ok(own) = self.write_signature(now, place) {
            *self.signed.lock() = own;
        }
    }

    /// Makes room for a change. If the disk is nearly full, its reserve is released for changes that take access away.
    /// The store must never find the disk full, because then it takes no writes any more.
    ///
    /// # Errors
    /// If there is no room for this change.
    pub fn make_room(&self, intent: &Event) -> Result<(), Unavailable> {
        if self.has_room() {
            return Ok(());
        }
        if !intent.is_for_reserve() {
            return Err(Unavailable);
        }
        self.lock()?.reserve_mut().release();
        Ok(())
    }

    /// Whether there is room for any change.
    pub fn has_room(&self) -> bool {
        free_bytes(&self.directory) >= MIN_FREE_BYTES
    }

    /// Has the root sign all lines that are written, unless nothing was written since the last signature.
    pub fn sign(&self, now: Timestamp) {
        let mut signed = self.signed.lock();
        let Ok(place) = self.lock_unless_hanging().map(|chain| chain.signed_range()) else {
            return;
        };
        if place.line == *signed {
            return;
        }
        match self.write_signature(now, place) {
            // The next signature covers more than this line.
            Ok(own) => *signed = own,
            Err(error) => tracing::error!(%error, "the journal could not be signed"),
        }
    }

    fn write_signature(&self, now: Timestamp, place: SignedRange) -> Result<u64, String> {
        // Made before the lock is taken: a signature takes as long as many lines.
        let signature = place.sign(&self.authority).map_err(|error| error.to_string())?;
        let mut chain = self.lock().map_err(|error: Unavailable| error.to_string())?;
        if chain.number() != place.file {
            // The signature belongs into the file that it covers, and another file is the current one.
            let place = chain.signed_range();
            drop(chain);
            return self.write_signature(now, place);
        }
        let position = chain.append(now, &Event::Signed(signature));
        let position = position.map_err(|error: Unavailable| error.to_string())?;
        *self.newest_signature.lock() =
            Some(NewestSignature { position: format!("{}.{}", place.file, place.line), time: now });
        // Lines that came between are signed next.
        Ok(if position.0 == place.line + 1 { position.0 } else { place.line })
    }

    /// Stops the journal if its file was removed, replaced or changed by another process.
    fn check_file(&self) {
        let Ok(mut chain) = self.lock_unless_hanging() else { return };
        if chain.is_over() {
            return;
        }
        let (Ok(file), path) = (chain.file(), chain.path().to_owned()) else { return };
        let Ok(held) = file.metadata() else { return };
        let fault = match std::fs::metadata(&path) {
            Err(error) => error.to_string(),
            Ok(found) if (found.dev(), found.ino()) != (held.dev(), held.ino()) => {
                "another file is in its place".to_owned()
            }
            Ok(_) if held.len() != chain.length() => "its length was changed".to_owned(),
            Ok(_) => return,
        };
        let descriptor = chain.descriptor();
        tracing::error!(
            journal.file = %path.display(), fault, pid = std::process::id(), descriptor,
            "the journal was removed, replaced or changed while it was in use: nothing is resolved or changed \
             from now on; if /proc/PID/fd/DESCRIPTOR still has it, copy it back, then restart"
        );
        chain.stop();
    }
}
