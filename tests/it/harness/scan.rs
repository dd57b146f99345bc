//! A search for secrets in the memory of another process, through `/proc/PID/mem`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

const PAGE: u64 = 4096;
/// Bytes of one read.
const CHUNK: usize = 1024 * 1024;
/// Bytes of a piece. The search looks for pieces, so it also finds a copy whose beginning was overwritten.
const PIECE: usize = 16;
/// The first bytes of a piece that serve as its key.
const KEY: usize = 8;
/// The longest form of a piece: hexadecimal, or UTF-16.
const LONGEST: usize = 2 * PIECE;
/// Pieces of a secret within this many bytes are one copy.
const REACH: u64 = 512;

/// A piece of a secret in one encoding.
struct Pattern {
    secret: usize,
    form: &'static str,
    bytes: Vec<u8>,
}

/// The patterns to look for.
pub struct Scanner {
    patterns: HashMap<[u8; KEY], Vec<Pattern>>,
    /// A bit for each key's hash. For nearly all of a memory this check is enough.
    filter: Vec<u64>,
}

/// The copies that a scan found.
#[derive(Debug, Default)]
pub struct Found {
    /// The number of copies.
    pub copies: usize,
    /// The numbers of the secrets.
    pub secrets: BTreeSet<usize>,
    /// The count of copies for each encoding and mapping.
    pub places: BTreeMap<String, usize>,
    /// The bytes of the pages that were not empty.
    pub bytes: usize,
}

impl Scanner {
    /// Looks for these secrets raw, in hexadecimal, in base64 at every alignment, and in UTF-16.
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

    /// Searches a process and all that descend from it, and returns what was found with the number of processes. A process
    /// that ends meanwhile is left out.
    pub fn scan_tree(&self, root: u32) -> (Found, usize) {
        let (mut all, mut count, mut open) = (Found::default(), 0, vec![root]);
        while let Some(pid) = open.pop() {
            open.extend(children(pid));
            let Ok(found) = self.scan(pid) else { continue };
            count += 1;
            all.copies += found.copies;
            all.secrets.extend(found.secrets);
            all.bytes += found.bytes;
            for (place, copies) in found.places {
                *all.places.entry(place).or_default() += copies;
            }
        }
        (all, count)
    }

    /// Searches all readable mappings of a process. It fails if the process's memory may not be read.
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
                // An unreadable page ends the read. The search continues behind it.
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

/// The children of all threads of a process: proc(5).
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// The place of a key's bit in the filter.
fn place(key: [u8; KEY]) -> (usize, u64) {
    let hash = u64::from_le_bytes(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (usize::try_from(hash >> 46).unwrap(), 1 << (hash >> 40 & 63))
}

/// All encodings of a piece.
fn forms(piece: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let wide = |bytes: fn(u8) -> [u8; 2]| piece.iter().flat_map(|byte| bytes(*byte)).collect();
    let mut forms = vec![
        ("raw", piece.to_vec()),
        ("hexadecimal", hex::encode(piece).into_bytes()),
        ("hexadecimal", hex::encode_upper(piece).into_bytes()),
        ("UTF-16", wide(|byte| [byte, 0])),
        ("UTF-16", wide(|byte| [0, byte])),
    ];
    // Three bytes are four digits, and the piece may begin at any of three places within a longer text.
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

/// The start, end and name of a readable mapping. `None` for the kernel's own pages, which hold nothing.
fn readable(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_readable = words.next()?.starts_with('r');
    let name = words.nth(3).unwrap_or("memory without a name");
    let address = |text| u64::from_str_radix(text, 16).ok();
    (is_readable && !name.starts_with("[v")).then_some((address(start)?, address(end)?, name))
}
