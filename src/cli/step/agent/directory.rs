//! The directory of an agent: its socket, and the configuration by which ssh uses it.
//!
//! ssh reads no variable for its configuration, so the command names the file: `ssh -F "$KEYHATCH_SSH_CONFIG"`. git is
//! told by `GIT_SSH_COMMAND`. The user's own configuration stays as it is, and counts for nothing there.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::private_file::write_private;

/// A directory for one user, which goes when this is dropped.
pub struct AgentDirectory {
    directory: TempDir,
}

impl AgentDirectory {
    /// Makes the directory with its files, and listens at its socket. `uid` is the user if that is another than this.
    pub fn make(
        user: &str,
        known_hosts: &[u8],
        uid: Option<u32>,
    ) -> Result<(Self, UnixListener), Failure> {
        let private = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix("keyhatch-ssh-").permissions(private).tempdir();
        let parent = std::env::temp_dir();
        let made = made.map_err(|error| unusable(&parent, &error.to_string()))?;
        let directory = Self { directory: made };
        let has_hosts = !known_hosts.is_empty();
        if has_hosts {
            write_private(&directory.path("known_hosts"), &crate::ssh::decoded(known_hosts))?;
        }
        let config = directory.config(user, has_hosts)?;
        write_private(&directory.path("config"), config.as_bytes())?;
        let socket = directory.path("agent.sock");
        let failed = |error: std::io::Error| unusable(&parent, &error.to_string());
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(failed)?;
        if let Some(uid) = uid {
            directory.give_to(uid, has_hosts)?;
        }
        Ok((directory, listener))
    }

    /// Gives everything to another user.
    fn give_to(&self, uid: u32, has_hosts: bool) -> Result<(), Failure> {
        let hosts = has_hosts.then_some("known_hosts");
        let files = hosts.into_iter().chain(["config", "agent.sock", ""]);
        for path in files.map(|name| self.path(name)) {
            chown(&path, Some(uid), None).map_err(|error| {
                let text = format!(
                    "the agent cannot be given to uid {uid} ({error}); only root gives files away"
                );
                Failure::new("FILE", text, exit::FAILED)
            })?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The variables of the command.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = |name: &str| self.path(name).to_string_lossy().into_owned();
        let config = text("config");
        let git = format!("ssh -F {}", shell_words::quote(&config));
        let variables = [
            ("SSH_AUTH_SOCK", text("agent.sock")),
            ("KEYHATCH_SSH_CONFIG", config),
            ("GIT_SSH_COMMAND", git),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A configuration of ssh: ssh_config(5). Only the agent's key is offered. With known hosts, no other host is accepted
    /// and none is learned.
    fn config(&self, user: &str, has_hosts: bool) -> Result<String, Failure> {
        let quoted = |name: &str| self.quoted(name);
        let mut lines = vec![
            "# Written by keyhatch exec, for its command.".to_owned(),
            format!("IdentityAgent {}", quoted("agent.sock")?),
            "IdentityFile none".to_owned(),
        ];
        if has_hosts {
            lines.push(format!("UserKnownHostsFile {}", quoted("known_hosts")?));
            lines.extend(
                ["GlobalKnownHostsFile none", "StrictHostKeyChecking yes", "UpdateHostKeys no"]
                    .map(ToOwned::to_owned),
            );
        }
        if !user.is_empty() {
            lines.push(format!("User {}", word(user)?));
        }
        lines.push(String::new());
        Ok(lines.join("\n"))
    }

    /// A path in quotes. ssh would expand some characters in it.
    fn quoted(&self, name: &str) -> Result<String, Failure> {
        let path = self.path(name);
        let is_plain = |text: &&str| !text.contains(['"', '\\', '%', '$', '\n', '\r', '~']);
        let text = path.to_str().filter(is_plain).ok_or_else(|| {
            let text = "its path has characters that ssh would read in another way";
            unusable(&std::env::temp_dir(), text)
        })?;
        Ok(format!("\"{text}\""))
    }
}

/// A user as one word: an editor of the connection must add no line to the configuration.
fn word(user: &str) -> Result<&str, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+@".contains(c);
    match user.chars().all(is_plain) && !user.starts_with('-') {
        true => Ok(user),
        false => {
            let text = "the connection's user has characters that are in no name of a user; an operator changes it";
            Err(Failure::new("VALUE_UNFIT", text, exit::FAILED))
        }
    }
}

fn unusable(directory: &Path, why: &str) -> Failure {
    let text = format!(
        "nothing can be served in {} ({why}); set TMPDIR to a short path of a directory that you may write to",
        directory.display()
    );
    Failure::new("ADDRESS", text, exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_adds_no_line_to_the_configuration() {
        let made = |user: &str| AgentDirectory::make(user, b"", None);
        for bad in ["a b", "a\nProxyCommand x", "-oProxyCommand=x", "a\"", "%u", "é"] {
            assert!(made(bad).is_err(), "{bad}");
        }
        let (directory, _) = made("deploy-1@x").ok().unwrap();
        let config = std::fs::read_to_string(directory.path("config")).unwrap();
        assert!(config.ends_with("IdentityFile none\nUser deploy-1@x\n"), "{config}");
        let modes = ["", "config", "agent.sock"].map(|name| {
            std::fs::metadata(directory.path(name)).unwrap().permissions().mode() & 0o777
        });
        assert_eq!(modes, [0o700, 0o600, 0o600]);
    }
}
