//! Steps whose socket cannot be made, and the clients that may connect to a socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use keyhatch::daemon::init;
use keyhatch::grpc::pb;

use crate::harness::{
    SmallFilesystem, TestBroker, copy_binary, identity_in, init_options, open_request, reason,
    skipped, succeeded, temp_dir,
};

const NOBODY: u32 = 65_534;
/// `sun_path` of unix(7), without its end.
const LONGEST_SOCKET_PATH: usize = 107;

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_step_without_room_for_its_socket_is_refused_whole() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:*"]);
    broker.stop();
    let runtime = broker.scratch().join("small");
    // Each step takes a directory, a socket and four files.
    let Some(_mounted) = SmallFilesystem::mount(&runtime, "size=1m,nr_inodes=40,mode=0755") else {
        skipped("a file system without room", "needs the right to mount");
        return;
    };
    broker.config.runtime = runtime.clone();
    broker.serve();
    let mut open = Vec::new();
    let refused = loop {
        match broker.try_open(open_request("w", &format!("s{}", open.len()))) {
            Ok(opened) => open.push(broker.become_step(opened)),
            Err(status) => break status,
        }
        assert!(open.len() < 10);
    };
    assert!(open.len() > 2, "{refused}");
    let text = refused.message().to_owned();
    assert_eq!(reason::<()>(Err(refused)), "DIRECTORY_UNAVAILABLE");
    assert!(text.contains("No space left") && text.contains("/small"), "{text}");
    assert_eq!(entries(&runtime.join("steps")), open.len());
    assert_eq!(entries(&runtime.join("stage")), 0);
    for step in &open {
        broker.resolve(step, "aws/prod").unwrap();
    }
    broker.close(&open.remove(0));
    crate::harness::wait_until("the room is given back", || {
        broker.try_open(open_request("w", "again")).is_ok()
    });
    assert_eq!(entries(&runtime.join("steps")), open.len() + 1);
    // A restart without room keeps the open steps.
    broker.restart();
    for step in &open {
        broker.resolve(step, "aws/prod").unwrap();
    }
    broker.stop();
}

#[test]
fn without_the_steps_directory_no_step_is_opened() {
    let mut broker = TestBroker::start();
    let steps = broker.config.runtime.join("steps");
    let lost = broker.open("w", "lost");
    std::fs::remove_dir_all(&steps).unwrap();
    let refused = broker.try_open(open_request("w", "s"));
    assert_eq!(reason(refused), "DIRECTORY_UNAVAILABLE");
    assert!(broker.close(&lost).closed);
    broker.restart();
    broker.open("w", "s");
    assert_eq!(entries(&steps), 1);
}

#[test]
fn a_runtime_directory_may_be_as_long_as_socket_paths_allow() {
    let mut broker = TestBroker::start();
    broker.create_aws("prod", "s", &["workflow:*"]);
    let sample = broker.open("w", "s").opened.directory;
    let after = sample.len() - broker.config.runtime.as_os_str().len() + "/keyhatch.sock".len();
    broker.stop();
    let longest = LONGEST_SOCKET_PATH - after;
    let padding = longest - broker.scratch().as_os_str().len() - 1;
    broker.config.runtime = broker.scratch().join("r".repeat(padding + 1));
    let refused = broker.try_serve().err().unwrap().to_string();
    assert!(refused.contains("108 bytes") && refused.contains("--runtime"), "{refused}");
    broker.config.runtime = broker.scratch().join("r".repeat(padding));
    broker.serve();
    let step = broker.open("w", "t");
    broker.resolve(&step, "aws/prod").unwrap();
    // init checks the length before it makes a broker.
    let mut config = broker.config.clone();
    config.state = broker.scratch().join("other");
    config.runtime = broker.scratch().join("r".repeat(padding + 1));
    let refused = init(&init_options(&config, &broker.clock)).err().unwrap().to_string();
    assert!(refused.contains("108 bytes") && refused.contains("--runtime"), "{refused}");
    assert!(!config.state.exists());
}

