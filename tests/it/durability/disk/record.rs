//! The record that tests/shim writes. tests/shim/shim.c describes its format.

use std::path::{Path, PathBuf};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    Create,
    Write,
    Truncate,
    Rename,
    Unlink,
    Link,
    MakeDirectory,
    Sync,
    RangeSync,
}

/// One call.
pub struct Event {
    pub kind: Kind,
    /// Whether it went well.
    pub is_done: bool,
    /// The file's inode.
    pub file: u64,
    /// Where it was written; the new length; or how long the record was when the sync began.
    pub offset: u64,
    pub path: PathBuf,
    pub other: PathBuf,
    pub data: Vec<u8>,
    /// Where it begins in the record.
    pub start: u64,
    /// Where it ends in the record.
    pub end: u64,
}

const HEADER: usize = 40;

/// Reads a record.
pub fn read(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let mut events = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let word = |at: usize| {
            let four = bytes[start + at..start + at + 4].try_into().unwrap();
            u32::from_ne_bytes(four) as usize
        };
        let long =
            |at: usize| u64::from_ne_bytes(bytes[start + at..start + at + 8].try_into().unwrap());
        let end = start + word(0);
        let path_end = start + HEADER + word(32);
        let other_end = path_end + word(36);
        let text =
            |from: usize, to: usize| PathBuf::from(std::str::from_utf8(&bytes[from..to]).unwrap());
        events.push(Event {
            kind: kind(word(4)),
            is_done: long(8) == 0,
            file: long(16),
            offset: long(24),
            path: text(start + HEADER, path_end),
            other: text(path_end, other_end),
            data: bytes[other_end..end].to_vec(),
            start: start as u64,
            end: end as u64,
        });
        start = end;
    }
    events
}

fn kind(number: usize) -> Kind {
    [
        Kind::Open,
        Kind::Create,
        Kind::Write,
        Kind::Truncate,
        Kind::Rename,
        Kind::Unlink,
        Kind::Link,
        Kind::MakeDirectory,
        Kind::Sync,
        Kind::RangeSync,
    ][number - 1]
}
