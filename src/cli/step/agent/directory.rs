//! The directory of an agent: its socket, and the configuration by which ssh uses it.
//!
//! ssh reads no variable for its configuration, so the command names the file: `ssh -F "$KEYHATCH_SSH_CONFIG"`. git is
//! told by `GIT_SSH_COMMAND`. The user's own configuration stays as it is, and counts for nothing there.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::cli::io::failure::{Failure, exit};
use crate::model::limits::MAX_SOCKET_PATH_BYTES;
use crate::sys::{Directory, DirectoryError, Grantees, Permission, Trust};

const CONFIG: &str = "config";
const KNOWN_HOSTS: &str = "known_hosts";
const SOCKET: &str = "agent.sock";
/// The random part of the directory's name, in bytes.
const NAME_BYTES: usize = 8;

/// A directory for one user, which goes when this is dropped.
///
/// This process's user owns the directory and everything in it, and another user gets only the permissions that ssh needs. So
/// nobody else puts something in the place of a file, or of the directory.
pub struct AgentDirectory {
    directory: Directory,
}

impl AgentDirectory {
    /// Makes the directory with its files, and listens at its socket. `uid` is the user if that is another than this.
    pub fn make(
        user: &str,
        known_hosts: &[u8],
        uid: Option<u32>,
    ) -> Result<(Self, UnixListener), Failure> {
        let parent = std::env::temp_dir();
        let made = make_in(&parent).map_err(|error| unusable(&parent, &fault(&error)))?;
        let directory = Self { directory: made };
        let has_hosts = !known_hosts.is_empty();
        let config = directory.config(user, has_hosts)?;
        let hosts = has_hosts.then(|| crate::ssh::decoded(known_hosts));
        let files = [
            (CONFIG, Some(config.as_bytes())),
            (KNOWN_HOSTS, hosts.as_ref().map(|hosts| &***hosts)),
        ];
        let files = files.into_iter().filter_map(|(name, content)| Some((name, content?)));
        let listener = directory.fill(files, uid);
        let listener = listener.map_err(|error| unusable(&parent, &error.to_string()))?;
        Ok((directory, listener))
    }

    fn fill<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, &'a [u8])>,
        uid: Option<u32>,
    ) -> io::Result<UnixListener> {
        let grantees = match uid {
            Some(_) => Grantees::Named { uid, gid: None },
            None => Grantees::Nobody,
        };
        for (name, content) in files {
            self.directory.create(name, 0o600, content)?;
            self.directory.grant(name, Permission::Read, grantees)?;
        }
        if self.path(SOCKET).as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(io::Error::other("its path is longer than that of a socket may be"));
        }
        let listener = self.directory.bind(SOCKET)?;
        self.directory.grant(SOCKET, Permission::Connect, grantees)?;
        self.directory.grant(".", Permission::Enter, grantees)?;
        UnixListener::from_std(listener)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The variables of the command.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = |name: &str| self.path(name).to_string_lossy().into_owned();
        let config = text(CONFIG);
        let git = format!("ssh -F {}", shell_words::quote(&config));
        let variables = [
            ("SSH_AUTH_SOCK", text(SOCKET)),
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
            format!("IdentityAgent {}", quoted(SOCKET)?),
            "IdentityFile none".to_owned(),
        ];
        if has_hosts {
            lines.push(format!("UserKnownHostsFile {}", quoted(KNOWN_HOSTS)?));
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

impl Drop for AgentDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left for whoever cleans the directory for temporary files.
        for name in [CONFIG, KNOWN_HOSTS, SOCKET] {
            let _ = self.directory.remove(name);
        }
        let _ = self.directory.remove_self();
    }
}

/// Makes a directory of a new name in a parent, in which no other user can replace it.
fn make_in(parent: &Path) -> Result<Directory, DirectoryError> {
    let mut random = [0; NAME_BYTES];
    let no_name = |_| DirectoryError::Io {
        path: parent.to_owned(),
        source: io::Error::other("there are no random numbers for its name"),
    };
    aws_lc_rs::rand::fill(&mut random).map_err(no_name)?;
    let trust = Trust::of_process(&[]);
    // The parent is not made if it is missing.
    let path = trust.locate(&parent.join(format!("keyhatch-ssh-{}", hex::encode(random))))?;
    Directory::make(&path, 0o700, &trust)
}

/// The fault of the directory for temporary files. No option of the command trusts it nevertheless.
fn fault(error: &DirectoryError) -> String {
    match error {
        DirectoryError::Parent { parent, why, .. } => {
            format!("{} {why}, so that others could replace what is served", parent.display())
        }
        error => error.to_string(),
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
        "nothing can be served in {} ({why}); set TMPDIR to a short path of a directory that you may write to, and in which \
         nobody else may replace what is yours",
        directory.display()
    );
    Failure::new("ADDRESS", text, exit::FAILED)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_user_adds_no_line_to_the_configuration() {
        let made = |user: &str| AgentDirectory::make(user, b"", None);
        for bad in ["a b", "a\nProxyCommand x", "-oProxyCommand=x", "a\"", "%u", "é"] {
            assert!(made(bad).is_err(), "{bad}");
        }
        let (directory, _) = made("deploy-1@x").ok().unwrap();
        let config = std::fs::read_to_string(directory.path(CONFIG)).unwrap();
        assert!(config.ends_with("IdentityFile none\nUser deploy-1@x\n"), "{config}");
        let modes = ["", CONFIG, SOCKET].map(|name| {
            std::fs::metadata(directory.path(name)).unwrap().permissions().mode() & 0o777
        });
        // ssh only reads its configuration.
        assert_eq!(modes, [0o700, 0o400, 0o600]);
    }
}
