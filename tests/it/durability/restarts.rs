//! A daemon that restarts: who asks meanwhile waits for it, and a service manager hears when it is back.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{ServeProcess, Steps, connection, keyhatch_in, wait_until};

fn world() -> Steps {
    let login = [("username", "ops"), ("password", "hush-hush-hush")];
    Steps::seeded(&connection(
        "http",
        "api",
        &[&[("base_url", "https://a.example")][..], &login].concat(),
    ))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn piped(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a script gets as a step whose daemon was stopped before, and is started when the script has begun to ask.
fn asked_across_a_restart(script: &str) -> Output {
    let world = world();
    let script =
        format!("touch ready; until [ -e stopped ]; do sleep 0.02; done; touch asks; {script}");
    let step = piped(world.command("sh", &["-c", &script]));
    wait_until("the step runs", || world.path("ready").exists());
    let Steps { directory, serving } = world;
    assert!(serving.terminate());
    std::fs::write(directory.path().join("stopped"), "").unwrap();
    wait_until("the step asks", || directory.path().join("asks").exists());
    let _serving = ServeProcess::start(directory.path());
    step.wait_with_output().unwrap()
}

#[test]
fn a_step_waits_for_a_daemon_that_restarts() {
    for (ask, answer) in [
        ("keyhatch get http/api --field password", "hush-hush-hush"),
        (
            "keyhatch exec --mask never --env P=http/api:password -- sh -c 'echo $P'",
            "hush-hush-hush",
        ),
        (
            "printf 'protocol=https\nhost=a.example\n\n' | keyhatch helper git --answer a.example=http/api get",
            "hush-hush-hush",
        ),
        ("keyhatch get http/api --format env", "hush-hush-hush"),
        ("keyhatch whoami -o name", "/step/s"),
    ] {
        let asked = asked_across_a_restart(ask);
        assert!(asked.status.success(), "{ask}: {}", text(&asked.stderr));
        assert!(text(&asked.stdout).contains(answer), "{ask}: {}", text(&asked.stdout));
        // The end of the step was told, too.
        assert!(!text(&asked.stderr).contains("could not be closed"), "{}", text(&asked.stderr));
    }
}

#[test]
fn operators_and_executors_wait_for_a_daemon_too() {
    let Steps { directory, serving } = world();
    assert!(serving.terminate());
    let names = ["--workflow", "w", "--run", "1", "--step", "s"];
    let open = [&["step", "open"][..], &names].concat();
    let asking: Vec<_> = [&["connection", "list"][..], &["operator", "list"], &open]
        .iter()
        .map(|arguments| piped(keyhatch_in(directory.path(), arguments)))
        .collect();
    // A probe does not wait: it says how the daemon is.
    for probe in ["status", "healthcheck"] {
        assert!(!keyhatch_in(directory.path(), &[probe]).output().unwrap().status.success());
    }
    let serving = ServeProcess::start(directory.path());
    for asked in asking {
        let asked = asked.wait_with_output().unwrap();
        assert!(asked.status.success(), "{}", text(&asked.stderr));
    }
    assert!(serving.terminate());
}

#[test]
fn nobody_waits_longer_than_is_said_or_for_what_is_over() {
    let world = world();
    let script = "touch ready; until [ -e stopped ]; do sleep 0.02; done; \
                  keyhatch get http/api --timeout 300ms; echo $?; touch asks; \
                  timeout 100 keyhatch get http/api --timeout 99s; echo $?; \
                  timeout 100 keyhatch get http/api --timeout 99s; echo $?; touch told";
    let step = piped(world.command("sh", &["-c", script]));
    wait_until("the step runs", || world.path("ready").exists());
    let Steps { directory, serving } = world;
    serving.kill();
    std::fs::write(directory.path().join("stopped"), "").unwrap();
    wait_until("the step asks", || directory.path().join("asks").exists());
    let steps = std::fs::read_dir(directory.path().join("run/steps")).unwrap();
    for step in steps {
        std::fs::remove_file(step.unwrap().path().join("tls.key")).unwrap();
    }
    // There is no daemon that could tell them.
    wait_until("both are told", || directory.path().join("told").exists());
    let _serving = ServeProcess::start(directory.path());
    let ran = step.wait_with_output().unwrap();
    let told = text(&ran.stderr);
    assert_eq!(text(&ran.stdout), "3\n1\n1\n", "{told}");
    assert!(told.contains("Connection refused"), "{told}");
    assert_eq!(told.matches("error: STEP_NOT_OPEN: ").count(), 2, "{told}");
}

/// As systemd's Type=notify does, by a socket in the file system or by an abstract one.
#[test]
fn a_service_manager_is_told_when_the_daemon_serves() {
    let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
    assert!(keyhatch_in(directory.path(), &["init"]).output().unwrap().status.success());
    let path = directory.path().join("notify");
    let name = format!("keyhatch-test-{}", directory.path().display());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, variable) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ] {
        let mut serve = keyhatch_in(directory.path(), &["serve"]);
        let mut serving =
            serve.env("NOTIFY_SOCKET", variable).stderr(Stdio::null()).spawn().unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut told = [0; 64];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1");
        // A probe does not wait.
        let status = keyhatch_in(directory.path(), &["status"]).output().unwrap();
        assert!(status.status.success(), "{}", text(&status.stderr));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&serving),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(serving.wait().unwrap().success());
    }
}
