//! Logins at a real server.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyhatch::model::Clock;

use super::{World, login, printed, used};
use crate::harness::{
    Scanner, SshKey, Sshd, Steps, assert_says, connection, skipped, text, wait_until,
};

#[test]
fn a_user_logs_in_with_a_key_that_it_never_gets() {
    let Some(world) = World::start() else { return };
    assert_eq!(printed(&world.exec("deploy", &login("echo in"))), "in\n");
    let (code, refused) = world.steps.refusal(&["get", "ssh/deploy"]);
    assert_eq!(code, Some(1));
    assert_says(&refused, &["RESOLVE_DENIED"]);
    // The server has seen the key, and the journal has the login with the host before it.
    assert_says(&world.sshd.log(), &["Accepted publickey", &world.key.fingerprint()]);
    let lines = world.journal();
    let logins: Vec<_> = lines.iter().filter_map(|line| line.get("login")).collect();
    let expected = serde_json::json!({
        "user": Sshd::user(),
        "key": world.key.fingerprint(),
        "host_key": world.sshd.host_key.fingerprint(),
    });
    assert_eq!(logins, [&expected]);
    let told = world.steps.serving.must(&["run", "show", "1"]);
    assert_says(&told, &["nothing was received", "ssh/deploy", "its public key", "ssh as "]);
    assert_says(&told, &[&world.key.fingerprint(), &world.sshd.host_key.fingerprint()]);
}

#[test]
fn every_type_of_key_logs_in() {
    let steps = Steps::start();
    let types = ["ed25519", "ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa:2048", "rsa:4096"];
    let keys = types.map(|key_type| SshKey::make(steps.directory.path(), key_type));
    let Some(sshd) = Sshd::start(steps.directory.path(), &keys.each_ref()) else { return };
    let known_hosts = sshd.known_hosts();
    // Values may be written as the Base64 of the file, too.
    let encoded = STANDARD.encode(&known_hosts);
    for (number, key) in keys.iter().enumerate() {
        let known = [&known_hosts, &encoded][number % 2];
        steps.apply(&used(&format!("k{number}"), key, &[("known_hosts", known)]));
    }
    let key = SshKey {
        private: STANDARD.encode(&keys[0].private),
        ..SshKey::make(&steps.path("sshd"), "rsa:2048")
    };
    steps.apply(&used("k6", &key, &[("known_hosts", &known_hosts)]));
    let world = World { steps, sshd, key };
    for number in 0..=types.len() {
        let ran = world.exec(&format!("k{number}"), &login("echo in"));
        assert_eq!(printed(&ran), "in\n", "{number}");
    }
    // Older clients ask for the other hash.
    let older =
        login("echo in").replace("ssh -F", "ssh -o PubkeyAcceptedAlgorithms=rsa-sha2-256 -F");
    assert_eq!(printed(&world.exec("k4", &older)), "in\n");
    let sha1 = login("echo in").replace("ssh -F", "ssh -o PubkeyAcceptedAlgorithms=ssh-rsa -F");
    assert!(!world.exec("k4", &sha1).status.success());
}

#[test]
fn git_works_over_ssh_without_a_key() {
    let Some(world) = World::start() else { return };
    let made = "git init -q --bare repository.git && git clone -q repository.git work 2>/dev/null && cd work \
                && git -c user.name=n -c user.email=e commit -q --allow-empty -m first && git push -q origin HEAD:main";
    let isolated = |command: &mut std::process::Command| {
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command.current_dir(world.steps.directory.path());
    };
    let mut make = std::process::Command::new("sh");
    isolated(make.args(["-ec", made]));
    assert!(make.status().unwrap().success());
    let script = format!(
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null; \
         git clone -q -b main ssh://127.0.0.1:$P{0}/repository.git clone && cd clone && git log --format=%s \
         && git -c user.name=n -c user.email=e commit -q --allow-empty -m second && git push -q origin HEAD:main \
         && git -C ../repository.git log --format=%s main",
        world.steps.directory.path().display()
    );
    assert_eq!(printed(&world.exec("deploy", &script)), "first\nsecond\nfirst\n");
}

