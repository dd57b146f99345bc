//! Another user interferes with an identity while root completes it or looks for it.
//!
//! All tests but the last need root. CI runs them as root.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::inotify::{self, WatchFlags};
use tempfile::TempDir;

use crate::harness::{ServeProcess, TestBroker, copy_directory, keyhatch, skipped, temp_dir, text};

/// Another user without any rights.
const THIEF: u32 = 54_322;

/// A broker, and the other user's home.
struct World {
    serving: ServeProcess,
    directory: TempDir,
}

impl World {
    fn new(what: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped(what, "needs root");
            return None;
        }
        let directory = temp_dir();
        let serving = ServeProcess::start(directory.path());
        let world = Self { serving, directory };
        std::fs::create_dir(world.path("home")).unwrap();
        chown(world.path("home"), Some(THIEF), Some(THIEF)).unwrap();
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Replaces a directory by a link to `elsewhere` as soon as this event happens at a path.
fn swap(at: &Path, when: WatchFlags, directory: PathBuf, elsewhere: PathBuf) -> JoinHandle<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, at, when).unwrap();
    std::thread::spawn(move || {
        rustix::io::read(&watch, &mut [0; 4096]).unwrap();
        // The directory is gone if this comes too late.
        if std::fs::rename(&directory, directory.with_extension("old")).is_ok() {
            symlink(elsewhere, directory).unwrap();
        }
    })
}

#[test]
fn a_swapped_directory_leads_root_to_no_other_identity() {
    let Some(world) = World::new("an identity of another user") else { return };
    let (id, admin) = (world.path("home/id"), world.path("state/operators/admin"));
    let requested = ["operator", "request", "--name", "bob", "--out", id.to_str().unwrap()];
    world.serving.must(&requested);
    let (csr, old) = (id.join("tls.csr"), id.with_extension("old"));
    let before = std::fs::read(admin.join("tls.crt")).unwrap();
    let swapping = swap(&csr, WatchFlags::OPEN, id.clone(), admin.clone());
    let add = ["operator", "add", "bob", "--role", "viewer", "--csr", csr.to_str().unwrap()];
    let added = world.serving.run(&add);
    let _ = [File::open(&csr), File::open(old.join("tls.csr"))];
    swapping.join().unwrap();
    assert!(added.status.success(), "{added:?}");
    assert_eq!(std::fs::read(admin.join("tls.crt")).unwrap(), before);
    assert_eq!(std::fs::metadata(old.join("tls.crt")).unwrap().uid(), THIEF);
    // The link is in place now, and root still does not follow it.
    assert!(!admin.join("tls.csr").exists());
    let request = ["operator", "request", "--name", "eve", "--out", id.to_str().unwrap()];
    assert!(!world.serving.run(&request).status.success());
    let below = id.join("new");
    let add = ["operator", "add", "eve", "--role", "viewer", "--out", below.to_str().unwrap()];
    assert!(!world.serving.run(&add).status.success());
    assert!(!admin.join("new").exists());
}

#[test]
fn undoing_an_identity_removes_nothing_elsewhere() {
    let Some(world) = World::new("an identity of another user") else { return };
    let (new, elsewhere) = (world.path("home/new"), world.path("elsewhere"));
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("tls.key"), "dear to root").unwrap();
    let home = world.path("home");
    let swapping = swap(&home, WatchFlags::CREATE, new.clone(), elsewhere.clone());
    // The name is taken, so the new files are removed again.
    let add = ["operator", "add", "admin", "--role", "viewer", "--out", new.to_str().unwrap()];
    let added = world.serving.run(&add);
    File::create(home.join("wake")).unwrap();
    swapping.join().unwrap();
    assert!(!added.status.success());
    assert_eq!(std::fs::read(elsewhere.join("tls.key")).unwrap(), b"dear to root");
}

#[test]
fn an_identity_in_anothers_home_is_passed_over() {
    let Some(world) = World::new("a home of another user") else { return };
    let own = world.path("home/.config/keyhatch");
    std::fs::create_dir(world.path("home/.config")).unwrap();
    copy_directory(&world.path("state/operators/admin"), &own);
    let listed = || {
        let mut list = keyhatch(&["operator", "list"]);
        list.env_remove("XDG_CONFIG_HOME").env("HOME", world.path("home"));
        list.output().unwrap()
    };
    chown(world.path("home"), Some(0), Some(0)).unwrap();
    assert!(listed().status.success());
    // The home's owner could put another directory in the place of root's.
    chown(world.path("home"), Some(THIEF), Some(THIEF)).unwrap();
    assert!(!listed().status.success());
    chown(world.path("home"), Some(0), Some(0)).unwrap();
    chown(&own, Some(THIEF), Some(THIEF)).unwrap();
    assert!(!listed().status.success());
}

#[test]
fn a_broker_that_hangs_keeps_no_other_from_renewal() {
    let broker = TestBroker::start();
    let (hanging, socket) = (broker.scratch().join("hanging"), broker.scratch().join("silent"));
    copy_directory(&broker.config.state.join("operators/admin"), &hanging);
    // The kernel accepts the connection, and nobody answers.
    let _silent = UnixListener::bind(&socket).unwrap();
    let env = hanging.join("env");
    std::fs::remove_file(&env).unwrap();
    std::fs::write(env, format!("KEYHATCH_ADDR=unix://{}\n", socket.display())).unwrap();
    broker.advance(61);
    let good = broker.config.state.join("executors/local");
    let renewed = keyhatch(&["renew"]).args([&hanging, &good]).output().unwrap();
    let out = text(&renewed.stdout);
    let told = text(&renewed.stderr);
    assert!(out.starts_with("executor local: certificate until "), "{out}");
    assert!(told.contains("UNREACHABLE") && told.contains("does not answer"), "{told}");
    assert!(!renewed.status.success());
}
