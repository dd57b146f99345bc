//! Steps log in by ssh with keys that they do not get. The clients are OpenSSH's and git, unmodified, and the server is
//! OpenSSH's.

mod agent;
mod decisions;
mod logins;
mod requests;

use std::process::Output;

use crate::harness::{SshKey, Sshd, Steps, connection, text};

/// A server, a broker, and the connection `ssh/deploy`, which steps of `w` may use and not resolve.
struct World {
    steps: Steps,
    sshd: Sshd,
    key: SshKey,
}

impl World {
    /// `None` if sshd is not installed.
    fn start() -> Option<Self> {
        let steps = Steps::start();
        let key = SshKey::make(steps.directory.path(), "ed25519");
        let sshd = Sshd::start(steps.directory.path(), &[&key])?;
        steps.apply(&used(
            "deploy",
            &key,
            &[("known_hosts", &sshd.known_hosts()), ("user", &Sshd::user())],
        ));
        Some(Self { steps, sshd, key })
    }

    /// Runs a script as the command of `exec --serve ssh=ssh/NAME`. `$P` is the server's port.
    fn exec(&self, name: &str, script: &str) -> Output {
        let serve = format!("ssh=ssh/{name}");
        let arguments = ["exec", "--serve", &serve, "--", "sh", "-c", script];
        let mut command = self.steps.command("keyhatch", &arguments);
        command.env("P", self.sshd.port.to_string());
        // The user's own agent and keys take no part.
        command.env_remove("SSH_AUTH_SOCK").output().unwrap()
    }

    /// The lines of the journal about signing.
    fn journal(&self) -> Vec<serde_json::Value> {
        let printed = self
            .steps
            .serving
            .must(&["journal", "tail", "-n", "1000", "--event", "sign", "-o", "json"]);
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a client signs to log in with some key.
pub fn a_login() -> Vec<u8> {
    let kind = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
    requests::login("git", &[&kind[..], &[3; 32]].concat())
}

/// A seed document of the connection `ssh/NAME`, which steps of `w` may use and not resolve.
fn used(name: &str, key: &SshKey, more: &[(&str, &str)]) -> String {
    let fields = [&[("private_key", key.private.as_str())], more].concat();
    connection("ssh", name, &fields).replace("{resolver:", "{user:")
}

/// A command line of ssh that logs in at the server and runs this there.
fn login(command: &str) -> String {
    format!("ssh -F \"$KEYHATCH_SSH_CONFIG\" -p \"$P\" 127.0.0.1 '{command}'")
}

#[track_caller]
fn printed(ran: &Output) -> String {
    assert!(ran.status.success(), "{}{}", text(&ran.stderr), text(&ran.stdout));
    text(&ran.stdout)
}
