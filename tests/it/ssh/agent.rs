//! The agent that a command is served.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

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
    assert_eq!(modes, "600\n700\n600\n");
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
