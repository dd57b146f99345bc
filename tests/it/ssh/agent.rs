//! The agent that a command is served.

use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{World, login, printed};
use crate::harness::{assert_says, copy_binary, skipped, text, wait_until};

#[test]
fn the_agent_lists_its_key_and_can_be_changed_by_nothing() {
    let Some(world) = World::start() else { return };
    let listed = printed(&world.exec("deploy", "ssh-add -l; ssh-add -L"));
    assert_says(&listed, &[&world.key.fingerprint(), "ssh/deploy (ED25519)"]);
    let key = world.key.public.split(' ').nth(1).unwrap();
    assert_says(&listed, &[key]);
    let own = world.key.path.display();
    for change in [
        format!("ssh-add -q {own}"),
        format!("ssh-add -q -t 60 {own}"),
        "ssh-add -q -D".to_owned(),
        format!("ssh-add -q -d {own}.pub"),
        "printf 'a\\na\\n' | SSH_ASKPASS_REQUIRE=never setsid -w ssh-add -x".to_owned(),
    ] {
        let ran = world.exec("deploy", &format!("{change}; echo $?; ssh-add -l"));
        let printed = printed(&ran);
        assert!(!printed.starts_with('0'), "{change}: {printed}{}", text(&ran.stderr));
        assert_says(&printed, &[&world.key.fingerprint()]);
    }
    // Afterwards there is no socket and no directory.
    let script = "dirname $SSH_AUTH_SOCK; stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK) $KEYHATCH_SSH_CONFIG";
    let told = printed(&world.exec("deploy", script));
    let (directory, modes) = told.split_once('\n').unwrap();
    assert_eq!(modes, "600\n700\n400\n");
    assert!(!std::path::Path::new(directory).exists());
}

#[test]
fn commits_and_files_are_not_signed() {
    let Some(world) = World::start() else { return };
    let sign =
        format!("echo x | ssh-keygen -q -Y sign -n file -f {}.pub", world.key.path.display());
    // The private key beside it would be used without the agent.
    std::fs::remove_file(&world.key.path).unwrap();
    let refused = world.exec("deploy", &sign);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert_says(&text(&refused.stderr), &["LOGIN_INVALID", "SSHSIG"]);
    let commit = format!(
        "git init -q r && cd r && git -c gpg.format=ssh -c user.signingkey={}.pub -c user.name=n -c user.email=e \
         commit -q -S --allow-empty -m x",
        world.key.path.display()
    );
    assert!(!world.exec("deploy", &commit).status.success());
    assert!(world.journal().iter().all(|line| line.get("login").is_none()));
}

