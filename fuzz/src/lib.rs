//! The targets of the fuzzer, which `tests/it/meta/fuzz_corpus.rs` runs, too.
//!
//! Nothing may panic, hang or run out of its bounds, and beyond that:
//!
//! | target | what holds |
//! |---|---|
//! | `certificates` | an accepted SVID has one canonical SPIFFE ID and no bytes after it |
//! | `command_line` | the parts of an `--env` give the same `--env`; placeholders change nothing else in a word |
//! | `filters` | a filter joined to itself by AND admits the same connections |
//! | `journal_lines` | foreign lines are refused; own lines are read back; no byte of them can be changed |
//! | `masks` | output is masked in the same way in all pieces, and never contains the value |
//! | `names` | a name equals its text, is short, and contains no separator of names |
//! | `patterns` | a pattern comes back from its text, and admits only what it says |
//! | `records` | foreign records never open; the fields of every record come back |
//! | `references` | a reference comes back from its text, and is allowed by it |
//! | `relay_specs` | every error has a line and a column; nothing is looked up twice |
//! | `requests` | every request is parsed, or refused with a known code and an error that fits into a header |
//! | `seeds` | the daemon parses or refuses every document of a seed file; errors are short |
//! | `signing_requests` | every accepted request has a P-256 key |
//! | `spiffe_ids` | an ID has one spelling, without empty or dotted segments, and every name has an ID |
//! | `ssh` | a login is read whole, with a user and a key of its algorithm; no key signs another algorithm |
//! | `tags` | a tag is lower case, short, not reserved, and comes back from its text |

mod records;
mod requests;
mod texts;
mod words;

pub use records::{certificates, journal_lines, records, signing_requests, ssh};
pub use requests::{REQUESTS, requests, seeds};
pub use texts::{command_line, filters, masks, relay_specs};
pub use words::{names, patterns, references, spiffe_ids, tags};

/// A target: a function of one input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 16] = [
    ("certificates", certificates),
    ("command_line", command_line),
    ("filters", filters),
    ("journal_lines", journal_lines),
    ("masks", masks),
    ("names", names),
    ("patterns", patterns),
    ("records", records),
    ("references", references),
    ("relay_specs", relay_specs),
    ("requests", requests),
    ("seeds", seeds),
    ("signing_requests", signing_requests),
    ("spiffe_ids", spiffe_ids),
    ("ssh", ssh),
    ("tags", tags),
];
