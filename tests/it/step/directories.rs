//! The directory of a step: its owner and modes, and the limits of what the step can do with it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;

use crate::harness::{
    ServeProcess, TestBroker, identity_in, keyhatch, open_request, reason, temp_dir, text,
    wait_until,
};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_steps_directory_has_its_identity_modes_and_a_listener() {
    let broker = TestBroker::start();
    let step = broker.open("deploy", "build");
    let directory = Path::new(&step.opened.directory);
    assert_eq!(mode(directory), 0o700);
    assert_eq!(mode(directory.parent().unwrap()), 0o711);
    let expected = [
        ("ca.crt", 0o400),
        ("env", 0o400),
        ("keyhatch.sock", 0o600),
        ("tls.crt", 0o400),
        ("tls.key", 0o400),
    ];
    for (name, bits) in expected {
        assert_eq!(mode(&directory.join(name)), bits, "{name}");
    }
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), expected.len());
    assert_eq!(mode(&broker.config.runtime.join("admin.sock")), 0o600);
    assert_eq!(mode(&broker.config.state), 0o700);
    let env = std::fs::read_to_string(directory.join("env")).unwrap();
    assert!(env.contains(&format!("KEYHATCH_ADDR=unix://{}/keyhatch.sock\n", directory.display())));
    assert!(env.contains("KEYHATCH_AUTHORITY=localhost\n"));
}

#[test]
fn the_environment_speaks_of_the_mount_and_not_of_the_host() {
    let broker = TestBroker::start();
    let mounted = |path: &str| {
        let request = pb::OpenStepRequest { mount_path: path.to_owned(), ..open_request("w", "s") };
        broker.try_open(request).map(|opened| opened.env["KEYHATCH_ADDR"].clone())
    };
    assert_eq!(mounted("").unwrap(), "unix:///run/keyhatch/keyhatch.sock");
    assert_eq!(mounted("/creds/").unwrap(), "unix:///creds/keyhatch.sock");
    assert_eq!(reason(mounted("creds")), "MOUNT_PATH_INVALID");
}

/// A step of the daemon's user owns its directory and can plant any link. The broker must not follow it.
#[test]
fn symlinks_planted_in_a_steps_directory_lead_nowhere() {
    let mut broker = TestBroker::start();
    let request = pb::OpenStepRequest {
        ttl: Some(prost_types::Duration { seconds: 3 * 24 * 3600, nanos: 0 }),
        ..open_request("deploy", "build")
    };
    let step = broker.become_step(broker.try_open(request).unwrap());
    let directory = Path::new(&step.opened.directory).to_owned();
    let victims = broker.scratch().join("victims");
    std::fs::create_dir(&victims).unwrap();
    std::fs::write(victims.join("file"), "untouched").unwrap();
    std::fs::create_dir(victims.join("inner")).unwrap();
    std::fs::write(victims.join("inner/file"), "untouched").unwrap();
    let plant = |name: &str, target: &Path| {
        let _ = std::fs::remove_file(directory.join(name));
        symlink(target, directory.join(name)).unwrap();
    };
    plant("tls.crt", &victims.join("file"));
    plant("keyhatch.sock", &victims.join("file"));
    plant("more", &victims.join("inner"));
    let before = mode(&victims.join("file"));
    let untouched = |when: &str| {
        assert_eq!(std::fs::read_to_string(victims.join("file")).unwrap(), "untouched", "{when}");
        assert_eq!(
            std::fs::read_to_string(victims.join("inner/file")).unwrap(),
            "untouched",
            "{when}"
        );
        assert_eq!(mode(&victims.join("file")), before, "{when}");
    };

    broker.advance(16 * 3600);
    wait_until("the certificate is renewed", || !directory.join("tls.crt").is_symlink());
    untouched("renewal");
    assert!(broker.journaled("closed").is_empty());
    broker.restart();
    untouched("restart");
    assert!(!directory.join("keyhatch.sock").is_symlink());
    broker.resolve(&step, "aws/none").unwrap_err();
    broker.close(&step);
    untouched("close");
    assert!(!directory.exists());
}

