//! The index of one file of the journal, so that the file need not be read again.
//!
//! ```text
//! run (executor, workflow, run)                       → the places of its lines in the file, when it was, counts
//! resource (uid, or a group's name) × workflow × day  → how often, when last, and when a value was handed out last
//! connection (uid) × workflow                         → how its values were refused to steps that may see it
//! ```
//!
//! It is beside its file, as `NNNNNN.index`: a line of JSON and a line with its keyed tag. It is derived from the file
//! alone, so a missing or damaged index is rebuilt.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mints::Mints;
use super::usage::Usage;
use super::use_counts::{ByWorkflow, FileIndex, LineAt, RefusedByWorkflow, RunKey, RunLines, Use};
use crate::journal::event::Event;
use crate::journal::event::decision_id::DecisionId;
use crate::journal::files::file_name;
use crate::journal::read::audience::Audience;
use crate::journal::read::error::ReplayError;
use crate::journal::write::line::Parts;
use crate::lease::LeaseTable;
use crate::model::{Id, WorkflowName};
use crate::seal::Keyring;
use crate::sys::files::replace_file;

const FORMAT: u32 = 4;
/// Workflow, day and use: [`ByWorkflow`] as a flat list.
type Uses = Vec<(WorkflowName, i64, Use)>;

/// An index as it is written: keys of JSON maps are strings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredIndex {
    format: u32,
    file: u64,
    runs: Vec<(RunKey, RunLines)>,
    resources: Vec<(Id, Uses)>,
    groups: Vec<(String, Uses)>,
    refused: Vec<(Id, RefusedByWorkflow)>,
}

fn index_path(directory: &Path, file: u64) -> PathBuf {
    directory.join(file_name(file)).with_extension("index")
}

/// Writes the index of a file beside it.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn save(
    directory: &Path,
    keyring: &Keyring,
    file: u64,
    index: &FileIndex,
) -> std::io::Result<()> {
    let flat = |by: &ByWorkflow| {
        let uses = by.iter().flat_map(|(workflow, days)| {
            days.iter().map(|(day, used)| (workflow.clone(), *day, *used))
        });
        uses.collect::<Uses>()
    };
    let written = StoredIndex {
        format: FORMAT,
        file,
        runs: index.runs.iter().map(|(run, lines)| (run.clone(), lines.clone())).collect(),
        resources: index.resources.iter().map(|(uid, by)| (*uid, flat(by))).collect(),
        groups: index.groups.iter().map(|(name, by)| (name.clone(), flat(by))).collect(),
        refused: index.refused.iter().map(|(uid, by)| (*uid, by.clone())).collect(),
    };
    let mut text = serde_json::to_vec(&written)?;
    let tag = keyring.journal_tag(&text);
    text.push(b'\n');
    text.extend_from_slice(hex::encode(tag).as_bytes());
    text.push(b'\n');
    replace_file(&index_path(directory, file), 0o600, &text)
}

/// Reads the index of a file. A missing index is rebuilt from the file, and written.
///
/// # Errors
/// If the file cannot be read, a newer keyhatch has written it, or the caller no longer waits.
pub(crate) fn load(
    directory: &Path,
    keyring: &Keyring,
    file: u64,
    audience: &mut Audience<'_>,
) -> Result<FileIndex, ReplayError> {
    if let Some(index) = read(&index_path(directory, file), keyring, file) {
        return Ok(index);
    }
    tracing::info!(journal.file = file, "the index of a file of the journal is rebuilt");
    let index = rebuild(directory, keyring, file, audience)?;
    if let Err(error) = save(directory, keyring, file, &index) {
        tracing::warn!(journal.file = file, %error, "the index could not be written");
    }
    Ok(index)
}

fn read(path: &Path, keyring: &Keyring, file: u64) -> Option<FileIndex> {
    let bytes = std::fs::read(path).ok()?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (text, tag) = (lines.next()?, lines.next()?);
    if !keyring.is_journal_tag(text, &hex::decode(tag).ok()?) {
        return None;
    }
    let written: StoredIndex = serde_json::from_slice(text).ok()?;
    let deep = |flat: Uses| {
        let mut by = ByWorkflow::new();
        for (workflow, day, used) in flat {
            by.entry(workflow).or_default().insert(day, used);
        }
        by
    };
    let is_this = written.format == FORMAT && written.file == file;
    is_this.then(|| FileIndex {
        runs: written.runs.into_iter().collect(),
        resources: written.resources.into_iter().map(|(uid, by)| (uid, deep(by))).collect(),
        groups: written.groups.into_iter().map(|(name, by)| (name, deep(by))).collect(),
        refused: written.refused.into_iter().collect(),
    })
}

/// Rebuilds the index of a file from the file.
fn rebuild(
    directory: &Path,
    keyring: &Keyring,
    file: u64,
    audience: &mut Audience<'_>,
) -> Result<FileIndex, ReplayError> {
    let path = directory.join(file_name(file));
    let mut reader = BufReader::new(File::open(&path)?);
    let (mut usage, mut mints, mut leases) = <(Usage, Mints, LeaseTable)>::default();
    let (mut line, mut offset, mut place) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        place += 1;
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(usage.take_file());
        }
        if let Some(parts) = Parts::tagged(&line, keyring) {
            let body = parts.parse_without_changes();
            let body = body.map_err(|_| ReplayError::Newer { path: path.clone(), line: place })?;
            if let Event::Checkpoint(checkpoint) = &body.event {
                usage.start_from(checkpoint);
                mints = Mints::start_from(checkpoint);
            }
            let at = LineAt { id: DecisionId { file, line: body.n }, offset };
            usage.take(&body.event, body.time, at, &mints);
            mints.apply(&body.event, body.time, &mut leases);
        }
        offset += read as u64;
        audience.read_and_check(read as u64)?;
    }
}
