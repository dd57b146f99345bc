//! A backup is whole and sealed, and a restored broker resolves nothing until an administrator confirms it.

use std::path::Path;
use std::process::Output;

use crate::harness::{ServeProcess, keyhatch_in, succeeded, temp_dir, text};

const SECRET: &str = "s3cret-in-a-backup";

fn must(output: &Output) -> String {
    succeeded(output)
}

/// A daemon with its KEK outside the state directory, and one connection.
fn seeded(directory: &Path) -> ServeProcess {
    let kek = directory.join("kek");
    must(&keyhatch_in(directory, &["init", "--kek-file", kek.to_str().unwrap()]).output().unwrap());
    let serving = serve(directory, &kek);
    let seed = directory.join("seed.yaml");
    let document =
        format!("connections: {{\"aws/prod\": {{accessKeyID: A, secretAccessKey: {SECRET}}}}}\n");
    std::fs::write(&seed, document).unwrap();
    must(&serving.run(&["apply", "-f", seed.to_str().unwrap()]));
    let bind =
        ["access", "add", "aws/prod", "--relation", "resolver", "--principal", "workflow:deploy"];
    must(&serving.run(&bind));
    serving
}

/// Serves the broker in `directory`, whose KEK is in this file.
fn serve(directory: &Path, kek: &Path) -> ServeProcess {
    let kek = ["serve", "--kek-file", kek.to_str().unwrap()];
    ServeProcess::spawn(directory, keyhatch_in(directory, &kek))
}

fn get(directory: &Path) -> Output {
    let run = [
        "step",
        "run",
        "--workflow",
        "deploy",
        "--run",
        "9",
        "--step",
        "s",
        "--",
        "keyhatch",
        "get",
        "aws/prod",
        "--field",
        "secret_access_key",
    ];
    let mut command = keyhatch_in(directory, &run);
    command.env("PATH", crate::harness::path_with_binary());
    command.output().unwrap()
}

fn restore(directory: &Path, archive: &Path, kek: &Path) -> Output {
    let (archive, kek) = (archive.to_str().unwrap(), kek.to_str().unwrap());
    keyhatch_in(directory, &["restore", archive, "--kek-file", kek]).output().unwrap()
}

#[test]
fn a_restored_broker_keeps_the_blocks() {
    let directory = temp_dir();
    let serving = seeded(directory.path());
    must(&serving.run(&["access", "block", "aws/prod", "--reason", "it leaked"]));
    let archive = directory.path().join("backup.tar");
    must(&serving.run(&["backup", archive.to_str().unwrap()]));
    drop(serving);
    let (other, kek) = (temp_dir(), directory.path().join("kek"));
    must(&restore(other.path(), &archive, &kek));
    let serving = serve(other.path(), &kek);
    must(&serving.run(&["restore", "--confirm"]));
    assert!(text(&get(other.path()).stderr).contains("RESOLVE_DENIED"));
    assert!(must(&serving.run(&["access", "blocks"])).contains("it leaked"));
    must(&serving.run(&["access", "unblock", "aws/prod", "--reason", "rotated"]));
    assert_eq!(must(&get(other.path())).trim(), SECRET);
}

#[test]
fn a_restored_broker_resolves_only_once_confirmed() {
    let directory = temp_dir();
    let serving = seeded(directory.path());
    let opened = ["step", "open", "--workflow", "deploy", "--run", "1", "--step", "s"];
    must(&serving.run(&opened));
    let archive = directory.path().join("backup.tar");
    must(&serving.run(&["backup", archive.to_str().unwrap()]));
    // A later change is not in the backup.
    must(&serving.run(&["connection", "delete", "aws/prod", "--force", "--yes"]));
    drop(serving);

    let bytes = std::fs::read(&archive).unwrap();
    let kek = std::fs::read_to_string(directory.path().join("kek")).unwrap();
    for never in [SECRET, kek.trim(), "PRIVATE KEY"] {
        assert!(!bytes.windows(never.len()).any(|part| part == never.as_bytes()), "{never}");
    }

    let other = temp_dir();
    let kek = directory.path().join("kek");
    must(&restore(other.path(), &archive, &kek));
    let serving = serve(other.path(), &kek);
    assert!(must(&serving.run(&["status"])).contains("quarantined"));
    let steps = must(&serving.run(&["step", "list", "-o", "name"]));
    assert_eq!(steps.trim(), "", "every step of the old broker is closed");
    let refused = get(other.path());
    assert!(text(&refused.stderr).contains("error: QUARANTINED"), "{}", text(&refused.stderr));
    // A restart does not confirm the restored state.
    assert!(serving.terminate());
    let serving = serve(other.path(), &kek);
    assert!(text(&get(other.path()).stderr).contains("error: QUARANTINED"));
    must(&serving.run(&["restore", "--confirm"]));
    assert_eq!(must(&get(other.path())).trim(), SECRET);
    assert!(must(&serving.run(&["status"])).contains("serving"));
    let ca = directory.path().join("state/ca.crt");
    must(&serving.run(&["journal", "verify", "--ca", ca.to_str().unwrap()]));
}

