//! Members of the admin group that are neither root nor the daemon's user.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::{ServeProcess, init_in, keyhatch_in, skipped, temp_dir};

/// The admin group.
pub const GROUP: u32 = 65_534;

/// A daemon that admits this group.
pub struct GroupDaemon {
    pub directory: tempfile::TempDir,
    pub serving: ServeProcess,
}

impl GroupDaemon {
    /// Starts a daemon with these limits. `None` without root; it then reports the skipped test.
    pub fn start(what: &str, limits: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped(what, "needs root");
            return None;
        }
        let directory = temp_dir();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        init_in(directory.path());
        let config = directory.path().join("keyhatch.toml");
        std::fs::write(&config, format!("[limits]\n{limits}")).unwrap();
        let (group, config) = (GROUP.to_string(), config.to_str().unwrap());
        let serve = ["serve", "--admin-group", &group, "--config", config];
        let serve = keyhatch_in(directory.path(), &serve);
        let serving = ServeProcess::spawn(directory.path(), serve);
        Some(Self { directory, serving })
    }

    /// Runs a script as a member, with the admin socket as its argument. `None` without python3; it then reports the
    /// skipped test.
    pub fn script(&self, uid: u32, script: &str) -> Option<Child> {
        let mut guest = Command::new("python3");
        guest.args(["-c", script]).arg(self.directory.path().join("run/admin.sock"));
        guest.uid(uid).gid(GROUP).stdin(Stdio::piped()).stdout(Stdio::piped());
        let spawned = guest.spawn().ok();
        if spawned.is_none() {
            skipped("connections of another user", "needs python3");
        }
        spawned
    }

    /// Runs a script that prints a line when it is ready, and ends with its stdin.
    pub fn ready_script(&self, uid: u32, script: &str) -> Option<Child> {
        let mut guest = self.script(uid, script)?;
        let mut told = BufReader::new(guest.stdout.take().unwrap());
        told.read_line(&mut String::new()).unwrap();
        Some(guest)
    }
}
