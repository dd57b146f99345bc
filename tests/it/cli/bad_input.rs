//! Bad input gets an error that names the fault and the next step, and loses nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::harness::{ServeProcess, init_dir, keyhatch, keyhatch_in, temp_dir};

/// The program fails, and its last line is `error: REASON: sentence` with these words in it.
#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded: {text}");
    assert!(text.lines().last().unwrap_or_default().starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn serve(directory: &Path) -> Output {
    keyhatch_in(directory, &["serve"]).output().unwrap()
}

#[test]
fn serve_without_a_state_directory_names_init() {
    let directory = tempfile::tempdir().unwrap();
    assert_refused(&serve(directory.path()), &["state", "keyhatch init --state"]);
    assert_refused(
        &keyhatch_in(directory.path(), &["status"]).output().unwrap(),
        &["KEYHATCH_DIR", "--state"],
    );
}

#[test]
fn init_takes_only_an_empty_directory() {
    let directory = init_dir();
    let again = keyhatch_in(directory.path(), &["init"]).output().unwrap();
    assert_refused(&again, &["holds a broker already", "keyhatch serve", "--state"]);
    ServeProcess::start(directory.path()).terminate();

    let kek = directory.path().join("kek-elsewhere");
    std::fs::write(&kek, "somebody's").unwrap();
    let other = directory.path().join("other");
    let refused = keyhatch(&[
        "init",
        "--state",
        other.to_str().unwrap(),
        "--kek-file",
        kek.to_str().unwrap(),
    ]);
    assert_refused(&{ refused }.output().unwrap(), &["kek-elsewhere"]);
    assert_eq!(std::fs::read_to_string(&kek).unwrap(), "somebody's");
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0, "nothing half-made stays");
}