#[test]
fn a_cut_or_changed_backup_or_another_key_is_refused() {
    let directory = temp_dir();
    let serving = seeded(directory.path());
    let archive = directory.path().join("backup.tar");
    must(&serving.run(&["backup", archive.to_str().unwrap()]));
    let again = serving.run(&["backup", archive.to_str().unwrap()]);
    assert!(text(&again.stderr).contains("choose another file"));
    drop(serving);
    let kek = directory.path().join("kek");
    let target = directory.path().join("other");
    std::fs::create_dir(&target).unwrap();
    let refused = |archive: &Path, kek: &Path, what: &str| {
        let output = restore(&target, archive, kek);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(what), "{what}: {}", text(&output.stderr));
        // The refused restore leaves no files.
        let left = std::fs::read_dir(target.join("state")).unwrap().count();
        assert_eq!(left, 0);
    };
    let wrong = directory.path().join("wrong");
    std::fs::write(&wrong, "0".repeat(64)).unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    refused(&archive, &wrong, "is not the one");
    let bytes = std::fs::read(&archive).unwrap();
    let spoiled = directory.path().join("spoiled.tar");
    for end in [0, 100, 2000, bytes.len() / 2, bytes.len() - 3000] {
        std::fs::write(&spoiled, &bytes[..end]).unwrap();
        refused(&spoiled, &kek, "spoiled.tar: the backup is damaged");
    }
    // One bit anywhere except in tar's padding.
    let steps = bytes.len() / 60;
    for place in (0..bytes.len()).step_by(steps).filter(|place| bytes[*place] != 0) {
        let mut changed = bytes.clone();
        changed[place] ^= 4;
        std::fs::write(&spoiled, changed).unwrap();
        let output = restore(&target, &spoiled, &kek);
        assert!(!output.status.success(), "byte {place}");
        let _ = std::fs::remove_dir_all(target.join("state"));
    }
}

#[test]
fn a_backup_during_changes_is_as_of_one_change() {
    let directory = temp_dir();
    let serving = seeded(directory.path());
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                number += 1;
                let name = format!("aws/n{}", number % 7);
                let change: [&str; 3] = ["connection", "create", &name];
                let fields =
                    ["--field", "access_key_id=A", "--field", "secret_access_key=env:VALUE"];
                let mut command = keyhatch_in(directory.path(), &[&change[..], &fields].concat());
                command.env("VALUE", "v").output().unwrap();
                serving.run(&["connection", "delete", &name, "--force", "--yes"]);
            }
        });
        for number in 0..5 {
            let archive = directory.path().join(format!("backup-{number}.tar"));
            must(&serving.run(&["backup", archive.to_str().unwrap()]));
            let target = directory.path().join(format!("restored-{number}"));
            std::fs::create_dir(&target).unwrap();
            must(&restore(&target, &archive, &directory.path().join("kek")));
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let restored = serve(&directory.path().join("restored-4"), &directory.path().join("kek"));
    assert!(must(&restored.run(&["connection", "list"])).contains("aws/prod"));
}

#[test]
fn an_archive_fills_neither_memory_nor_disk() {
    let directory = temp_dir();
    let serving = seeded(directory.path());
    let archive = directory.path().join("backup.tar");
    must(&serving.run(&["backup", archive.to_str().unwrap()]));
    drop(serving);
    let kek = directory.path().join("kek");
    let target = directory.path().join("other");
    std::fs::create_dir(&target).unwrap();
    let refused = |what: &str| {
        let output = restore(&target, &archive, &kek);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(what), "{what}: {said}");
    };
    // A long-name entry, which a reader would keep in memory.
    let whole = std::fs::read(&archive).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink").unwrap();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 20);
    header.set_cksum();
    let name = vec![b'x'; 1 << 20];
    std::fs::write(&archive, [header.as_bytes(), &name[..], &whole[..]].concat()).unwrap();
    refused("@LongLink is not where it belongs");
    // A sparse file that is larger than any disk.
    let file = std::fs::OpenOptions::new().write(true).open(&archive).unwrap();
    file.set_len(1 << 42).unwrap();
    refused("has room for");
    std::fs::remove_file(&archive).unwrap();
    std::fs::write(&archive, &whole).unwrap();
    must(&restore(&target, &archive, &kek));
}