#[test]
fn another_user_or_host_gets_no_signature() {
    let Some(world) = World::start() else { return };
    // The server would accept the key for its own user. The connection is for another.
    let known_hosts = world.sshd.known_hosts();
    world.steps.apply(&used("git", &world.key, &[("known_hosts", &known_hosts), ("user", "git")]));
    let own_user = format!("ssh -l {} -F", Sshd::user());
    let refused = world.exec("git", &login("true").replace("ssh -F", &own_user));
    assert!(!refused.status.success());
    assert_says(&text(&refused.stderr), &["SSH_USER_MISMATCH", "Permission denied"]);
    // The command may tell ssh to accept any host. The broker does not.
    let elsewhere = SshKey::make(&world.steps.path("sshd"), "ecdsa:256");
    let known_hosts = format!("elsewhere.example {}\n", elsewhere.public);
    world.steps.apply(&used("elsewhere", &world.key, &[("known_hosts", &known_hosts)]));
    let careless = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -F";
    let refused = world.exec("elsewhere", &login("true").replace("ssh -F", careless));
    assert!(!refused.status.success());
    assert_says(&text(&refused.stderr), &["SSH_HOST_UNKNOWN", "Permission denied"]);
    // ssh itself refuses the host before it logs in.
    let refused = world.exec("elsewhere", &login("true"));
    assert_says(&text(&refused.stderr), &["Host key verification failed"]);
    // A key that is revoked is no known key.
    let revoked =
        format!("{}@revoked * {}\n", world.sshd.known_hosts(), world.sshd.host_key.public);
    world.steps.apply(&used("revoked", &world.key, &[("known_hosts", &revoked)]));
    let refused = world.exec("revoked", &login("true").replace("ssh -F", careless));
    assert_says(&text(&refused.stderr), &["SSH_HOST_UNKNOWN"]);
    let lines = world.journal();
    let reasons: Vec<_> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["SSH_USER_MISMATCH", "SSH_HOST_UNKNOWN", "SSH_HOST_UNKNOWN"]);
}

/// The bytes of a private key that are secret: in OpenSSH's format they are near the end.
fn secret_part(key: &SshKey) -> Vec<u8> {
    let lines: String = key.private.lines().filter(|line| !line.starts_with('-')).collect();
    let file = STANDARD.decode(lines).unwrap();
    // The public key is twice in the file, and the seed is between its last two copies.
    let line = key.public.split(' ').nth(1).unwrap();
    let public = STANDARD.decode(line).unwrap();
    let public = &public[public.len() - 32..];
    let last = (0..file.len() - 32).rev().find(|at| file[*at..].starts_with(public)).unwrap();
    file[last - 32..last].to_vec()
}

#[test]
fn the_memory_of_the_step_holds_no_private_key() {
    if !rustix::process::geteuid().is_root() {
        return skipped("a search through the memory of steps", "needs root");
    }
    let Some(world) = World::start() else { return };
    let scanner = Scanner::new(&[secret_part(&world.key)]);
    let wait = "touch ready; until [ -e go ]; do sleep 0.02; done";
    let script = format!(
        "ssh-add -l && {}",
        login(&format!("cd {} && {wait}", world.steps.directory.path().display()))
    );
    let search = |arguments: &[&str]| {
        let mut command = world.steps.command("keyhatch", arguments);
        command.env("P", world.sshd.port.to_string()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        wait_until("the step is busy", || world.steps.path("ready").exists());
        let found = scanner.scan_tree(child.id());
        std::fs::write(world.steps.path("go"), "").unwrap();
        assert!(child.wait().unwrap().success());
        std::fs::remove_file(world.steps.path("ready")).unwrap();
        std::fs::remove_file(world.steps.path("go")).unwrap();
        found
    };
    let (found, processes) =
        search(&["exec", "--serve", "ssh=ssh/deploy", "--", "sh", "-c", &script]);
    assert!(processes >= 4, "step run, exec, sh and ssh: {processes}");
    assert_eq!(found.copies, 0, "{found:?}");
    // The search finds the key where it is: in a step that may resolve it.
    world.steps.apply(&used("open", &world.key, &[]).replace("{user:", "{resolver:"));
    let (found, _) = search(&["exec", "--env", "K=ssh/open:private_key", "--", "sh", "-c", wait]);
    assert!(found.copies > 0);
    // Nor do files, logs and the journal have it.
    let line = world.key.private.lines().nth(3).unwrap();
    let mut grep = std::process::Command::new("grep");
    grep.args(["-rlF", line]).args(["state", "run", "log"].map(|name| world.steps.path(name)));
    assert_eq!(text(&grep.output().unwrap().stdout), "");
}

#[test]
fn who_only_logs_in_is_advised_to_be_a_user() {
    let Some(world) = World::start() else { return };
    let (hosts, user) = (world.sshd.known_hosts(), Sshd::user());
    let fields = [("private_key", &*world.key.private), ("known_hosts", &*hosts), ("user", &*user)];
    world.steps.apply(&connection("ssh", "full", &fields));
    // A connection of this period is too new for advice.
    let since = Clock::system().now().to_string();
    printed(&world.exec("full", &login("true")));
    let must = |words: &[&str]| world.steps.serving.must(words);
    let suggest = ["access", "suggest", "w", "--since", &since];
    let told = must(&suggest);
    let change = |verb, relation| {
        format!("keyhatch access {verb} ssh/full --relation {relation} --principal workflow:w")
    };
    let (add, remove) = (change("add", "user"), change("remove", "resolver"));
    assert!(told.contains("lower: no step received it"), "{told}");
    assert!(told.contains(&format!("\n{add}\n{remove}\n")), "{told}");
    for command in [&add, &remove] {
        must(&command.split(' ').skip(1).collect::<Vec<_>>());
    }
    assert!(!must(&suggest).contains("ssh/full"));
    // The login works as before, and the key is for nobody.
    printed(&world.exec("full", &login("true")));
    world.steps.refusal(&["get", "ssh/full"]);
    let told = must(&suggest);
    assert!(told.contains("raise: a step was refused its values"), "{told}");
}