#[test]
fn one_of_two_concurrent_inits_makes_a_working_broker() {
    for _ in 0..10 {
        let directory = temp_dir();
        let start = || {
            let mut command = keyhatch_in(directory.path(), &["init"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let both = [start(), start()].map(|init| init.wait_with_output().unwrap());
        let made = both.iter().filter(|init| init.status.success()).count();
        assert_eq!(made, 1, "{both:?}");
        assert!(ServeProcess::start(directory.path()).terminate());
    }
}

#[test]
fn a_foreign_runtime_directory_is_refused_and_left_alone() {
    let directory = init_dir();
    let serve_in = |runtime: &Path| {
        let serve = keyhatch_in(directory.path(), &["serve", "--runtime"]).arg(runtime).output();
        serve.unwrap()
    };
    // A foreign `steps` directory counts too.
    let theirs = directory.path().join("theirs");
    std::fs::create_dir_all(theirs.join("stage")).unwrap();
    std::fs::write(theirs.join("stage/file"), "theirs").unwrap();
    let refusals: [(u32, &[&str]); 2] =
        [(0o755, &["theirs", "stage", "--runtime"]), (0o1777, &["theirs", "others may write"])];
    for (mode, named) in refusals {
        std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_refused(&serve_in(&theirs), named);
        assert_eq!(std::fs::read(theirs.join("stage/file")).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
        let left = std::fs::metadata(&theirs).unwrap().permissions().mode();
        assert_eq!(left & 0o7777, mode);
    }
    // The directory of an earlier daemon is used again.
    ServeProcess::start(directory.path()).kill();
    assert!(ServeProcess::start(directory.path()).terminate());
}

#[test]
fn a_usage_error_is_reported_once_in_the_last_line() {
    for (arguments, what) in [
        (&[][..], "a command is missing"),
        (&["step", "open"], "--workflow <NAME>"),
        (&["get", "aws/prod", "--frm"], "'--frm'"),
    ] {
        let told = keyhatch(arguments).output().unwrap();
        let said = String::from_utf8(told.stderr).unwrap();
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("error: USAGE: ") && last.contains(what), "{said}");
        assert_eq!(said.lines().filter(|line| line.contains("error: ")).count(), 1, "{said}");
    }
}

#[test]
fn an_unreadable_state_directory_is_named() {
    if rustix::process::geteuid().is_root() {
        // Root can read everything, so a file in place of the directory is the unreadable case.
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state"), "").unwrap();
        assert_refused(&serve(directory.path()), &["state"]);
        return;
    }
    let directory = init_dir();
    let state = directory.path().join("state");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o0)).unwrap();
    assert_refused(&serve(directory.path()), &["state", "denied"]);
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_wrong_missing_malformed_or_open_kek_is_named_as_such() {
    let directory = init_dir();
    let kek = directory.path().join("state/kek");
    let right = std::fs::read(&kek).unwrap();
    let replace = |content: &[u8], mode: u32| {
        let _ = std::fs::remove_file(&kek);
        std::fs::write(&kek, content).unwrap();
        std::fs::set_permissions(&kek, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    replace(&[b'0'; 64], 0o400);
    let wrong = serve(directory.path());
    assert_refused(&wrong, &["is not the one"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    let ids = said.lines().last().unwrap().matches('(').count();
    assert_eq!(ids, 2, "both key ids are printed");
    replace(b"hello", 0o400);
    assert_refused(&serve(directory.path()), &["64 hexadecimal digits"]);
    replace(&right, 0o644);
    assert_refused(&serve(directory.path()), &["0644", "chmod 0400"]);
    std::fs::remove_file(&kek).unwrap();
    assert_refused(&serve(directory.path()), &["kek"]);
    replace(&right, 0o400);
    assert!(ServeProcess::start(directory.path()).terminate());
}

#[test]
fn a_second_daemon_on_the_same_state_or_socket_is_refused() {
    let directory = init_dir();
    let serving = ServeProcess::start(directory.path());
    assert_refused(&serve(directory.path()), &["another keyhatch", "stop it"]);

    let other = init_dir();
    let mut same_socket = keyhatch_in(other.path(), &["serve"]);
    same_socket.env("KEYHATCH_RUNTIME", directory.path().join("run"));
    assert_refused(&same_socket.output().unwrap(), &["listens", "--runtime"]);
    let open = ["step", "open", "--workflow", "w", "--run", "1", "--step", "s"];
    serving.must(&open);
}

#[test]
fn a_socket_path_too_long_for_unix_is_refused_when_configured() {
    let directory = init_dir();
    let long = directory.path().join("x".repeat(80));
    let mut command = keyhatch_in(directory.path(), &["serve"]);
    command.env("KEYHATCH_RUNTIME", &long);
    assert_refused(&command.output().unwrap(), &["107", "--runtime"]);
    assert!(!long.exists());
}

#[test]
fn broken_yaml_is_located_by_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seed.yaml");
    let apply = |text: &str| {
        std::fs::write(&file, text).unwrap();
        keyhatch(&["dev", "-f", file.to_str().unwrap(), "--", "true"]).output().unwrap()
    };
    assert_refused(&apply("connections:\n  aws/a: {unclosed\n"), &["seed.yaml:2:"]);
    assert_refused(&apply("connections:\n  aws/a:\n    b: [c]\n"), &["seed.yaml:3:5: "]);
    assert_refused(&apply("apiVersion: keyhatch/v2\nkind: Connection\n"), &["keyhatch/v1"]);
    assert_refused(&apply("nonsense: 1\n"), &["seed.yaml:1:1: ", "unknown key"]);
    assert_refused(&apply(""), &["no document"]);
    let unknown = apply("connections:\n  slack/a: {b: c, d: e}\n  nope/x: {y: z}\n");
    assert_refused(
        &unknown,
        &["slack/a: b", "slack/a: d", "missing", "there is no integration nope"],
    );
    let missing_env = apply("connections:\n  slack/a: {apiToken: {fromEnv: KH_NOT_SET}}\n");
    assert_refused(&missing_env, &["slack/a", "apiToken", "KH_NOT_SET"]);
}

#[test]
fn a_broken_configuration_is_refused_with_the_wrong_key() {
    let directory = init_dir();
    let file = directory.path().join("config.toml");
    let serve_with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        keyhatch_in(directory.path(), &["serve", "--config", file.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert_refused(&serve_with("[limits]\nstep_conections = 1\n"), &["step_conections"]);
    assert_refused(&serve_with("[limits]\nopen_steps = 0\n"), &["open_steps", "at least 1"]);
    assert_refused(&serve_with("[limits\n"), &["config.toml"]);
}

#[test]
fn malformed_references_and_names_are_never_sent() {
    for reference in ["aws", "aws/", "AWS/x", "secret:", "aws/a/b", ""] {
        assert_refused(&keyhatch(&["get", reference]).output().unwrap(), &["USAGE"]);
    }
}

/// A user who may write to an identity's directory must not be able to hang its users.
#[test]
fn a_pipe_or_device_as_an_identity_file_is_refused_at_once() {
    let directory = init_dir();
    let identity = directory.path().join("state/operators/admin");
    type StandIn = (&'static str, fn(&Path));
    let stand_ins: [StandIn; 2] = [
        ("a pipe", |path| {
            let made = rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            );
            made.unwrap();
        }),
        ("a device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    for (what, stand_in) in stand_ins {
        for name in ["env", "ca.crt", "tls.crt", "tls.key"] {
            let (path, kept) = (identity.join(name), identity.join("kept"));
            std::fs::rename(&path, &kept).unwrap();
            stand_in(&path);
            let mut command = keyhatch_in(directory.path(), &["status"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            for _ in 0..2000 {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.code().is_some(), "{what} as {name} was waited for");
            assert_refused(&output, &["IDENTITY_MISSING", name, "not a regular file"]);
            std::fs::remove_file(&path).unwrap();
            std::fs::rename(&kept, &path).unwrap();
        }
    }
}
