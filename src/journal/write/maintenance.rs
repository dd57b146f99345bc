//! What the journal needs as time goes by. It reads and writes files: call it where waiting is allowed.

use std::os::unix::fs::MetadataExt as _;

use super::disk_reserve::free_bytes;
use super::signature::SignedRange;
use crate::journal::event::Event;
use crate::journal::{Journal, NewestSignature, Unavailable};
use crate::model::limits::{MIN_FREE_BYTES, SIGNATURE_INTERVAL};
use crate::model::{LogLimit, Timestamp};

impl Journal {
    /// Goes on in a new file if this one is full, and signs now and then.
    pub fn run_maintenance(&self, now: Timestamp) {
        static LIMIT: LogLimit = LogLimit::new(1);
        let is_new = self.rotate_if_full(now).unwrap_or_else(|error| {
            if let Some(suppressed) = LIMIT.allow() {
                tracing::error!(%error, suppressed, "the journal cannot go on in a new file");
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

    /// Looks whether the file is still the one that is written, whether there is room for more lines, and, if one
    /// could not be written, whether they can be written again: nobody may ask for anything as long as health says
    /// that nothing is resolved. Takes the disk's reserve again if there is room.
    pub fn check_disk(&self, now: Timestamp) {
        self.check_file();
        let Ok(mut chain) = self.lock_unless_hanging() else { return };
        let has_failed = chain.check_disk();
        let place = chain.signed_range();
        drop(chain);
        // Any line would do; it says in the log itself whether it fails.
        if has_failed && let Ok(own) = self.write_signature(now, place) {
            *self.signed.lock() = own;
        }
    }

    /// Sees to it that there is room for a change: if the disk is nearly full its reserve is given up, for
    /// what takes access away. The store must never find the disk full, for then it takes nothing any more.
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

    /// Has the root sign everything that is written, unless nothing was written since the last time.
    pub fn sign(&self, now: Timestamp) {
        let mut signed = self.signed.lock();
        let Ok(place) = self.lock_unless_hanging().map(|chain| chain.signed_range()) else {
            return;
        };
        if place.line == *signed {
            return;
        }
        match self.write_signature(now, place) {
            // What is signed next is more than this line.
            Ok(own) => *signed = own,
            Err(error) => tracing::error!(%error, "the journal could not be signed"),
        }
    }

    fn write_signature(&self, now: Timestamp, place: SignedRange) -> Result<u64, String> {
        // Made before the lock is taken: it takes as long as many lines.
        let signature = place.sign(&self.authority).map_err(|error| error.to_string())?;
        let mut chain = self.lock().map_err(|error: Unavailable| error.to_string())?;
        if chain.number() != place.file {
            // It belongs into the file that it is about, and work goes on in another one.
            let place = chain.signed_range();
            drop(chain);
            return self.write_signature(now, place);
        }
        let position = chain.append(now, &Event::Signed(signature));
        let position = position.map_err(|error: Unavailable| error.to_string())?;
        *self.newest_signature.lock() =
            Some(NewestSignature { position: format!("{}.{}", place.file, place.line), time: now });
        // If others came between, they are to be signed.
        Ok(if position.0 == place.line + 1 { position.0 } else { place.line })
    }

    /// A file that was removed, replaced or changed behind our back proves nothing any more.
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
        chain.end();
    }
}
