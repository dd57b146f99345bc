//! The states that a power cut can leave, rebuilt from the record of writes and syncs.
//!
//! A sync of a file brings the earlier writes to disk, data and length. Any part of the later writes can be there.
//! Bytes go to disk by sectors, from memory: each sector on its own holds its content after any one of the writes to
//! it. The length is the length after any of the writes, and its unwritten part is zeros. `sync_file_range` is no sync.
//!
//! Names are on disk when their directory was synced. Before that, each change of a name is done or not
//! (`strict_names`). Or, as on ext4, changes are done in order, and any sync does all changes before it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::{Dice, Event, Image, Kind, write_file};

/// The part of the unsynced writes that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    All,
    Nothing,
    /// Random sectors of this many bytes.
    Some(usize),
}

/// A power cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The number of events before the cut.
    pub events: usize,
    pub keep: Keep,
    pub strict_names: bool,
    /// True if syncs of the store's data file do nothing, as sled's own flush.
    pub careless_store: bool,
}

/// The file operations of a daemon on its state directory.
pub struct Recording {
    /// The directory before the first event.
    pub before: Image,
    /// The path of the directory.
    pub directory: PathBuf,
    pub events: Vec<Event>,
}

struct Node<'a> {
    on_disk: Cow<'a, [u8]>,
    mode: u32,
    /// The unsynced changes, with their places in the record.
    waiting: Vec<(u64, Change<'a>)>,
}

enum Change<'a> {
    Write(usize, &'a [u8]),
    Truncate(usize),
}

/// Changes of names that happen together.
struct Renaming {
    start: u64,
    removed: Option<PathBuf>,
    set: Option<(PathBuf, usize)>,
}

impl Renaming {
    fn is_in(&self, directory: &Path) -> bool {
        let paths = [self.removed.as_deref(), self.set.as_ref().map(|(path, _)| path.as_path())];
        paths.into_iter().flatten().all(|path| path.parent() == Some(directory))
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(removed) = self.removed {
            names.remove(&removed);
        }
        names.extend(self.set);
    }
}

/// The meaning of a file's number.
enum Opened {
    File(usize),
    Directory(PathBuf),
}

/// A disk during the recording.
struct Disk<'a> {
    cut: Cut,
    nodes: Vec<Node<'a>>,
    /// The names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    waiting: Vec<Renaming>,
    opened: HashMap<u64, Opened>,
}

impl Recording {
    /// The length of the record at the cut.
    pub fn length(&self, cut: &Cut) -> u64 {
        cut.events.checked_sub(1).map_or(0, |last| self.events[last].end)
    }

    /// Writes the state after the cut to a directory. It replaces the directory's content.
    pub fn write(&self, cut: Cut, dice: &mut Dice, to: &Path) {
        let mut disk = Disk::new(&self.before, cut);
        for event in self.events[..cut.events].iter().filter(|event| event.is_done) {
            disk.take(event, &self.directory);
        }
        self.before.make_directories(to);
        disk.settle_names(dice);
        let Disk { nodes, names_on_disk, .. } = disk;
        for (path, node) in names_on_disk {
            let bytes = nodes[node].after(cut.keep, dice);
            write_file(&to.join(path), nodes[node].mode, &bytes);
        }
    }
}

impl<'a> Disk<'a> {
    fn new(before: &'a Image, cut: Cut) -> Self {
        let mut nodes = Vec::new();
        let mut names = BTreeMap::new();
        for file in &before.files {
            names.insert(file.path.clone(), nodes.len());
            let on_disk = Cow::Borrowed(file.bytes.as_slice());
            nodes.push(Node { on_disk, mode: file.mode, waiting: Vec::new() });
        }
        let names_on_disk = names.clone();
        Self { cut, nodes, names, names_on_disk, waiting: Vec::new(), opened: HashMap::new() }
    }

    fn take(&mut self, event: &'a Event, directory: &Path) {
        let below = |path: &Path| path.strip_prefix(directory).unwrap_or(path).to_owned();
        let path = below(&event.path);
        match event.kind {
            Kind::Open => {
                let opened = match self.names.get(&path) {
                    Some(node) => Opened::File(*node),
                    None => Opened::Directory(path),
                };
                self.opened.insert(event.file, opened);
            }
            Kind::Create => {
                let node = self.nodes.len();
                let on_disk = Cow::Borrowed(&[][..]);
                self.nodes.push(Node { on_disk, mode: 0o600, waiting: Vec::new() });
                self.opened.insert(event.file, Opened::File(node));
                self.rename(event.start, None, Some((path, node)));
            }
            Kind::Write => {
                let at = usize::try_from(event.offset).unwrap();
                self.change(event, Change::Write(at, &event.data));
            }
            Kind::Truncate => {
                let length = usize::try_from(event.offset).unwrap();
                self.change(event, Change::Truncate(length));
            }
            Kind::Rename => {
                let node = self.names[&path];
                self.rename(event.start, Some(path), Some((below(&event.other), node)));
            }
            Kind::Unlink => self.rename(event.start, Some(path), None),
            Kind::Sync => self.sync(event),
            Kind::RangeSync => {}
            Kind::Link | Kind::MakeDirectory => panic!("the model of a disk does not know this"),
        }
    }

