//! `exec --follow`: a running command gets new versions of its credentials.

use std::fs::File;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::harness::{ServeProcess, Steps, connection, secret, wait_until};

fn keys(id: &str, secret: &str) -> String {
    connection("aws", "prod", &[("access_key_id", id), ("secret_access_key", secret)])
}

fn begin(world: &Steps, options: &[&str], script: &str) -> Child {
    let words = [&["exec"], options, &["--", "sh", "-c", script]].concat();
    let mut command = world.command("keyhatch", &words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn text(world: &Steps, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap_or_default()
}

/// Waits until a file has this text.
fn until(world: &Steps, name: &str, expected: &str) {
    wait_until(&format!("{name} is {expected:?}"), || text(world, name) == expected);
}

/// Ends a command by SIGTERM. Returns its exit code, stdout and stderr.
fn end(command: Child) -> (Option<i32>, String, String) {
    kill_process(Pid::from_child(&command), Signal::TERM).unwrap();
    ended(command)
}

fn ended(command: Child) -> (Option<i32>, String, String) {
    let ended = command.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn files_follow_a_rotation_and_the_command_gets_a_signal() {
    let world = Steps::seeded(&keys("AKIAEXAMPLE1", "first-secret"));
    let script = "chmod 640 i; exec 3< s; trap 'cat i s; cat i s >> seen' HUP; touch ready; \
                  until [ -e stop ]; do sleep 0.02; done; cat <&3; stat -c %a i s > modes";
    let options = [
        &["--follow", "HUP", "--file", "i=aws/prod:access_key_id"][..],
        &["--file", "s=aws/prod:secret_access_key"],
    ];
    let command = begin(&world, &options.concat(), script);
    wait_until("it is ready", || world.path("ready").exists());
    world.apply(&keys("AKIAEXAMPLE2", "second-secret"));
    until(&world, "seen", "AKIAEXAMPLE2second-secret");
    std::fs::write(world.path("stop"), "").unwrap();
    let (code, stdout, stderr) = ended(command);
    // A reader of the old file still has it whole, and the new value is masked.
    assert_eq!((code, stdout.as_str()), (Some(0), "AKIAEXAMPLE2******"), "{stderr}");
    assert_eq!(text(&world, "modes"), "640\n600\n");
    let said = "a new version: i is written anew, s is written anew, the command gets SIGHUP";
    assert!(stderr.contains(said), "{stderr}");
    let left = std::fs::read_dir(world.directory.path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        ["i", "s"].iter().any(|file| name == *file) || name.as_encoded_bytes().starts_with(b".key")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_failed_handover_of_an_identity_is_retried() {
    let world = Steps::seeded(&secret("token", "one"));
    // A foreign file beside it does not interfere.
    std::fs::create_dir(world.path(".t.keyhatch")).unwrap();
    let script = "echo $PPID > pid; touch ready; until [ -e stop ]; do sleep 0.02; done";
    let words = ["exec", "--follow", "--file", "t=secret:token", "--", "sh", "-c", script];
    let mut command = world.command("keyhatch", &words);
    let mut command = command.stderr(File::create(world.path("said")).unwrap()).spawn().unwrap();
    wait_until("it is ready", || world.path("ready").exists());
    world.apply(&secret("token", "two"));
    until(&world, "t", "two");
    // For a while no file can be opened, as on a full disk.
    let process = Pid::from_raw(text(&world, "pid").trim().parse().unwrap());
    let none = |now: Rlimit| Rlimit { current: Some(0), ..now };
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let before = prlimit(process, Resource::Nofile, none(limit)).unwrap();
    world.apply(&secret("token", "three"));
    wait_until("it has failed", || text(&world, "said").contains("is not handed on: FILE: "));
    assert_eq!(text(&world, "t"), "two");
    prlimit(process, Resource::Nofile, before).unwrap();
    until(&world, "t", "three");
    std::fs::write(world.path("stop"), "").unwrap();
    assert!(command.wait().unwrap().success());
    assert_eq!(text(&world, "said").matches("is not handed on").count(), 1);
}

#[test]
fn a_command_begins_again_with_new_variables() {
    let world = Steps::seeded(&secret("token", "first-token"));
    let script =
        "echo $T; cat f >> seen; trap 'echo . >> seen; exit 3' TERM; while :; do sleep 0.02; done";
    let options = ["--follow", "restart", "--env", "T=secret:token", "--file", "f=secret:token"];
    let command = begin(&world, &options, script);
    until(&world, "seen", "first-token");
    world.apply(&secret("token", "second-token"));
    until(&world, "seen", "first-token.\nsecond-token");
    // Ending keyhatch ends the command, without a restart.
    let (code, stdout, stderr) = end(command);
    assert_eq!((code, stdout.as_str()), (Some(3), "***\n***\n"), "{stderr}");
    assert_eq!(text(&world, "seen"), "first-token.\nsecond-token.\n");
    assert!(stderr.contains("variables are set anew, the command is started again"), "{stderr}");
    assert!(!world.path("f").exists());
}

#[test]
fn a_command_that_does_not_end_in_time_is_killed() {
    let world = Steps::seeded(&secret("token", "one"));
    let script = "trap '' TERM; echo $T >> seen; until [ -e stop ]; do sleep 0.02; done; exit 4";
    let options =
        ["--no-mask", "--follow", "restart", "--stop-timeout", "100ms", "--env", "T=secret:token"];
    let command = begin(&world, &options, script);
    until(&world, "seen", "one\n");
    world.apply(&secret("token", "two"));
    until(&world, "seen", "one\ntwo\n");
    std::fs::write(world.path("stop"), "").unwrap();
    assert_eq!(ended(command).0, Some(4));
}

#[test]
fn removed_variables_are_reported_and_can_be_kept() {
    let world = Steps::seeded(&[keys("AKIAEXAMPLE1", "one"), secret("token", "kept")].concat());
    let script = "touch ready; until [ -e stop ]; do sleep 0.02; done; exit 5";
    let options = [
        &[
            "--follow",
            "--file",
            "i=aws/prod:access_key_id",
            "--env",
            "S=aws/prod:secret_access_key",
        ][..],
        &["--file", "t=secret:token"],
    ];
    let command = begin(&world, &options.concat(), script);
    wait_until("it is ready", || world.path("ready").exists());
    let run = |arguments: &[&str]| assert!(world.serving.run(arguments).status.success());
    run(&["connection", "delete", "aws/prod", "--yes", "--force"]);
    // The remaining connection is still followed.
    world.apply(&secret("token", "new"));
    until(&world, "t", "new");
    assert_eq!(text(&world, "i"), "AKIAEXAMPLE1");
    // A restored connection is followed again.
    world.apply(&keys("AKIAEXAMPLE2", "two"));
    until(&world, "i", "AKIAEXAMPLE2");
    std::fs::write(world.path("stop"), "").unwrap();
    let (code, _, stderr) = ended(command);
    assert_eq!(code, Some(5));
    let said = "aws/prod is not followed now: CONNECTION_NOT_FOUND: ";
    assert!(
        stderr.contains(said) && stderr.contains("; the command keeps what it has"),
        "{stderr}"
    );
    assert!(stderr.contains("i is written anew, variables stay as they are"), "{stderr}");
}

#[test]
fn a_daemon_that_is_restarted_is_waited_for() {
    let world = Steps::seeded(&secret("token", "one"));
    let script = "touch ready; until [ -e stop ]; do sleep 0.02; done";
    let command = begin(&world, &["--follow", "--file", "t=secret:token"], script);
    wait_until("it is ready", || world.path("ready").exists());
    let Steps { directory, serving } = world;
    serving.kill();
    let serving = ServeProcess::start(directory.path());
    let world = Steps { directory, serving };
    world.apply(&secret("token", "two"));
    until(&world, "t", "two");
    std::fs::write(world.path("stop"), "").unwrap();
    let (code, _, stderr) = ended(command);
    assert!(code == Some(0) && stderr.contains("; waiting for another"), "{stderr}");
}

#[test]
fn a_file_that_the_command_replaced_stays() {
    let world = Steps::seeded(&[secret("token", "one"), secret("other", "one")].concat());
    let script = "rm t; echo mine > t; touch ready; until [ -e stop ]; do sleep 0.02; done";
    let options = ["--follow", "--file", "t=secret:token", "--file", "o=secret:other"];
    let command = begin(&world, &options, script);
    wait_until("it is ready", || world.path("ready").exists());
    world.apply(&[secret("token", "two"), secret("other", "two")].concat());
    until(&world, "o", "two");
    std::fs::write(world.path("stop"), "").unwrap();
    let (code, _, stderr) = ended(command);
    assert!(code == Some(0) && stderr.contains("t is not the file any more"), "{stderr}");
    assert_eq!(text(&world, "t"), "mine\n");
}

#[test]
fn follow_takes_more_than_one_connection_carries() {
    let names: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    let world = Steps::seeded(&names.iter().map(|name| secret(name, name)).collect::<String>());
    let lines: String = names.iter().map(|name| format!("V_{name}=secret:{name}\n")).collect();
    std::fs::write(world.path("refs.env"), lines).unwrap();
    let options = ["--no-mask", "--follow", "restart", "--env-file", "refs.env"];
    let command = begin(&world, &options, "echo $V_s0 $V_s23 $V_s24 $V_s49; exit 6");
    let (code, stdout, stderr) = ended(command);
    assert_eq!((code, stdout.as_str()), (Some(6), "s0 s23 s24 s49\n"), "{stderr}");
}

#[test]
fn following_what_cannot_change_is_refused() {
    let world = Steps::seeded(&secret("token", "one"));
    for (options, code, said) in [
        (&["--follow", "--env", "T=secret:token"][..], 125, "for --env write --follow restart"),
        (&["--follow", "HUP", "--env", "T=secret:token"], 125, "for --env write --follow restart"),
        (&["--follow", "restart", "--serve", "aws"], 125, "--follow is for --file"),
        (&["--follow", "KILL", "--file", "t=secret:token"], 2, "there are files, restart, HUP"),
        (&["--stop-timeout", "1s", "--file", "t=secret:token"], 2, "--follow"),
        (&["--follow", "--file", "t=secret:nothere"], 125, "SECRET_NOT_FOUND"),
    ] {
        let (found, _, stderr) = ended(begin(&world, options, "touch ran"));
        assert!(found == Some(code) && stderr.contains(said), "{options:?}: {stderr}");
    }
    assert!(!world.path("ran").exists() && !world.path("t").exists());
}
