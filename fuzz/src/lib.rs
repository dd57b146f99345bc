//! What is done with every input, by the fuzzer and by `tests/it/meta/fuzz_corpus.rs`.
//!
//! Nothing may panic, hang or run out of its bounds, and beyond that:
//!
//! | target | what holds |
//! |---|---|
//! | `certificates` | what is taken for an SVID has one canonical SPIFFE ID; nothing may follow it |
//! | `command_line` | an `--env` comes back from its parts; placeholders leave the rest of a word alone |
//! | `filters` | a filter twice, with AND between, admits what it admits once |
//! | `journal_lines` | foreign lines are never the broker's; what is written is read; no byte of it can be changed |
//! | `masks` | output is masked alike in all pieces, and the value is not in it |
//! | `names` | a name is its own text, short, ASCII, and free of what separates names |
//! | `patterns` | a pattern comes back from its text, and admits what it says and no other |
//! | `records` | foreign records never open; fields come back from every record that holds some |
//! | `references` | a reference comes back from its text, and is allowed by it |
//! | `relay_specs` | what is wrong has a line and a column; what is looked up is looked up once |
//! | `requests` | every request is taken or refused, with a known code and an error that fits into a header |
//! | `seeds` | every document of a seed file is one that the daemon takes or refuses; errors are short |
//! | `signing_requests` | what is taken from one is a P-256 key |
//! | `spiffe_ids` | an ID has one writing, without empty or dotted segments, and every name has an ID |
//! | `tags` | a tag is lower case, short, no reserved word, and comes back from its text |

mod records;
mod requests;
mod texts;
mod words;

pub use records::{certificates, journal_lines, records, signing_requests};
pub use requests::{REQUESTS, requests, seeds};
pub use texts::{command_line, filters, masks, relay_specs};
pub use words::{names, patterns, references, spiffe_ids, tags};

/// A target: a function of one input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 15] = [
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
    ("tags", tags),
];
