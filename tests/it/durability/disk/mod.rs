//! Shared parts of the tests with bad disks: a daemon that may be killed, fail or hang at its start; the record of its
//! file operations; the states that a power cut can leave; and clients that remember each acknowledgement.

mod channels;
mod clients;
mod daemon;
mod history;
mod power;
mod record;

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{init_in, not_set_up, runtime};

pub use channels::{Channels, Seen, UNANSWERED, resolved};
pub use clients::Client;
pub use daemon::{Serving, Start};
pub use history::{Check, OpenSteps, StepLife, value};
pub use power::{Cut, Keep, Recording};
pub use record::{Event, Kind, read};

/// xorshift64*: the same seed gives the same story.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give similar stories, and no seed may be zero.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

/// The seed in `KEYHATCH_SEED`, or a new seed. The seed is printed.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("KEYHATCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("{test}: KEYHATCH_SEED={seed}");
    seed
}

/// A directory for thousands of writes, in memory if there is room.
pub fn scratch() -> tempfile::TempDir {
    const ROOM: u64 = 1 << 30;
    let memory = Path::new("/dev/shm");
    let has_room =
        rustix::fs::statvfs(memory).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ROOM);
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kh");
        builder
    };
    let in_memory = if has_room { builder().tempdir_in(memory).ok() } else { None };
    in_memory.unwrap_or_else(|| builder().tempdir().unwrap())
}

/// The library of tests/shim, if `tests/run` has built it.
pub fn shim() -> Option<PathBuf> {
    let found = std::env::var_os("KEYHATCH_TEST_SHIM").map(PathBuf::from);
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        not_set_up("power cuts and failing disks", "tests/shim is not built; run tests/run");
    }
    found
}

/// Makes a new broker below `directory`.
pub fn init(directory: &Path) {
    init_in(directory);
}

/// A file of an [`Image`].
#[derive(Clone)]
pub struct ImageFile {
    /// Below the image's directory.
    pub path: PathBuf,
    pub mode: u32,
    pub bytes: Vec<u8>,
}

/// A directory in memory.
#[derive(Clone)]
pub struct Image {
    pub files: Vec<ImageFile>,
    directories: Vec<PathBuf>,
}

impl Image {
    pub fn of(directory: &Path) -> Self {
        let mut image = Self { files: Vec::new(), directories: vec![PathBuf::new()] };
        let mut next = 0;
        while next < image.directories.len() {
            let below = image.directories[next].clone();
            for entry in std::fs::read_dir(directory.join(&below)).unwrap() {
                let entry = entry.unwrap();
                let path = below.join(entry.file_name());
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    image.directories.push(path);
                } else if kind.is_file() {
                    let mode = entry.metadata().unwrap().permissions().mode();
                    let bytes = std::fs::read(entry.path()).unwrap();
                    image.files.push(ImageFile { path, mode, bytes });
                }
            }
            next += 1;
        }
        // A fixed order makes a seed repeat its story.
        image.files.sort_by(|one, other| one.path.cmp(&other.path));
        image
    }

    /// Writes the image to a directory. It replaces the directory's content.
    pub fn write(&self, directory: &Path) {
        self.make_directories(directory);
        for file in &self.files {
            write_file(&directory.join(&file.path), file.mode, &file.bytes);
        }
    }

    /// Makes the directories of the image, and no files.
    pub fn make_directories(&self, directory: &Path) {
        let _ = std::fs::remove_dir_all(directory);
        let mut builder = std::fs::DirBuilder::new();
        for below in &self.directories {
            builder.recursive(true).mode(0o700).create(directory.join(below)).unwrap();
        }
    }
}

pub fn write_file(path: &Path, mode: u32, bytes: &[u8]) {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Works through numbers with two workers. Each worker has its own scratch directory and runtime.
pub fn two_at_a_time<T: Send>(
    count: usize,
    work: impl Fn(usize, &Path, &tokio::runtime::Runtime) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let directory = scratch();
        let runtime = runtime();
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= count {
                return done;
            }
            done.push(work(number, directory.path(), &runtime));
        }
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}
