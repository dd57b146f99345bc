//! nginx with TLS, and git's own server behind it: Debian's packages nginx, fcgiwrap and git.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{not_set_up, succeeded, temp_dir, wait_until};

/// The token that the server wants as a bearer, and as the password of git's user `bot`.
pub const UPSTREAM_TOKEN: &str = "not-a-real-upstream-token-7f3a";

/// An API and repositories behind a token. It ends when this is dropped.
///
/// | path | |
/// |---|---|
/// | `/api/echo` | repeats method, path with query, and the `Authorization` header |
/// | `/api/moved` | a redirect to another host; `below` it are some to `/api/echo` |
/// | `/api/files/` | files below [`Nginx::files`]; `PUT` writes them |
/// | `/api/slow/` | the same files, with 1 MiB a second |
/// | `/git/` | repositories below [`Nginx::repositories`] |
/// | `/open/` | the files, for everybody |
/// | `/basic/` | the files, for `bot` with the password, and the `Authorization` header in `X-Login` |
/// | `/certified/` | the files, for the client with [`Nginx::client`] |
pub struct Nginx {
    directory: tempfile::TempDir,
    servers: Vec<Child>,
    pub port: u16,
    /// The issuer of its certificate, which is for 127.0.0.1.
    pub ca_pem: String,
    /// A client's certificate and private key, PEM.
    pub client: (String, String),
}

impl Nginx {
    /// Starts a server. `None` if a package is not installed; the test is reported as skipped.
    pub fn start() -> Option<Self> {
        let nginx = ["/usr/sbin/nginx", "/usr/sbin/fcgiwrap", "/usr/lib/git-core/git-http-backend"];
        if let Some(missing) = nginx.iter().find(|program| !Path::new(program).exists()) {
            not_set_up("nginx", &format!("{missing} is not installed; run tests/run"));
            return None;
        }
        let directory = temp_dir();
        let path = directory.path();
        let made = |host: &str| rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let (own, client) = (made("127.0.0.1"), made("client.example"));
        let files = [
            ("key.pem", own.signing_key.serialize_pem()),
            ("certificate.pem", own.cert.pem()),
            ("clients.pem", client.cert.pem()),
            ("users", format!("bot:{{PLAIN}}{UPSTREAM_TOKEN}\n")),
        ];
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        for name in ["files", "repositories", "temporary"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        let mut cgi = Command::new("/usr/sbin/fcgiwrap");
        cgi.args(["-c", "2", "-s"]).arg(format!("unix:{}", path.join("git.sock").display()));
        let servers = vec![child_of_this(&cgi, path)];
        let ca_pem = own.cert.pem();
        let client = (client.cert.pem(), client.signing_key.serialize_pem());
        let mut server = Self { directory, servers, port: 0, ca_pem, client };
        server.serve();
        Some(server)
    }

    /// Serves at a free port. Another process may take it meanwhile, and then at another.
    fn serve(&mut self) {
        let path = self.directory.path().to_owned();
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            self.port = free.local_addr().unwrap().port();
            drop(free);
            std::fs::write(path.join("nginx.conf"), settings(&path, self.port)).unwrap();
            let mut nginx = Command::new("/usr/sbin/nginx");
            nginx.arg("-c").arg(path.join("nginx.conf")).arg("-p").arg(&path);
            let mut child = child_of_this(&nginx, &path);
            let (mut has_ended, address) = (false, (Ipv4Addr::LOCALHOST, self.port));
            wait_until("nginx serves", || {
                has_ended = child.try_wait().unwrap().is_some();
                has_ended || TcpStream::connect(address).is_ok()
            });
            if !has_ended {
                self.servers.push(child);
                return;
            }
        }
        panic!("{}", std::fs::read_to_string(path.join("error.log")).unwrap());
    }

    /// `https://127.0.0.1:PORT`
    pub fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The directory of the files.
    pub fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// The directory of the repositories.
    pub fn repositories(&self) -> PathBuf {
        self.directory.path().join("repositories")
    }

    /// Makes the repository `NAME.git` with one commit.
    pub fn make_repository(&self, name: &str) {
        let make = format!(
            "git init -q --bare {name}.git && git clone -q {name}.git work 2>/dev/null && cd work && \
             git -c user.name=n -c user.email=e commit -q --allow-empty -m first && git push -q && cd .. && rm -r work"
        );
        let mut shell = Command::new("sh");
        shell.args(["-ec", &make]).current_dir(self.repositories());
        for file in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            shell.env(file, "/dev/null");
        }
        succeeded(&shell.output().unwrap());
    }

    /// The requests so far, a line each: method, path with query, status.
    pub fn asked(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("access.log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.stdin.take());
            let _ = server.wait();
        }
    }
}

/// Starts a server that ends when the stdin of the returned process ends, even if the test is killed.
fn child_of_this(server: &Command, directory: &Path) -> Child {
    let script = "exec 3<&0; \"$0\" \"$@\" 2>>stderr & server=$!; \
                  { read -r _ <&3; kill -TERM $server; } 2>&- & wait $server";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).arg(server.get_program()).args(server.get_args());
    shell.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap()
}

fn settings(directory: &Path, port: u16) -> String {
    let basic = STANDARD.encode(format!("bot:{UPSTREAM_TOKEN}"));
    let filled = include_str!("nginx.conf").replace("{path}", &directory.display().to_string());
    let filled = filled.replace("{port}", &port.to_string());
    filled.replace("{token}", UPSTREAM_TOKEN).replace("{basic}", &basic)
}
