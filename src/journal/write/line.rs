//! The form of a line.
//!
//! ```text
//! {"n":7,"time":"…","event":"resolve",…,"prev":"<hash of line 6>","tag":"<HMAC>","hash":"<SHA-256>"}
//! └──────────────────────── body ────────────────────────────────┘
//! tag  = HMAC-SHA-256(journal key, SHA-256(body))    only the broker can make it
//! hash = SHA-256(body ‖ ,"tag":"<HMAC>")             anybody can check it
//! ```
//!
//! Both begin with the same hash of the body, so the body is hashed once.

use std::borrow::Cow;

use aws_lc_rs::digest;
use serde::Deserialize;

use crate::journal::event::Event;
use crate::model::{HexDigits, Timestamp};
use crate::seal::Keyring;

const HEX_BYTES: usize = 64;
const TAG_START: &[u8] = b",\"tag\":\"";
const HASH_START: &[u8] = b"\",\"hash\":\"";
const END: &[u8] = b"\"}";

/// The `prev` of the very first line.
pub const NO_PREVIOUS: [u8; 32] = [0; 32];

/// A line, cut into its parts. Nothing is checked yet.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    body: &'a [u8],
    tagged: &'a [u8],
    tag: [u8; 32],
    hash: [u8; 32],
}

/// The contents of a line's body.
pub struct Body {
    /// The line's number, from 1.
    pub n: u64,
    /// When it was written.
    pub time: Timestamp,
    /// The hash of the line before, in hexadecimal.
    pub prev: String,
    /// The last line that was known to be on disk when this line was written; 0 if the line does not contain it.
    pub synced: u64,
    /// The event.
    pub event: Event,
}

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It does not have the form of a line.
    #[error("it does not have the form of a line")]
    Malformed,
    /// A newer keyhatch has written it: it contains something that this version does not know.
    #[error("a newer keyhatch has written it")]
    Newer,
}

/// The contents of a body without the event.
#[derive(Deserialize)]
struct Around<'a> {
    n: u64,
    time: Timestamp,
    #[serde(borrow)]
    event: Cow<'a, str>,
    prev: String,
    #[serde(default)]
    synced: u64,
}

impl<'a> Parts<'a> {
    /// Cuts a line, without its newline, into its parts.
    pub fn split(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(END)?;
        let (rest, hash) = split_hex(rest)?;
        let tagged_end = rest.len() - HASH_START.len().min(rest.len());
        let rest = rest.strip_suffix(HASH_START)?;
        let (rest, tag) = split_hex(rest)?;
        let body = rest.strip_suffix(TAG_START)?;
        Some(Self { body, tagged: line.get(..=tagged_end)?, tag, hash })
    }

    /// Cuts a line, with or without its newline, if the broker has written it.
    pub fn tagged(line: &'a [u8], keyring: &Keyring) -> Option<Self> {
        let parts = Self::split(line.strip_suffix(b"\n").unwrap_or(line));
        parts.filter(|parts| parts.is_tagged(keyring))
    }

    /// Whether the broker has written this body.
    pub fn is_tagged(&self, keyring: &Keyring) -> bool {
        keyring.is_journal_tag(&sha256(self.body), &self.tag)
    }

    /// The line's hash; `None` if it is wrong.
    pub fn verified_hash(&self) -> Option<[u8; 32]> {
        (sha256(self.tagged) == self.hash).then_some(self.hash)
    }

    /// Parses the body.
    ///
    /// # Errors
    /// If this version does not know its contents, or it is malformed. If the line is tagged, a newer keyhatch has written
    /// it: such a line is never taken for one that a crash has torn.
    pub fn parse(&self) -> Result<Body, Unread> {
        self.read(Event::from_json)
    }

    /// Parses the body without the changes of an intent, which are most of a journal and which no start needs.
    ///
    /// # Errors
    /// As [`Parts::parse`].
    pub fn parse_without_changes(&self) -> Result<Body, Unread> {
        self.read(Event::from_json_without_changes)
    }

    /// The time of the line, whatever its event.
    pub fn time(&self) -> Option<Timestamp> {
        let json = self.json().ok()?;
        Some(serde_json::from_str::<Around<'_>>(&json).ok()?.time)
    }

    fn json(&self) -> Result<String, Unread> {
        // The body is checked as a whole, which is faster than text by text.
        let body = std::str::from_utf8(self.body).map_err(|_| Unread::Malformed)?;
        Ok([body, "}"].concat())
    }

    fn read(&self, event: fn(&str, &str) -> serde_json::Result<Event>) -> Result<Body, Unread> {
        let json = self.json()?;
        // Parsed twice, which is faster than one type with the event in it: serde would copy all of it.
        let around: Around<'_> = serde_json::from_str(&json).map_err(|_| Unread::Malformed)?;
        let Around { n, time, event: name, prev, synced } = around;
        let event = event(&name, &json).map_err(|_| Unread::Newer)?;
        Ok(Body { n, time, prev, synced, event })
    }
}

/// Appends one line, with its newline, to `buffer`, and returns its hash. `synced` is the last line that is known to be
/// on disk.
///
/// # Errors
/// If the event cannot be written as JSON.
pub fn write(
    buffer: &mut Vec<u8>,
    keyring: &Keyring,
    n: u64,
    now: Timestamp,
    event: &Event,
    prev: &[u8; 32],
    synced: u64,
) -> serde_json::Result<[u8; 32]> {
    let start = buffer.len();
    buffer.extend_from_slice(b"{\"n\":");
    serde_json::to_writer(&mut *buffer, &n)?;
    buffer.extend_from_slice(b",\"time\":");
    serde_json::to_writer(&mut *buffer, &now)?;
    let inner = buffer.len();
    serde_json::to_writer(&mut *buffer, event)?;
    // The event is an object of its own: a comma replaces its opening brace, and its closing brace is removed.
    if let Some(brace) = buffer.get_mut(inner) {
        *brace = b',';
    }
    buffer.pop();
    if event.is_always_synced() && synced > 0 {
        buffer.extend_from_slice(b",\"synced\":");
        serde_json::to_writer(&mut *buffer, &synced)?;
    }
    buffer.extend_from_slice(b",\"prev\":\"");
    put_hex(buffer, prev);
    buffer.push(b'"');
    let mut hashed = digest::Context::new(&digest::SHA256);
    hashed.update(buffer.get(start..).unwrap_or_default());
    let tagged = buffer.len();
    let tag = keyring.journal_tag(&finish(hashed.clone()));
    buffer.extend_from_slice(TAG_START);
    put_hex(buffer, &tag);
    buffer.push(b'"');
    hashed.update(buffer.get(tagged..).unwrap_or_default());
    let hash = finish(hashed);
    buffer.extend_from_slice(HASH_START.get(1..).unwrap_or_default());
    put_hex(buffer, &hash);
    buffer.extend_from_slice(END);
    buffer.push(b'\n');
    Ok(hash)
}

fn put_hex(buffer: &mut Vec<u8>, bytes: &[u8; 32]) {
    buffer.extend_from_slice(HexDigits::<HEX_BYTES>::of(bytes).as_bytes());
}

fn split_hex(text: &[u8]) -> Option<(&[u8], [u8; 32])> {
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(HEX_BYTES)?)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    // Digits have one form: an upper-case digit shows that the line was changed.
    let is_ours = HexDigits::<HEX_BYTES>::of(&bytes).as_bytes() == digits;
    is_ours.then_some((rest, bytes))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hashed = digest::Context::new(&digest::SHA256);
    hashed.update(bytes);
    finish(hashed)
}

fn finish(hashed: digest::Context) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(hashed.finish().as_ref());
    output
}
