//! The record that tests/shim writes. tests/shim/shim.c describes its format.

use std::path::{Path, PathBuf};

/// The kind of a file operation.
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

/// One file operation.
pub struct Event {
    pub kind: Kind,
    /// True if the operation succeeded.
    pub is_done: bool,
    /// The file's inode.
    pub file: u64,
    /// The offset of a write, the new length, or the length of the record when a sync began.
    pub offset: u64,
    pub path: PathBuf,
    pub other: PathBuf,
    pub data: Vec<u8>,
    /// The start of the event in the record.
    pub start: u64,
    /// The end of the event in the record.
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
