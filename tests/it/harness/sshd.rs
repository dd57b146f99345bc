//! An sshd of the test's own, and keys for it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{not_set_up, succeeded, text, wait_until};

const PROGRAM: &str = "/usr/sbin/sshd";
/// The directory that an sshd of root wants.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// A key that ssh-keygen has made.
pub struct SshKey {
    /// The file.
    pub path: PathBuf,
    /// The private key as text.
    pub private: String,
    /// `TYPE BASE64 COMMENT`
    pub public: String,
}

impl SshKey {
    /// A new key of this type, such as `ed25519` or `rsa:3072`.
    pub fn make(directory: &Path, key_type: &str) -> Self {
        let path = directory.join(format!("key-{}", key_type.replace(':', "-")));
        let (kind, bits) = key_type.split_once(':').unwrap_or((key_type, ""));
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-C", "test", "-t", kind, "-f"]).arg(&path);
        if !bits.is_empty() {
            keygen.args(["-b", bits]);
        }
        succeeded(&keygen.output().unwrap());
        let private = std::fs::read_to_string(&path).unwrap();
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        Self { path, private, public: public.trim().to_owned() }
    }

    /// The fingerprint that ssh prints.
    pub fn fingerprint(&self) -> String {
        let printed = Command::new("ssh-keygen").arg("-lf").arg(&self.path).output().unwrap();
        succeeded(&printed).split(' ').nth(1).unwrap().to_owned()
    }
}

/// A server on loopback at which these keys log in as [`Sshd::user`]. It ends when this is dropped.
pub struct Sshd {
    server: Child,
    pub port: u16,
    pub host_key: SshKey,
    directory: PathBuf,
}

impl Sshd {
    /// `None` if sshd is not installed; the test is reported as skipped.
    pub fn start(directory: &Path, authorized: &[&SshKey]) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            not_set_up("logins by ssh", "sshd is not installed");
            return None;
        }
        let directory = directory.join("sshd");
        std::fs::create_dir(&directory).unwrap();
        let host_key = SshKey::make(&directory, "ed25519");
        let keys: Vec<_> = authorized.iter().map(|key| key.public.as_str()).collect();
        std::fs::write(directory.join("authorized"), keys.join("\n")).unwrap();
        let own = rustix::process::geteuid();
        if own.is_root() {
            let mut make = std::fs::DirBuilder::new();
            make.recursive(true).mode(0o755).create(PRIVILEGE_SEPARATION).unwrap();
        }
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             LogLevel VERBOSE\n",
            host_key.path.display(),
            directory.join("authorized").display(),
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut server = Command::new(PROGRAM);
        server.args(["-D", "-e", "-f"]).arg(directory.join("config"));
        let server = server.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let sshd = Self { server, port, host_key, directory };
        wait_until("sshd is ready", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(sshd)
    }

    /// The user that the server runs as.
    pub fn user() -> String {
        text(&Command::new("id").arg("-un").output().unwrap().stdout).trim().to_owned()
    }

    /// The line of a `known_hosts` file for this server.
    pub fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}\n", self.port, self.host_key.public)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