#[test]
fn a_directory_replaced_by_a_symlink_is_not_followed() {
    let mut broker = TestBroker::start();
    let step = broker.open("deploy", "build");
    let directory = Path::new(&step.opened.directory).to_owned();
    let victims = broker.scratch().join("victims");
    std::fs::create_dir(&victims).unwrap();
    std::fs::write(victims.join("file"), "untouched").unwrap();
    broker.stop();
    std::fs::remove_dir_all(&directory).unwrap();
    symlink(&victims, &directory).unwrap();
    broker.serve();
    assert_eq!(broker.journaled("closed")[0]["reason"], "directory_gone");
    assert_eq!(std::fs::read_to_string(victims.join("file")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(&victims).unwrap().count(), 1);
}

#[test]
fn another_users_step_enters_a_directory_of_the_daemons() {
    let broker = TestBroker::start();
    let request = pb::OpenStepRequest { uid: Some(65_534), ..open_request("deploy", "build") };
    let opened = broker.try_open(request).unwrap();
    let directory = Path::new(&opened.directory);
    let us = rustix::process::geteuid().as_raw();
    let expected = [
        ("", 0o750),
        ("ca.crt", 0o440),
        ("env", 0o440),
        ("keyhatch.sock", 0o660),
        ("tls.crt", 0o440),
        ("tls.key", 0o440),
    ];
    for (name, bits) in expected {
        let path = directory.join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), us, "{name}");
        // The group's bits are the mask of the access control list.
        assert_eq!(mode(&path), bits, "{name}");
    }
    // The daemon's user can open the files, and is still refused at the socket.
    let identity = identity_in(directory);
    let connected = broker.connect(&directory.join("keyhatch.sock"), identity);
    assert!(connected.is_err());
}

/// The number of sockets on which a process listens.
fn listening(process: rustix::process::Pid) -> usize {
    let proc = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
    let table = std::fs::read_to_string(proc.join("net/unix")).unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    // Num RefCount Protocol Flags Type St Inode Path, and __SO_ACCEPTCON: proc_pid_net(5).
    let inodes: Vec<_> =
        rows.filter(|row| row[3] == "00010000").map(|row| format!("socket:[{}]", row[6])).collect();
    let open = std::fs::read_dir(proc.join("fd")).unwrap().flatten();
    let open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    open.filter(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())).count()
}

#[test]
fn steps_opened_and_closed_at_once_leave_nothing() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let identity = identity_in(&directory.path().join("state/executors/local"));
    let socket = directory.path().join("run/admin.sock");
    let executor = runtime.block_on(channel(&socket, identity)).unwrap();
    let client = || ExecutorServiceClient::new(executor.clone());
    let open = || runtime.block_on(client().open_step(open_request("deploy", "build"))).is_ok();
    let close = || {
        let mut request = pb::CloseStepRequest::default();
        (request.workflow, request.run, request.step) =
            ("deploy".to_owned(), "1".to_owned(), "build".to_owned());
        runtime.block_on(client().close_step(request)).unwrap().into_inner().closed
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).filter(|_| open()).count());
        scope.spawn(|| (0..100).filter(|_| open()).count());
        scope.spawn(|| (0..200).filter(|_| close()).count());
    });
    close();
    let steps = directory.path().join("run/steps");
    assert_eq!(std::fs::read_dir(steps).unwrap().count(), 0);
    // Only the admin socket is left.
    wait_until("the sockets are closed", || listening(serving.pid()) == 1);
}

#[test]
fn a_step_is_opened_once_and_another_attempt_must_be_higher() {
    let broker = TestBroker::start();
    let attempt = |attempt| {
        let request = pb::OpenStepRequest { attempt, ..open_request("deploy", "build") };
        broker.try_open(request).map(|opened| opened.attempt)
    };
    assert_eq!(attempt(None).unwrap(), 1);
    assert_eq!(reason(attempt(Some(1))), "STEP_EXISTS");
    assert_eq!(attempt(Some(5)).unwrap(), 5);
    assert_eq!(attempt(None).unwrap(), 6);
    assert_eq!(reason(attempt(Some(0))), "TARGET_INVALID");
    let directories = std::fs::read_dir(broker.config.runtime.join("steps")).unwrap();
    assert_eq!(directories.count(), 1);
}

#[test]
fn init_refuses_a_runtime_directory_that_serve_would() {
    let directory = temp_dir();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    for (name, bits) in [("open", 0o777), ("full", 0o700)] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(bits)).unwrap();
    }
    std::fs::write(at("full/theirs"), "").unwrap();
    let init = |runtime: &str| {
        let (state, runtime) = (at("state"), at(runtime));
        let options = ["--state", state.to_str().unwrap(), "--runtime", runtime.to_str().unwrap()];
        keyhatch(&[&["init"], &options[..]].concat()).output().unwrap()
    };
    for (runtime, said) in [
        (&*"x".repeat(80), "choose a shorter one with --runtime"),
        ("file", "file"),
        ("open", "open"),
        ("full", "holds theirs"),
    ] {
        let ran = init(runtime);
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{runtime}: {stderr}");
        assert!(stderr.contains(said) && !at("state").exists(), "{runtime}: {stderr}");
    }
    assert!(init("run").status.success());
}
