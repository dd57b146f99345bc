//! Behaviour at the limits: floods, slow readers, full memory, exhausted descriptors. `tests/run --quick` leaves this
//! folder out. A test belongs here if one client does much, or is slow, and others must not notice.

mod connections;
mod contention;
mod descriptors;
mod floods;
mod journal_growth;
mod journal_readers;
mod lists;
mod memory;
mod reading;
mod requests;
