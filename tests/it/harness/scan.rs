//! What stands in the memory of another process: a search for secrets through `/proc/PID/mem`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

const PAGE: u64 = 4096;
/// How much is read at a time, in bytes.
const CHUNK: usize = 1024 * 1024;
/// Secrets are looked for by pieces of so many bytes: a copy whose beginning was overwritten is one, too.
const PIECE: usize = 16;
/// By so many of its first bytes a piece is recognised.
const KEY: usize = 8;
/// The longest form of a piece: hexadecimal, or UTF-16.
const LONGEST: usize = 2 * PIECE;
/// Pieces of one secret within so many bytes are one copy of it.
const REACH: u64 = 512;

/// A piece of a secret in one of the forms in which it could stand there.
struct Pattern {
    secret: usize,
    form: &'static str,
    bytes: Vec<u8>,
}

/// What is looked for.
pub struct Scanner {
    patterns: HashMap<[u8; KEY], Vec<Pattern>>,
    /// A bit for each key's hash: nearly all of a memory is passed by looking here only.
    filter: Vec<u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// How many copies.
    pub copies: usize,
    /// Of which secrets.
    pub secrets: BTreeSet<usize>,
    /// In which forms, in which mappings, and how many.
    pub places: BTreeMap<String, usize>,
    /// How many bytes were looked at: those of pages with something on them.
    pub bytes: usize,
}

impl Scanner {
    /// Looks for these, by their numbers: raw, hexadecimal, base64 at every alignment, and UTF-16.
    pub fn new(secrets: &[Vec<u8>]) -> Self {
        let mut scanner = Self { patterns: HashMap::new(), filter: vec![0; 1 << 18] };
        for (number, secret) in secrets.iter().enumerate() {
            for piece in secret.chunks_exact(PIECE) {
                for (form, bytes) in forms(piece) {
                    scanner.add(Pattern { secret: number, form, bytes });
                }
            }
        }
        scanner
    }

    fn add(&mut self, pattern: Pattern) {
        let key: [u8; KEY] = pattern.bytes[..KEY].try_into().unwrap();
        let (word, bit) = place(key);
        self.filter[word] |= bit;
        self.patterns.entry(key).or_default().push(pattern);
    }

    /// Searches everything that a process has mapped and that can be read.
    ///
    /// # Errors
    /// If its memory may not be read.
    pub fn scan(&self, pid: u32) -> std::io::Result<Found> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut found = Found::default();
        let mut hits: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (start, end, name) in maps.lines().filter_map(readable) {
            let mut at = start;
            let mut buffer = vec![0; CHUNK + LONGEST];
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                // A page that cannot be read ends what is read; the search goes on behind it.
                let read = memory.read_at(&mut buffer[..most], at).unwrap_or(0);
                if read == 0 {
                    at += PAGE;
                    continue;
                }
                let own = read.min(CHUNK);
                for (offset, pattern) in self.search(&buffer[..read], own, &mut found.bytes) {
                    hits.entry(pattern.secret).or_default().push(at + offset as u64);
                    *found.places.entry(format!("{} in {name}", pattern.form)).or_default() += 1;
                }
                at += own as u64;
            }
        }
        for (secret, mut places) in hits {
            places.sort_unstable();
            found.copies += 1 + places.windows(2).filter(|two| two[1] - two[0] > REACH).count();
            found.secrets.insert(secret);
        }
        Ok(found)
    }

    /// The patterns that begin in the first `own` bytes.
    fn search(&self, buffer: &[u8], own: usize, looked_at: &mut usize) -> Vec<(usize, &Pattern)> {
        let mut hits = Vec::new();
        let page = usize::try_from(PAGE).unwrap();
        for start in (0..own).step_by(page) {
            let end = (start + page).min(own);
            if buffer[start..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            *looked_at += end - start;
            for at in start..end {
                let Some(key) = buffer.get(at..at + KEY) else { break };
                let key: [u8; KEY] = key.try_into().unwrap();
                let (word, bit) = place(key);
                if self.filter[word] & bit == 0 {
                    continue;
                }
                let patterns = self.patterns.get(&key).into_iter().flatten();
                hits.extend(
                    patterns
                        .filter(|pattern| buffer[at..].starts_with(&pattern.bytes))
                        .map(|pattern| (at, pattern)),
                );
            }
        }
        hits
    }
}

/// Where the filter has the bit of a key.
fn place(key: [u8; KEY]) -> (usize, u64) {
    let hash = u64::from_le_bytes(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (usize::try_from(hash >> 46).unwrap(), 1 << (hash >> 40 & 63))
}

/// Everything that a piece of a secret can look like.
fn forms(piece: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let wide = |bytes: fn(u8) -> [u8; 2]| piece.iter().flat_map(|byte| bytes(*byte)).collect();
    let mut forms = vec![
        ("raw", piece.to_vec()),
        ("hexadecimal", hex::encode(piece).into_bytes()),
        ("hexadecimal", hex::encode_upper(piece).into_bytes()),
        ("UTF-16", wide(|byte| [byte, 0])),
        ("UTF-16", wide(|byte| [0, byte])),
    ];
    // Three bytes are four digits; where in a longer text the piece begins is not known.
    for skipped in 0..3 {
        let part = &piece[skipped..skipped + 12];
        let (standard, url) = (STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part));
        if url != standard {
            forms.push(("base64", url.into_bytes()));
        }
        forms.push(("base64", standard.into_bytes()));
    }
    forms
}

/// A mapping that can be read: from where to where, and what it is. The kernel's own pages hold nothing.
fn readable(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_readable = words.next()?.starts_with('r');
    let name = words.nth(3).unwrap_or("memory without a name");
    let address = |text| u64::from_str_radix(text, 16).ok();
    (is_readable && !name.starts_with("[v")).then_some((address(start)?, address(end)?, name))
}
