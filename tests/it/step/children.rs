//! Commands under `exec` and `step run` behave as without them: signals, orphans and their start.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use crate::harness::{Steps, path_with_binary, secret, skipped, text, wait_until};

fn world() -> Steps {
    Steps::seeded(&secret("token", "hush-hush-hush"))
}

fn write_script(world: &Steps, name: &str, script: &str) {
    std::fs::write(world.path(name), script).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path(name), executable).unwrap();
}

/// Runs a bash script as a step on its own terminal. `None` if there is no script(1).
fn on_terminal(world: &Steps, script: &str) -> Option<Output> {
    write_script(world, "on-terminal", script);
    let ran = world.command("script", &["-qec", "bash -m on-terminal", "/dev/null"]).output();
    ran.ok().filter(|ran| ran.status.code() != Some(127))
}

#[test]
fn every_signal_that_can_be_passed_on_reaches_the_command() {
    let world = world();
    let signals = "HUP TRAP ABRT USR1 USR2 PIPE ALRM TERM STKFLT CONT TSTP TTIN TTOU URG XCPU XFSZ VTALRM \
                   PROF WINCH IO PWR SYS RTMIN RTMIN+3 RTMAX";
    let inner = format!(
        "for s in {signals}; do trap \"echo $s >> got\" $s; done; touch ready; until [ -e done ]; do sleep 0.01; done"
    );
    write_script(&world, "inner", &inner);
    let outer = format!(
        "keyhatch exec --file f=secret:token -- bash inner & \
         until [ -e ready ]; do sleep 0.01; done; \
         for s in {signals}; do kill -$s $!; for i in $(seq 300); do grep -qsx -- $s got && break; sleep 0.01; done; done; \
         touch done; wait $!; echo $?"
    );
    let ran = world.run("bash", &["-c", &outer]);
    let got = std::fs::read_to_string(world.path("got")).unwrap();
    let sent: Vec<_> = signals.split_whitespace().collect();
    assert_eq!(got.lines().collect::<Vec<_>>(), sent, "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout), "0\n");
    assert!(!world.path("f").exists());
}

#[test]
fn a_signal_to_exec_alone_comes_once_on_a_terminal_too() {
    let world = world();
    write_script(
        &world,
        "inner",
        "trap 'echo INT >> got' INT; touch ready; until [ -e done ]; do sleep 0.01; done",
    );
    let script = "keyhatch exec --mask --env T=secret:token -- sh inner & \
                  (until [ -e ready ]; do sleep 0.01; done; kill -INT $!; \
                   for i in $(seq 300); do [ -e got ] && break; sleep 0.01; done; touch done) & \
                  fg 1 > /dev/null";
    if on_terminal(&world, script).is_none() {
        return skipped("on a terminal", "there is no script(1)");
    }
    assert_eq!(std::fs::read_to_string(world.path("got")).unwrap(), "INT\n");
}

#[test]
fn a_command_that_stops_gives_the_terminal_back_and_goes_on() {
    let world = world();
    let script = "keyhatch exec --mask --env T=secret:token -- sh -c 'trap \"echo CONT >> got\" CONT; kill -TSTP $$; echo on'\n\
                  echo stopped $?\nfg > /dev/null\necho ended $?\n";
    let Some(ran) = on_terminal(&world, script) else {
        return skipped("on a terminal", "there is no script(1)");
    };
    let printed = text(&ran.stdout).replace('\r', "");
    let stopped = printed.find("stopped 147").unwrap_or_else(|| panic!("{printed}"));
    let ended = printed.find("on\nended 0").unwrap_or_else(|| panic!("{printed}"));
    assert!(stopped < ended, "{printed}");
    assert_eq!(std::fs::read_to_string(world.path("got")).unwrap(), "CONT\n");
}

#[test]
fn orphans_are_reaped_where_this_program_is_process_1() {
    let world = world();
    let alone = ["--pid", "--fork", "--mount-proc"];
    if !Command::new("unshare").args(alone).arg("true").status().is_ok_and(|ran| ran.success()) {
        return skipped("as process 1", "unshare --pid needs root");
    }
    // An orphan becomes a child of process 1. It is reaped when it is gone from /proc.
    write_script(
        &world,
        "orphans",
        "for n in 1 2 3; do sh -c 'sleep 60 & echo $! >> orphans.pids'; done\n\
         kill $(cat orphans.pids)\n\
         for i in $(seq 300); do\n\
           left=; for pid in $(cat orphans.pids); do [ -e /proc/$pid ] && left=$pid; done\n\
           [ -z \"$left\" ] && echo none && exit; sleep 0.01\n\
         done; echo left $left",
    );
    let unshared = |arguments: &[&str]| {
        let _ = std::fs::remove_file(world.path("orphans.pids"));
        let all = [&alone[..], &["keyhatch"], arguments, &["--", "sh", "orphans"]].concat();
        text(&world.run("unshare", &all).stdout)
    };
    for options in [&["--env", "T=secret:token"][..], &["--no-mask", "--file", "f=secret:token"]] {
        assert_eq!(unshared(&[&["exec"], options].concat()), "none\n", "{options:?}");
    }
    let state = [("KEYHATCH_STATE", "state"), ("KEYHATCH_RUNTIME", "run")];
    let names = ["step", "run", "--workflow", "w", "--run", "2", "--step", "s"];
    let all = [&alone[..], &["keyhatch"], &names, &["--", "sh", "orphans"]].concat();
    let _ = std::fs::remove_file(world.path("orphans.pids"));
    let ran = Command::new("unshare")
        .args(all)
        .envs(state.map(|(name, folder)| (name, world.path(folder))))
        .env("PATH", path_with_binary())
        .current_dir(world.directory.path())
        .output()
        .unwrap();
    assert_eq!(text(&ran.stdout), "none\n", "{}", text(&ran.stderr));
}

#[test]
fn the_same_command_starts_the_same_way_masked_or_not() {
    let world = world();
    write_script(&world, "bare", "echo ran \"$@\"\n");
    let path =
        format!("{}:/nowhere:{}", world.directory.path().display(), std::env::var("PATH").unwrap());
    for mask in ["--mask", "--no-mask"] {
        for program in ["./bare", "bare"] {
            let arguments = ["exec", mask, "--env", "T=secret:token", "--", program, "a b", "c"];
            let ran = world.command("keyhatch", &arguments).env("PATH", &path).output().unwrap();
            assert_eq!(text(&ran.stdout), "ran a b c\n", "{mask} {program}: {}", text(&ran.stderr));
        }
        let code = |program: &str| {
            let arguments = ["exec", mask, "--env", "T=secret:token", "--", program];
            world.run("keyhatch", &arguments).status.code()
        };
        assert_eq!([code("."), code("./nothing"), code("nothing")], [126, 127, 127].map(Some));
    }
    assert_eq!(text(&world.run("./bare", &["a"]).stdout), "ran a\n");
}

#[test]
fn a_file_that_a_killed_run_has_left_is_recognised() {
    let world = world();
    let killed = "setsid keyhatch exec --file f=secret:token -- sh -c 'touch ready; until [ -e done ]; do sleep 0.01; done' & \
                  until [ -e ready ]; do sleep 0.01; done; kill -KILL $!; touch done";
    world.run("sh", &["-c", killed]);
    wait_until("the file is left", || world.path("f").exists());
    let again = ["exec", "--file", "f=secret:token", "--", "true"];
    let (code, said) = world.refusal(&again);
    assert!(code == Some(125) && said.contains("a run that was killed"), "{said}");
    std::fs::remove_file(world.path("f")).unwrap();
    assert_eq!(world.text(&again), "");
    // Other users' files are not replaced.
    std::fs::write(world.path("f"), "theirs").unwrap();
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("f"), readable).unwrap();
    let (_, said) = world.refusal(&again);
    assert!(said.contains("choose another name") && !said.contains("killed"), "{said}");
}