#[test]
fn the_agent_of_a_closed_step_signs_nothing() {
    let Some(world) = World::start() else { return };
    let script = format!(
        "{} && touch ready; until [ -e go ]; do sleep 0.02; done; ssh-add -l; {}",
        login("echo in"),
        login("echo again")
    );
    let mut command = world
        .steps
        .command("keyhatch", &["exec", "--serve", "ssh=ssh/deploy", "--", "sh", "-c", &script]);
    command.env("P", world.sshd.port.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("the first login is over", || world.steps.path("ready").exists());
    world.steps.serving.must(&["run", "close", "1", "--workflow", "w"]);
    std::fs::write(world.steps.path("go"), "").unwrap();
    let ran = child.wait_with_output().unwrap();
    assert_eq!(text(&ran.stdout), "in\n");
    assert_says(&text(&ran.stderr), &["agent refused operation", "Permission denied"]);
}

#[test]
fn a_forwarded_agent_signs_nothing() {
    let Some(world) = World::start() else { return };
    let forward = login("ssh-add -l; true").replace("ssh -F", "ssh -A -F");
    let ran = world.exec("deploy", &format!("{forward} 2>&1; ssh-add -l"));
    let told = printed(&ran);
    assert_says(&told, &["agent refused operation"]);
    assert_eq!(told.matches(&world.key.fingerprint()).count(), 1, "{told}");
}

#[test]
fn the_agent_is_for_its_user_alone() {
    if !rustix::process::geteuid().is_root() {
        return skipped("an agent of another user", "needs root");
    }
    let Some(world) = World::start() else { return };
    let as_nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups ssh-add -l";
    let ran = world.exec("deploy", &format!("{as_nobody}; echo $?; ssh-add -l"));
    assert_says(&text(&ran.stderr), &["Error connecting to agent: Permission denied"]);
    // Even if the command opens the directory, the agent asks the kernel.
    let open = "chmod 755 $(dirname $SSH_AUTH_SOCK); chmod 666 $SSH_AUTH_SOCK";
    let ran = world.exec("deploy", &format!("{open}; {as_nobody} && echo listed; ssh-add -l"));
    assert_eq!(printed(&ran).matches("SHA256").count(), 1, "{}", text(&ran.stdout));
    assert!(!text(&ran.stdout).contains("listed"));
    // A command that becomes another user is served as that user.
    let program = world.steps.path("keyhatch");
    copy_binary(&program);
    std::fs::set_permissions(world.steps.directory.path(), PermissionsExt::from_mode(0o711))
        .unwrap();
    let script = format!("{as_nobody} && ! ssh-add -l 2>/dev/null");
    let arguments =
        ["exec", "--serve", "ssh=ssh/deploy", "--serve-uid", "65534", "--", "sh", "-c", &script];
    let ran = world.steps.run("keyhatch", &arguments);
    assert_says(&printed(&ran), &[&world.key.fingerprint()]);
}

/// Runs a script that is served the agent, with another directory for temporary files and this user.
fn exec_in(world: &World, directory: &Path, uid: &str, script: &str) -> Output {
    let serve = ["exec", "--serve", "ssh=ssh/deploy", "--serve-uid", uid, "--", "sh", "-c", script];
    let mut command = world.steps.command("keyhatch", &serve);
    command.env("TMPDIR", directory).env_remove("SSH_AUTH_SOCK").output().unwrap()
}

#[test]
fn no_agent_is_served_where_others_could_replace_it() {
    let Some(world) = World::start() else { return };
    let own = rustix::process::geteuid().as_raw().to_string();
    let shared = world.steps.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let set = |mode| std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
    let is_empty = || std::fs::read_dir(&shared).unwrap().next().is_none();
    set(0o777);
    let refused = exec_in(&world, &shared, &own, "touch ran");
    assert_says(&text(&refused.stderr), &["ADDRESS", "has mode 0777", "TMPDIR"]);
    assert!(!world.steps.path("ran").exists() && is_empty());
    // Where the sticky bit is set, everybody may replace only their own.
    set(0o1777);
    let ran = exec_in(&world, &shared, &own, "ssh-add -l");
    assert_says(&printed(&ran), &[&world.key.fingerprint()]);
    assert!(is_empty());
    let missing = exec_in(&world, &shared.join("missing"), &own, "touch ran");
    assert_says(&text(&missing.stderr), &["ADDRESS", "No such file"]);
    assert!(is_empty());
    if rustix::process::geteuid().is_root() {
        let link = world.steps.path("link");
        symlink(&shared, &link).unwrap();
        lchown(&link, Some(65534), None).unwrap();
        let refused = exec_in(&world, &link, &own, "touch ran");
        assert_says(&text(&refused.stderr), &["ADDRESS", "symbolic link of uid 65534"]);
    }
    assert!(!world.steps.path("ran").exists());
}

#[test]
fn the_user_of_an_agent_leads_its_owner_nowhere() {
    if !rustix::process::geteuid().is_root() {
        return skipped("an agent of another user", "needs root");
    }
    let Some(world) = World::start() else { return };
    let program = world.steps.path("keyhatch");
    copy_binary(&program);
    let [shared, victims] = ["shared", "victims"].map(|name| world.steps.path(name));
    for (directory, mode) in [(&shared, 0o1777), (&victims, 0o755)] {
        std::fs::create_dir(directory).unwrap();
        std::fs::set_permissions(directory, PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(world.steps.directory.path(), PermissionsExt::from_mode(0o711))
        .unwrap();
    for name in ["config", "known_hosts", "agent.sock"] {
        std::fs::write(victims.join(name), name).unwrap();
    }
    // The user tries to lead what is removed at the end to the files of somebody else.
    let hostile = format!(
        "d=$(dirname $SSH_AUTH_SOCK); ssh-add -l; mv $d $d.old; ln -sfn {0} $d; rm -f $d/config $d/agent.sock; \
         ln -s {0}/config $d/config; ln -s {0}/agent.sock $d/agent.sock; chmod 777 $d $d/config; true",
        victims.display()
    );
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh"];
    let script = format!("{} -c '{hostile}' 2>/dev/null", as_nobody.join(" "));
    let ran = exec_in(&world, &shared, "65534", &script);
    assert_says(&printed(&ran), &[&world.key.fingerprint()]);
    for name in ["config", "known_hosts", "agent.sock"] {
        assert_eq!(std::fs::read_to_string(victims.join(name)).unwrap(), name);
    }
    let left: Vec<_> = std::fs::read_dir(&shared).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn bad_messages_end_their_connection_and_nothing_else() {
    let Some(world) = World::start() else { return };
    let Ok(python) = Command::new("python3").arg("--version").output() else { return };
    assert!(python.status.success());
    let script = r#"
import os, socket, struct
def ask(data):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(os.environ["SSH_AUTH_SOCK"])
    s.sendall(data); s.shutdown(socket.SHUT_WR)
    got = b""
    while piece := s.recv(4096): got += piece
    return got.hex()
print(ask(struct.pack(">I", 2**31)))
print(ask(struct.pack(">I", 0)))
print(ask(struct.pack(">IB", 1, 200)))
print(ask(struct.pack(">IBI", 5, 13, 99)))
print(ask(struct.pack(">I", 100) + b"x"))
print(ask(b""))
print(len(ask(struct.pack(">IB", 1, 11))) > 60)
"#;
    std::fs::write(world.steps.path("ask.py"), script).unwrap();
    let told = printed(&world.exec("deploy", "python3 ask.py"));
    assert_eq!(told, "\n0000000105\n0000000105\n0000000105\n\n\nTrue\n");
}
