//! An edited state directory decides neither which programs the daemon runs nor which files it reads.

use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{keyhatch_in, skipped, succeeded, temp_dir};

/// A stopped broker, and a mark that a planted command would leave.
struct World {
    directory: TempDir,
    mark: PathBuf,
}

/// Every command that needs the KEK and runs without a daemon.
const OFFLINE: [&[&str]; 5] = [
    &["serve"],
    &["doctor"],
    &["init", "--reissue-admin"],
    &["key", "rotate", "--offline"],
    &["key", "rotate", "--offline", "--data"],
];

impl World {
    /// Makes a broker with these KEK flags of init.
    fn new(kek: &[&str]) -> Self {
        let directory = temp_dir();
        let mark = directory.path().join("mark");
        let world = Self { directory, mark };
        succeeded(&keyhatch_in(world.path(), &[&["init"], kek].concat()).output().unwrap());
        world
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn keyring(&self) -> Value {
        let text = std::fs::read(self.path().join("state/keyring.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Edits the keyring, as any writer of the state directory can.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut keyring = self.keyring();
        change(&mut keyring);
        std::fs::write(self.path().join("state/keyring.json"), keyring.to_string()).unwrap();
    }

    /// The output of a command that must fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = keyhatch_in(self.path(), arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {said}");
        said
    }

    fn leave_a_mark(&self) -> Value {
        json!([
            "/bin/sh",
            "-c",
            format!("touch {}; cat {}/kek", self.mark.display(), self.path().display())
        ])
    }
}

/// Writes a file, with this mode.
fn write(path: &Path, content: &[u8], mode: u32) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_edited_keyring_runs_nothing_and_reads_nothing() {
    type Edit = fn(&mut Value, Value);
    let edits: [(&str, Edit); 5] = [
        ("a command", |keyring, command| keyring["source"] = json!({ "command": command })),
        ("the command of an older format, without its tag", |keyring, command| {
            keyring["source"] = json!({ "command": command });
            keyring["format"] = 2.into();
            keyring.as_object_mut().unwrap().remove("tag");
        }),
        ("the command of the first format", |keyring, command| {
            keyring["source"] = json!({ "command": command });
            keyring["format"] = 1.into();
            keyring.as_object_mut().unwrap().remove("tag");
        }),
        ("any command", |keyring, _| keyring["source"] = "command".into()),
        ("another file", |keyring, _| keyring["source"] = json!({ "file": "/proc/self/environ" })),
    ];
    for (what, edit) in edits {
        let world = World::new(&[]);
        let command = world.leave_a_mark();
        world.edit(|keyring| edit(keyring, command));
        for arguments in OFFLINE {
            let said = world.refused(arguments);
            assert!(!world.mark.exists(), "{what}: {arguments:?} ran it");
            assert!(!said.contains("/bin/sh"), "{said}");
            if what.starts_with("an") {
                assert!(
                    said.contains("nothing was run or read") && said.contains("--kek-"),
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn an_unnamed_kek_is_read_from_no_other_place() {
    let directory = temp_dir();
    let kek = directory.path().join("elsewhere");
    let world = World::new(&["--kek-file", kek.to_str().unwrap()]);
    for arguments in OFFLINE {
        let said = world.refused(arguments);
        assert!(said.contains(&format!("--kek-file {kek:?}")), "{said}");
    }
    // A KEK that is named by flag, variable or configuration is read.
    let doctor = |arguments: &[&str]| {
        let output =
            keyhatch_in(world.path(), &[&["doctor"], arguments].concat()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(doctor(&["--kek-file", kek.to_str().unwrap()]).contains("as the keyring says"));
    let config = directory.path().join("keyhatch.toml");
    write(&config, format!("[kek]\nfile = {kek:?}\n").as_bytes(), 0o644);
    assert!(doctor(&["--config", config.to_str().unwrap()]).contains("as the keyring says"));
    // A configuration in the state directory is not read.
    let inside = world.path().join("state/keyhatch.toml");
    std::fs::copy(&config, &inside).unwrap();
    let said = world.refused(&["serve", "--config", inside.to_str().unwrap()]);
    assert!(said.contains("outside of the state directory"), "{said}");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = world.refused(&["serve", "--config", config.to_str().unwrap()]);
    assert!(said.contains("another user could have written it"), "{said}");
}

#[test]
fn a_keyring_that_asks_for_endless_passes_is_refused() {
    let directory = temp_dir();
    let passphrase = directory.path().join("passphrase");
    write(&passphrase, b"correct horse battery staple", 0o400);
    let kek = ["--kek-passphrase-file", passphrase.to_str().unwrap()];
    let world = World::new(&kek);
    for name in ["passes", "lanes", "memory_kib"] {
        let whole = world.keyring();
        world.edit(|keyring| keyring["source"]["passphrase"][name] = 4_000_000_000_u32.into());
        let said = world.refused(&[&["serve"], &kek[..]].concat());
        assert!(said.contains("it asks for"), "{said}");
        world.edit(|keyring| *keyring = whole);
    }
}

/// Another user.
const NOBODY: u32 = 65_534;

/// The KEK sources that are files in a directory: the flag, and the file.
fn sources(directory: &Path) -> [(&'static str, String); 3] {
    let path = |name: &str| directory.join(name);
    write(&path("passphrase"), b"correct horse battery staple", 0o400);
    write(&path("program"), format!("#!/bin/sh\necho {}\n", "5a".repeat(32)).as_bytes(), 0o700);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    [
        ("--kek-file", text("kek")),
        ("--kek-passphrase-file", text("passphrase")),
        ("--kek-command", text("program")),
    ]
}

#[test]
fn nobody_elses_directory_holds_a_source_of_the_kek() {
    if !rustix::process::geteuid().is_root() {
        skipped("directories of another user", "needs root");
        return;
    }
    let directory = temp_dir();
    for (flag, file) in sources(directory.path()) {
        let world = World::new(&[flag, &file]);
        chown(directory.path(), Some(NOBODY), None).unwrap();
        let said = world.refused(&["serve", flag, &file]);
        assert!(said.contains("above it is uid 65534's"), "{said}");
        let advice = format!("--shared-parent {}", directory.path().display());
        assert!(said.contains(&advice), "{said}");
        // A configuration in that directory does not choose the KEK either.
        let config = directory.path().join("keyhatch.toml");
        write(&config, format!("[kek]\nfile = {file:?}\n").as_bytes(), 0o644);
        let said = world.refused(&["serve", "--config", config.to_str().unwrap()]);
        assert!(said.contains("table kek") && said.contains("above it is uid 65534's"), "{said}");
        chown(directory.path(), Some(0), None).unwrap();
        // A planted link leads to none of our files.
        let link = world.path().join("link");
        symlink(&file, &link).unwrap();
        lchown(&link, Some(NOBODY), None).unwrap();
        let said = world.refused(&["serve", flag, link.to_str().unwrap()]);
        assert!(said.contains("a symbolic link of uid 65534"), "{said}");
    }
}

#[test]
fn no_kek_is_made_or_removed_by_a_strangers_link() {
    if !rustix::process::geteuid().is_root() {
        skipped("links of another user", "needs root");
        return;
    }
    let directory = temp_dir();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    std::fs::create_dir(&ours).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    write(&ours.join("kek.next"), b"ours", 0o600);
    symlink(&ours, theirs.join("link")).unwrap();
    chown(&theirs, Some(NOBODY), None).unwrap();
    let kek = theirs.join("link/kek");
    let kek = kek.to_str().unwrap();
    let state = directory.path().join("state");
    let arguments = ["init", "--kek-file", kek, "--state", state.to_str().unwrap()];
    let made = keyhatch_in(directory.path(), &arguments).output().unwrap();
    assert!(!made.status.success());
    let world = World::new(&[]);
    let said = world.refused(&["key", "rotate", "--offline", "--kek-file", kek]);
    assert!(said.contains("above it is uid 65534's"), "{said}");
    assert_eq!(std::fs::read(ours.join("kek.next")).unwrap(), b"ours");
    assert_eq!(std::fs::read_dir(&ours).unwrap().count(), 1);
}

#[test]
fn a_mounted_secret_is_read_when_its_volume_is_trusted() {
    let directory = temp_dir();
    let volume = directory.path().join("volume");
    // The layout of a Kubernetes volume.
    std::fs::create_dir_all(volume.join("..2026")).unwrap();
    let kek = volume.join("kek");
    symlink("..2026", volume.join("..data")).unwrap();
    symlink("..data/kek", &kek).unwrap();
    let kek = kek.to_str().unwrap();
    let world = World::new(&["--kek-file", kek]);
    assert!(volume.join("..2026/kek").is_file());
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).unwrap();
    let said = world.refused(&["serve", "--kek-file", kek]);
    assert!(said.contains(&format!("--shared-parent {}", volume.display())), "{said}");
    let trusted = ["doctor", "--kek-file", kek, "--shared-parent", volume.to_str().unwrap()];
    let output = keyhatch_in(world.path(), &trusted).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("as the keyring says"), "{said}");
}

#[test]
fn the_default_kek_is_no_link_and_no_pipe() {
    let elsewhere = World::new(&[]);
    let world = World::new(&[]);
    let kek = world.path().join("state/kek");
    std::fs::remove_file(&kek).unwrap();
    symlink(elsewhere.path().join("state/kek"), &kek).unwrap();
    // The state must belong to another user, so that reading root's key would show.
    if rustix::process::geteuid().is_root() {
        let theirs = format!("{NOBODY}:{NOBODY}");
        let mut give = std::process::Command::new("chown");
        assert!(give.args(["-hR", &theirs]).arg(world.path()).status().unwrap().success());
    }
    std::fs::copy(
        elsewhere.path().join("state/keyring.json"),
        world.path().join("state/keyring.json"),
    )
    .unwrap();
    for arguments in [&["key", "rotate", "--offline"][..], &["init", "--reissue-admin"]] {
        let said = world.refused(arguments);
        assert!(said.contains("kek is a symbolic link"), "{said}");
    }
    let world = World::new(&[]);
    let kek = world.path().join("state/kek");
    std::fs::remove_file(&kek).unwrap();
    mknodat(CWD, &kek, FileType::Fifo, Mode::from_raw_mode(0o400), 0).unwrap();
    for arguments in OFFLINE {
        let said = world.refused(arguments);
        assert!(said.contains("not a regular file"), "{said}");
    }
}

#[test]
fn a_source_of_the_kek_that_others_can_replace_is_refused() {
    if !rustix::process::geteuid().is_root() {
        skipped("files of another user", "needs root");
        return;
    }
    let directory = temp_dir();
    for (flag, file) in sources(directory.path()) {
        let world = World::new(&[flag, &file]);
        chown(&file, Some(NOBODY), None).unwrap();
        let said = world.refused(&["serve", flag, &file]);
        assert!(said.contains("belongs to uid 65534"), "{said}");
        chown(&file, Some(0), None).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o722)).unwrap();
        let said = world.refused(&["serve", flag, &file]);
        assert!(said.contains("others"), "{said}");
    }
}