/// Even if file modes admit another user, the socket asks the kernel for the peer's user.
#[test]
fn another_users_process_is_refused_unless_any_user_may() {
    if !rustix::process::geteuid().is_root() {
        skipped("a child of another user", "needs root");
        return;
    }
    let broker = TestBroker::start();
    let binary = broker.scratch().join("keyhatch");
    copy_binary(&binary);
    let let_in = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let_in(broker.scratch(), 0o755);
    let_in(&binary, 0o755);
    let who = |opened: &pb::OpenedStep, uid: u32| {
        let directory = Path::new(&opened.directory);
        let_in(directory, 0o755);
        for name in ["ca.crt", "tls.crt", "tls.key", "env", "keyhatch.sock"] {
            let_in(&directory.join(name), 0o666);
        }
        let mut command = Command::new(&binary);
        command.arg("whoami").env_clear().env("KEYHATCH_DIR", directory).uid(uid).gid(uid);
        command.output().unwrap()
    };
    let own = broker.try_open(open_request("w", "own")).unwrap();
    assert!(who(&own, 0).status.success());
    let text = String::from_utf8(who(&own, NOBODY).stderr).unwrap();
    assert!(text.contains("UNREACHABLE"), "{text}");
    let mut request = open_request("w", "anybody");
    (request.any_uid, request.mount_path) = (true, String::new());
    let anybodys = broker.try_open(request).unwrap();
    let_in(Path::new(&anybodys.directory).parent().unwrap(), 0o755);
    assert!(who(&anybodys, NOBODY).status.success());
    // On the admin socket only root and the daemon's user may use a local executor's certificate.
    let socket = broker.config.runtime.join("admin.sock");
    let_in(&socket, 0o666);
    let stolen = broker.scratch().join("stolen");
    std::fs::create_dir(&stolen).unwrap();
    let_in(&stolen, 0o755);
    for name in ["ca.crt", "tls.crt", "tls.key", "env"] {
        let from = broker.config.state.join("executors/local").join(name);
        std::fs::copy(from, stolen.join(name)).unwrap();
        let_in(&stolen.join(name), 0o644);
    }
    let list = |uid| {
        let mut command = Command::new(&binary);
        command.args(["step", "list"]).env_clear().env("KEYHATCH_DIR", &stolen).uid(uid).gid(uid);
        command.output().unwrap()
    };
    assert!(list(0).status.success());
    let text = String::from_utf8(list(NOBODY).stderr).unwrap();
    assert!(text.contains("SVID_INVALID"), "{text}");
    assert!(broker.connect(&socket, identity_in(&stolen)).is_ok());
}

/// Kubernetes with fsGroup: volumes and a mounted secret belong to root and the group.
#[test]
fn in_a_pod_everything_is_made_below_its_volumes() {
    const USER: u32 = 10_001;
    if !rustix::process::geteuid().is_root() {
        skipped("a daemon of another user", "needs root");
        return;
    }
    let pod = temp_dir();
    let binary = pod.path().join("keyhatch");
    copy_binary(&binary);
    let set = |path: &Path, owner, mode| {
        std::os::unix::fs::chown(path, Some(owner), Some(USER)).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    set(pod.path(), 0, 0o755);
    set(&binary, 0, 0o755);
    let (data, sockets, kek) =
        (pod.path().join("data"), pod.path().join("sockets"), pod.path().join("kek"));
    for (volume, mode) in [(&data, 0o2775), (&sockets, 0o2777)] {
        std::fs::create_dir(volume).unwrap();
        set(volume, 0, mode);
    }
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).env_clear().uid(USER).gid(USER);
        command.env("KEYHATCH_STATE", data.join("state"));
        command.env("KEYHATCH_RUNTIME", sockets.join("keyhatch"));
        command.env("KEYHATCH_SHARED_PARENT", std::env::join_paths([&data, &sockets]).unwrap());
        command
    };
    assert!(as_user(&["init"]).output().unwrap().status.success());
    std::fs::rename(data.join("state/kek"), &kek).unwrap();
    let serve = ["serve", "--kek-file", kek.to_str().unwrap()];
    for (owner, mode) in [(0, 0o444), (USER, 0o440), (0, 0o460)] {
        set(&kek, owner, mode);
        let refused = String::from_utf8(as_user(&serve).output().unwrap().stderr).unwrap();
        assert!(refused.contains("others can read it"), "{mode:o} {refused}");
    }
    set(&kek, 0, 0o440);
    let mut serving = as_user(&serve).spawn().unwrap();
    crate::harness::wait_until("the daemon is ready", || {
        as_user(&["status"]).output().unwrap().status.success()
    });
    let names = "step run --workflow w --run 1 --step s --".split(' ');
    let mut step = as_user(&names.collect::<Vec<_>>());
    step.arg(&binary).arg("whoami").env("KEYHATCH_DIR", data.join("state/executors/local"));
    let ran = step.output();
    serving.kill().unwrap();
    serving.wait().unwrap();
    succeeded(&ran.unwrap());
}
