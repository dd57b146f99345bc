//! A PostgreSQL server of the bench's own, without TLS, whose admin role has a password.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::Process;
use crate::seed::KindFields;

/// The user that it runs as if the bench runs as root, as which it refuses to run.
const USER: &str = "postgres";
/// The password of its superuser.
const PASSWORD: &str = "a-password-of-the-bench";

pub struct Server {
    process: Process,
    _directory: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Server {
    /// Ends it as a terminal does. PostgreSQL needs that to end its own children.
    fn drop(&mut self) {
        self.process.interrupt();
    }
}

/// Starts Debian's newest server. `None` if there is no such server.
pub fn start() -> Option<Server> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin"));
    let Some(programs) = programs.filter(|bin| bin.join("initdb").is_file()).max() else {
        println!("skipped: mints of postgres/dynamic_user: PostgreSQL is not installed");
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    let (data, password) = (directory.path().join("data"), directory.path().join("password"));
    std::fs::write(&password, PASSWORD).unwrap();
    if rustix::process::geteuid().is_root() {
        let said = Command::new("id").args(["-u", USER]).output().unwrap().stdout;
        let id = String::from_utf8(said).unwrap().trim().parse().unwrap();
        for path in [directory.path(), password.as_path()] {
            chown(path, Some(id), None).unwrap();
        }
    }
    let mut initdb = as_user(&programs.join("initdb"), directory.path());
    initdb.args(["--no-sync", "--auth=scram-sha-256", "--username=keyhatch", "--pwfile"]);
    assert!(initdb.arg(&password).arg("-D").arg(&data).output().unwrap().status.success());
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut server = as_user(&programs.join("postgres"), directory.path());
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p"]);
    server.arg(port.to_string()).arg("-D").arg(&data).stderr(Stdio::null());
    let process = Process::spawn(&mut server);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Server { process, _directory: directory, port })
}

impl Server {
    /// The fields of a connection of kind dynamic_user.
    pub fn fields(&self) -> KindFields {
        let fields = [
            ("host", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("sslmode", "disable"),
            ("database", "postgres"),
            ("admin_user", "keyhatch"),
            ("admin_password", PASSWORD),
            ("roles", "pg_read_all_data"),
        ];
        fields.map(|(name, value)| (name, value.to_owned())).to_vec()
    }
}

/// A command as [`USER`], or as the bench's own user if that is not root. The process stays the command's.
fn as_user(program: &Path, directory: &Path) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        false => Command::new(program),
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
            command
        }
    };
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null());
    command
}
