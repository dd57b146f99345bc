//! `doctor` names each fault of a broker with the command that repairs it, and changes nothing itself. The probe `healthcheck` ends
//! soon with one line.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use keyhatch::model::{Clock, Limits, Timestamp};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    START, ServeProcess, SmallFilesystem, TestBroker, by_shell, init_dir, init_in, keyhatch,
    keyhatch_in, path_with_binary, skipped, succeeded, temp_dir, text, wait_until,
};

const DAY: i64 = 24 * 3_600_000;

/// The findings of the doctor.
struct Diagnosis {
    exit_code: i32,
    findings: Vec<Value>,
}

impl Diagnosis {
    fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr));
        });
        let findings = answer["findings"].as_array().unwrap().clone();
        let failed = findings.iter().filter(|finding| finding["level"] == "fail").count();
        assert_eq!(answer["failed"], failed);
        let exit_code = output.status.code().unwrap();
        assert_eq!(exit_code != 0, failed > 0, "{findings:#?}");
        Self { exit_code, findings }
    }

    /// The findings of this level.
    fn at(&self, level: &str) -> Vec<&str> {
        let these = self.findings.iter().filter(|finding| finding["level"] == level);
        these.map(|finding| finding["what"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn get(&self, what: &str) -> &Value {
        let found = self.findings.iter().find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("nothing of {what}: {:#?}", self.findings))
    }

    #[track_caller]
    fn level(&self, what: &str) -> &str {
        self.get(what)["level"].as_str().unwrap()
    }

    /// The command that repairs the finding.
    #[track_caller]
    fn command(&self, what: &str) -> &str {
        let finding = self.get(what);
        finding["run"].as_str().unwrap_or_else(|| panic!("no command: {finding:#}"))
    }
}

fn doctor(directory: &Path) -> Diagnosis {
    Diagnosis::of(keyhatch_in(directory, &["doctor", "-o", "json"]))
}

/// A shell with the program on its PATH. It knows only the broker that the command names.
fn shell(line: &str) -> Command {
    let mut shell = by_shell(line, &keyhatch(&[]));
    shell.env("PATH", path_with_binary());
    shell
}

/// Runs the printed repair, and checks that the finding is gone.
#[track_caller]
fn repair(directory: &Path, broken: &Diagnosis, what: &str) {
    assert_eq!(broken.level(what), "fail", "{:#}", broken.get(what));
    let command = broken.command(what);
    succeeded(&shell(command).output().unwrap());
    let after = doctor(directory);
    assert_eq!(after.level(what), "ok", "after {command}: {:#}", after.get(what));
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A daemon that a command of the doctor has started.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of a broker whose KEK is in a file elsewhere.
fn keyhatch_with_kek(directory: &Path, kek: &Path, command: &str) -> Command {
    let mut command = keyhatch_in(directory, &[command]);
    command.env("KEYHATCH_KEK_FILE", kek);
    command
}

#[test]
fn a_healthy_broker_gets_no_failure() {
    let directory = temp_dir();
    let kek = directory.path().join("elsewhere");
    let with_kek = |command: &str| keyhatch_with_kek(directory.path(), &kek, command);
    assert!(with_kek("init").output().unwrap().status.success());
    let _serving = ServeProcess::spawn(directory.path(), with_kek("serve"));
    let mut doctor = with_kek("doctor");
    doctor.args(["-o", "json"]);
    let diagnosis = Diagnosis::of(doctor);
    assert_eq!((diagnosis.exit_code, diagnosis.at("fail")), (0, vec![]));
    for what in ["KEK's place", "KEK", "clock", "daemon", "version", "admin socket"] {
        assert_eq!(diagnosis.level(what), "ok", "{:#}", diagnosis.get(what));
    }
    let lines = text(&with_kek("doctor").output().unwrap().stdout);
    let starts = ["ok  ", "warn", "    "];
    assert!(
        lines.lines().all(|line| starts.iter().any(|start| line.starts_with(start))),
        "{lines}"
    );
}

#[test]
fn doctor_warns_of_a_kek_beside_the_store_and_a_wrong_one() {
    let (directory, other) = (init_dir(), init_dir());
    let diagnosis = doctor(directory.path());
    assert_eq!(diagnosis.level("KEK's place"), "warn");
    assert!(diagnosis.get("KEK's place")["do"].as_str().unwrap().contains("key rotate --kek-file"));
    let kek = |directory: &TempDir| directory.path().join("state/kek");
    let digits = std::fs::read_to_string(kek(&directory)).unwrap();
    assert!(!diagnosis.get("KEK").to_string().contains(digits.trim()));
    std::fs::remove_file(kek(&directory)).unwrap();
    assert_eq!(doctor(directory.path()).level("KEK file"), "fail");
    std::fs::copy(kek(&other), kek(&directory)).unwrap();
    let diagnosis = doctor(directory.path());
    assert_eq!(diagnosis.level("KEK"), "fail");
    assert!(diagnosis.get("KEK")["detail"].as_str().unwrap().contains("is not the one"));
}

#[test]
fn doctor_names_each_wrong_mode_with_a_remedy() {
    let directory = init_dir();
    let _serving = ServeProcess::start(directory.path());
    for (what, file, mode) in [
        ("KEK file", "state/kek", 0o644),
        ("state directory", "state", 0o755),
        ("files of the state", "state/operators/admin/tls.key", 0o644),
        ("files of the state", "state/journal", 0o750),
        ("files of the state", "state/ca.crt", 0o666),
        ("runtime directory", "run", 0o777),
        ("admin socket", "run/admin.sock", 0o666),
    ] {
        let path = directory.path().join(file);
        let before = std::fs::metadata(&path).unwrap().mode();
        set_mode(&path, mode);
        let broken = doctor(directory.path());
        assert_eq!(broken.at("fail"), [what], "{file}");
        repair(directory.path(), &broken, what);
        let now = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(now & 0o022, 0, "{file}: {before:o} became {now:o}");
    }
}

#[test]
fn doctor_names_files_of_another_user_with_a_remedy() {
    if !rustix::process::geteuid().is_root() {
        skipped("files of another user", "needs root");
        return;
    }
    let directory = init_dir();
    let _serving = ServeProcess::start(directory.path());
    for (what, file) in [
        ("KEK file", "state/kek"),
        ("files of the state", "state/keyring.json"),
        ("runtime directory", "run"),
    ] {
        let path = directory.path().join(file);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let broken = doctor(directory.path());
        assert_eq!(broken.at("fail"), [what], "{file}");
        repair(directory.path(), &broken, what);
    }
}

#[test]
fn doctor_prints_commands_that_set_up_a_missing_broker() {
    let directory = temp_dir();
    let broken = doctor(directory.path());
    assert_eq!(broken.at("fail"), ["state directory"]);
    // An empty state directory counts as missing.
    std::fs::create_dir(directory.path().join("state")).unwrap();
    set_mode(&directory.path().join("state"), 0o700);
    let empty = doctor(directory.path());
    assert_eq!(empty.command("state format"), broken.command("state directory"));
    repair(directory.path(), &empty, "state format");
    let broken = doctor(directory.path());
    assert_eq!(broken.at("fail"), ["runtime directory", "admin socket"]);
    repair(directory.path(), &broken, "runtime directory");
    let broken = doctor(directory.path());
    assert_eq!(broken.at("fail"), ["admin socket"]);
    let serve = format!("exec {}", broken.command("admin socket"));
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let started = Started(shell(&serve).stderr(log).spawn().unwrap());
    wait_until("the daemon serves", || doctor(directory.path()).at("fail").is_empty());
    drop(started);
    // The killed daemon has left its socket, and nobody listens.
    let broken = doctor(directory.path());
    assert_eq!(broken.at("fail"), ["daemon"]);
    assert!(broken.command("daemon").starts_with("keyhatch serve --state"));
}

#[test]
fn doctor_names_an_expired_certificate_with_a_remedy() {
    let past = Clock::hand_set(Timestamp::from_millis(*START - 200 * DAY));
    let mut broker = TestBroker::start_at(past, Limits::default());
    broker.stop();
    let directory = broker.scratch();
    let broken = doctor(directory);
    let identities = ["operator's certificate", "executor's certificate"];
    for what in ["daemon's certificate", identities[0], identities[1]] {
        assert_eq!(broken.level(what), "fail");
        assert!(broken.get(what)["detail"].as_str().unwrap().starts_with("ended at "));
    }
    assert_eq!(broken.level("CA's certificate"), "ok");
    // The command replaces both identities.
    repair(directory, &broken, identities[0]);
    assert_eq!(doctor(directory).level(identities[1]), "ok");
    assert!(broken.get("daemon's certificate")["do"].as_str().unwrap().contains("restart"));
    let _serving = ServeProcess::start(directory);
    assert!(doctor(directory).at("fail").is_empty());
}

#[test]
fn doctor_names_a_foreign_certificate_with_a_remedy() {
    let (directory, other) = (init_dir(), init_dir());
    let file = |directory: &TempDir| directory.path().join("state/operators/admin/tls.crt");
    std::fs::remove_file(file(&directory)).unwrap();
    std::fs::copy(file(&other), file(&directory)).unwrap();
    let broken = doctor(directory.path());
    let what = "operator's certificate";
    assert!(broken.get(what)["detail"].as_str().unwrap().contains("would refuse"));
    repair(directory.path(), &broken, what);
}

#[test]
fn doctor_warns_of_an_ageing_certificate_with_a_remedy() {
    let past = Clock::hand_set(Timestamp::from_millis(*START - 70 * DAY));
    let mut broker = TestBroker::start_at(past, Limits::default());
    broker.stop();
    let directory = broker.scratch();
    let _serving = ServeProcess::start(directory);
    let due = doctor(directory);
    let what = "executor's certificate";
    assert_eq!((due.at("fail"), due.level(what)), (vec![], "warn"));
    succeeded(&shell(due.command(what)).output().unwrap());
    assert_eq!(doctor(directory).level(what), "ok");
}

#[test]
fn doctor_names_a_clock_behind_journal_and_certificates() {
    let future = Clock::hand_set(Timestamp::from_millis(*START + DAY));
    let mut broker = TestBroker::start_at(future, Limits::default());
    broker.stop();
    let diagnosis = doctor(broker.scratch());
    for what in ["clock", "CA's certificate", "operator's certificate"] {
        assert_eq!(diagnosis.level(what), "fail");
        assert!(diagnosis.get(what)["do"].as_str().unwrap().contains("set the clock"), "{what}");
    }
}

#[test]
fn doctor_tells_a_host_with_a_slow_clock_to_set_it() {
    let future = Clock::hand_set(Timestamp::from_millis(*START + DAY));
    let broker = TestBroker::start_at(future, Limits::default());
    let diagnosis = doctor(broker.scratch());
    assert_eq!(diagnosis.level("daemon"), "fail");
    let daemon = diagnosis.get("daemon");
    assert!(daemon["do"].as_str().is_some_and(|what| what.contains("set the clock")), "{daemon}");
}

#[test]
fn doctor_names_a_runtime_directory_with_too_long_a_path() {
    let directory = init_dir();
    let long = directory.path().join("x".repeat(80));
    let mut command = keyhatch_in(directory.path(), &["doctor", "-o", "json"]);
    command.env("KEYHATCH_RUNTIME", &long);
    let diagnosis = Diagnosis::of(command);
    let finding = diagnosis.get("runtime directory");
    assert!(finding["detail"].as_str().unwrap().contains("107"), "{finding}");
    assert!(finding["do"].as_str().unwrap().contains("--runtime"), "{finding}");
    // A directory with another user's files is a finding too.
    std::fs::create_dir(directory.path().join("run")).unwrap();
    std::fs::write(directory.path().join("run/theirs"), "").unwrap();
    let diagnosis = doctor(directory.path());
    let detail = diagnosis.get("runtime directory")["detail"].as_str().unwrap();
    assert!(detail.contains("theirs"), "{detail}");
}

#[test]
fn doctor_names_confusing_variables_with_a_remedy() {
    let directory = init_dir();
    let _serving = ServeProcess::start(directory.path());
    for (name, value, level) in [
        ("KEYHATCH_DIR", directory.path().join("nothing"), "fail"),
        ("KEYHATCH_DIR", directory.path().join("state"), "fail"),
        ("KEYHATCH_ADDR", PathBuf::from("unix:///elsewhere"), "warn"),
        ("KEYHATCH_RUNTIM", PathBuf::from("/elsewhere"), "warn"),
    ] {
        let with = |mut command: Command| {
            command.env(name, &value);
            command
        };
        let confused =
            Diagnosis::of(with(keyhatch_in(directory.path(), &["doctor", "-o", "json"])));
        let what = if level == "fail" { name } else { "variables" };
        assert_eq!(confused.level(what), level);
        let line = format!("{}; keyhatch doctor -o json", confused.command(what));
        let mut command = with(shell(&line));
        command.env("KEYHATCH_STATE", directory.path().join("state"));
        command.env("KEYHATCH_RUNTIME", directory.path().join("run"));
        let clear = Diagnosis::of(command);
        assert_eq!((clear.at("fail"), clear.level("variables")), (vec![], "ok"));
    }
    let mut executor = keyhatch_in(directory.path(), &["doctor", "-o", "json"]);
    executor.env("KEYHATCH_DIR", directory.path().join("state/executors/local"));
    assert!(Diagnosis::of(executor).at("fail").is_empty());
}

#[test]
fn doctor_warns_of_a_disk_before_it_is_full() {
    let directory = temp_dir();
    let state = directory.path().join("state");
    let Some(_mounted) = SmallFilesystem::mount(&state, "size=60m,mode=0700") else {
        skipped("a small disk", "needs the right to mount");
        return;
    };
    init_in(directory.path());
    let diagnosis = doctor(directory.path());
    assert_eq!(diagnosis.level("room for the store"), "warn");
    assert_eq!(diagnosis.level("room for the journal"), "warn");
    let fill = std::fs::File::create(state.join("fill")).unwrap();
    let free = rustix::fs::statvfs(&state).unwrap();
    let leave = 2 * 1024 * 1024;
    let taken = free.f_bavail * free.f_frsize - leave;
    rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, taken).unwrap();
    assert_eq!(doctor(directory.path()).level("room for the store"), "fail");
}

/// Every file below a directory, with the attributes that show a change.
fn traces(directory: &Path) -> Vec<(PathBuf, u32, i64, i64, u64)> {
    let mut traces = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let (path, metadata) =
                entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            traces.push((path.clone(), metadata.mode(), changed.0, changed.1, metadata.len()));
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    traces.sort();
    traces
}

#[test]
fn the_doctor_changes_nothing() {
    let directory = init_dir();
    ServeProcess::start(directory.path()).kill();
    // A killed rotation leaves such a keyring. The next start removes it.
    let keyring = directory.path().join("state/keyring.json");
    std::fs::copy(&keyring, keyring.with_file_name("keyring.json.next")).unwrap();
    let before = traces(directory.path());
    doctor(directory.path());
    assert_eq!(traces(directory.path()), before);
}

#[test]
fn a_kek_known_only_to_the_daemon_is_no_fault() {
    let directory = temp_dir();
    let kek = directory.path().join("elsewhere");
    let with_kek = |command: &str| keyhatch_with_kek(directory.path(), &kek, command);
    assert!(with_kek("init").output().unwrap().status.success());
    let serving = ServeProcess::spawn(directory.path(), with_kek("serve"));
    let served = doctor(directory.path());
    assert_eq!(served.level("KEK"), "ok");
    let detail = served.get("KEK")["detail"].as_str().unwrap();
    assert!(detail.contains("which the daemon has from a file"), "{detail}");
    assert!(!served.at("fail").iter().any(|what| what.contains("KEK")));
    assert!(serving.terminate());
    let stopped = doctor(directory.path());
    assert!(stopped.at("fail").iter().any(|what| ["KEK file", "keyring"].contains(what)));
}

#[test]
fn doctor_names_the_own_identity_of_a_remote_operator() {
    let directory = init_dir();
    let serving = ServeProcess::start(directory.path());
    let own = directory.path().join("op2");
    let add = ["operator", "add", "op2", "--role", "viewer", "--out", own.to_str().unwrap()];
    serving.must(&add);
    // Another user's home has no state directory.
    let config = directory.path().join("config.toml");
    let none = directory.path().join("none");
    std::fs::write(&config, format!("state = {:?}\n", none.to_str().unwrap())).unwrap();
    let look = || {
        let mut doctor = keyhatch(&["doctor", "-o", "json"]);
        doctor.env("KEYHATCH_DIR", &own).env("KEYHATCH_CONFIG", &config);
        Diagnosis::of(doctor)
    };
    let well = look();
    assert!(well.at("fail").is_empty());
    for what in ["KEYHATCH_DIR", "certificate", "broker"] {
        assert_eq!(well.level(what), "ok");
    }
    assert!(serving.terminate());
    let stopped = look();
    assert_eq!(stopped.at("fail"), ["broker"]);
    assert!(stopped.get("broker")["detail"].as_str().unwrap().contains("nobody listens"));
}

#[test]
fn in_a_step_the_doctor_looks_at_the_steps_directory() {
    let directory = init_dir();
    let serving = ServeProcess::start(directory.path());
    let run = |script: &str| {
        let names = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
        let mut command = keyhatch_in(directory.path(), &names);
        command.args(["sh", "-c", script]).env("PATH", path_with_binary());
        command
    };
    let well = Diagnosis::of(run("keyhatch doctor -o json"));
    assert!(well.at("fail").is_empty());
    for what in ["step's directory", "step's socket", "step's certificate", "broker"] {
        assert_eq!(well.level(what), "ok");
    }
    let step = well.get("broker")["detail"].as_str().unwrap();
    assert!(step.contains("/workflow/w/run/1/step/s"), "{step}");
    let mut killed = run("kill -9 $DAEMON; keyhatch doctor -o json");
    killed.env("DAEMON", serving.pid().as_raw_nonzero().to_string());
    let output = killed.output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = answer["findings"].as_array().unwrap().iter();
    let failed: Vec<_> = failed.filter(|finding| finding["level"] == "fail").collect();
    assert_eq!((failed.len(), &failed[0]["what"]), (1, &"broker".into()), "{answer:#}");
}

#[test]
fn doctor_names_a_configuration_that_serve_refuses() {
    let directory = init_dir();
    let file = directory.path().join("config.toml");
    let arguments = ["doctor", "-o", "json", "--config", file.to_str().unwrap()];
    std::fs::write(&file, "[limits]\nopen_steps = 0\n").unwrap();
    let diagnosis = Diagnosis::of(keyhatch_in(directory.path(), &arguments));
    let detail = diagnosis.get("configuration")["detail"].as_str().unwrap();
    assert!(detail.contains("open_steps must be at least 1"), "{detail}");
    std::fs::write(&file, "[limits]\nopen_steps = 100\n").unwrap();
    let diagnosis = Diagnosis::of(keyhatch_in(directory.path(), &arguments));
    assert_eq!(diagnosis.level("open files"), "ok");
}

/// The exit code, if the command ends by itself, and its output.
fn healthcheck(command: &mut Command) -> (Option<i32>, String) {
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    wait_until("the probe has ended", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_probe_ends_soon_with_one_line_whatever_the_daemon_does() {
    let directory = init_dir();
    let serving = ServeProcess::start(directory.path());
    let probe = || healthcheck(&mut keyhatch_in(directory.path(), &["healthcheck"]));
    assert_eq!(probe(), (Some(0), "serving\n".to_owned()));
    let state = directory.path().join("state");
    let mut executor = keyhatch_in(directory.path(), &["healthcheck"]);
    executor.env("KEYHATCH_DIR", state.join("executors/local"));
    assert_eq!(healthcheck(&mut executor).0, Some(0));
    // Without the operator's identity, the probe uses the executor's.
    std::fs::rename(state.join("operators/admin"), directory.path().join("admin")).unwrap();
    assert_eq!(probe().0, Some(0));
    kill_process(serving.pid(), Signal::STOP).unwrap();
    let (code, said) = probe();
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("error: NOT_SERVING: "), "{said}");
    let hanging = doctor(directory.path());
    assert_eq!(hanging.level("daemon"), "fail");
    kill_process(serving.pid(), Signal::CONT).unwrap();
    assert!(serving.terminate());
    let (code, said) = probe();
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
}