    fn change(&mut self, event: &Event, change: Change<'a>) {
        if let Some(Opened::File(node)) = self.opened.get(&event.file) {
            self.nodes[*node].waiting.push((event.start, change));
        }
    }

    fn rename(&mut self, start: u64, removed: Option<PathBuf>, set: Option<(PathBuf, usize)>) {
        Renaming { start, removed: removed.clone(), set: set.clone() }.apply(&mut self.names);
        self.waiting.push(Renaming { start, removed, set });
    }

    fn sync(&mut self, event: &Event) {
        let began = event.offset;
        let mut directory = None;
        match self.opened.get(&event.file) {
            Some(Opened::File(node)) => {
                let is_store = || self.names.get(Path::new("store/db")) == Some(node);
                if self.cut.careless_store && is_store() {
                    return;
                }
                self.nodes[*node].sync(began);
            }
            Some(Opened::Directory(path)) => directory = Some(path.clone()),
            None => return,
        }
        for renaming in std::mem::take(&mut self.waiting) {
            let is_covered = renaming.start < began
                && (!self.cut.strict_names
                    || directory.as_deref().is_some_and(|directory| renaming.is_in(directory)));
            if is_covered {
                renaming.apply(&mut self.names_on_disk);
            } else {
                self.waiting.push(renaming);
            }
        }
    }

    fn settle_names(&mut self, dice: &mut Dice) {
        let waiting = std::mem::take(&mut self.waiting);
        let in_order = dice.roll(waiting.len() + 1);
        for (number, renaming) in waiting.into_iter().enumerate() {
            let is_done = match self.cut.keep {
                Keep::All => true,
                Keep::Nothing => false,
                Keep::Some(_) if self.cut.strict_names => dice.roll(2) == 0,
                Keep::Some(_) => number < in_order,
            };
            if is_done {
                renaming.apply(&mut self.names_on_disk);
            }
        }
    }
}

impl Change<'_> {
    fn length_after(&self, length: usize) -> usize {
        match self {
            Self::Write(at, data) => length.max(at + data.len()),
            Self::Truncate(length) => *length,
        }
    }

    /// Applies the change to each sector that has reached the disk.
    fn apply(&self, bytes: &mut Vec<u8>, sector: usize, mut is_done: impl FnMut(usize) -> bool) {
        let (from, to) = match self {
            Self::Write(at, data) => (*at, at + data.len()),
            Self::Truncate(length) => (*length, bytes.len()),
        };
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        let mut begin = from;
        while begin < to {
            let end = to.min((begin / sector + 1) * sector);
            if is_done(begin / sector) {
                match self {
                    Self::Write(at, data) => {
                        bytes[begin..end].copy_from_slice(&data[begin - at..end - at]);
                    }
                    Self::Truncate(_) => bytes[begin..end].fill(0),
                }
            }
            begin = end;
        }
    }
}

impl Node<'_> {
    fn sync(&mut self, began: u64) {
        let covered = self.waiting.iter().take_while(|(start, _)| *start < began).count();
        for (_, change) in self.waiting.drain(..covered) {
            let length = change.length_after(self.on_disk.len());
            change.apply(self.on_disk.to_mut(), usize::MAX, |_| true);
            self.on_disk.to_mut().resize(length, 0);
        }
    }

    /// The content of the file after the cut.
    fn after(&self, keep: Keep, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.on_disk.to_vec();
        let sector = match keep {
            Keep::Nothing => return bytes,
            Keep::All => usize::MAX,
            Keep::Some(sector) => sector,
        };
        let lengths = self.waiting.iter().scan(bytes.len(), |length, (_, change)| {
            *length = change.length_after(*length);
            Some(*length)
        });
        let lengths: Vec<usize> = std::iter::once(bytes.len()).chain(lengths).collect();
        let reached = if keep == Keep::All { lengths.len() - 1 } else { dice.roll(lengths.len()) };
        // The number of changes that each sector has received.
        let mut seen = HashMap::<usize, usize>::new();
        for (number, (_, change)) in self.waiting.iter().enumerate() {
            change.apply(&mut bytes, sector, |sector| {
                let drawn = || dice.roll(self.waiting.len() + 1);
                keep == Keep::All || number < *seen.entry(sector).or_insert_with(drawn)
            });
        }
        bytes.resize(lengths[reached], 0);
        bytes
    }
}
