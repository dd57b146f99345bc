//! PostgreSQL: SELECT of one row by a prepared statement, over TLS with a client certificate (the method cert).

use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::server::{self, Ask, CLIENT, Connect, KEY, Peer, Server, VALUE};
use crate::wire::{self, Pipeline, Protocol, Stream};

/// The user that it runs as if the bench runs as root, as which it refuses to run.
const USER: &str = "postgres";

pub async fn start() -> Option<Peer> {
    let debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    let (initdb, program) =
        (server::program("initdb", &debian)?, server::program("postgres", &debian)?);
    let directory = tempfile::tempdir().unwrap();
    let tls = Arc::new(server::certificates(directory.path()));
    let (data, port) = (directory.path().join("data"), server::free_port());
    give_away(directory.path());
    let mut make = as_user(&initdb);
    make.args(["--no-locale", "--encoding=UTF8", "--no-sync", "--username", CLIENT, "--pgdata"]);
    assert!(make.arg(&data).output().unwrap().status.success(), "initdb");
    let own = directory.path().display();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nssl = on\n\
         ssl_ca_file = '{own}/ca.crt'\nssl_cert_file = '{own}/tls.crt'\nssl_key_file = '{own}/tls.key'\n"
    );
    std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
    std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 cert\n").unwrap();
    let server = Server::spawn(as_user(&program).arg("-D").arg(&data), directory);
    let client = Client { tls, port };
    let mut stream = wire::until_ready(&server, async || client.open().await).await;
    let table = "CREATE TABLE secrets (name text PRIMARY KEY, value text NOT NULL)";
    query(&mut stream, table).await.unwrap();
    let row = format!("INSERT INTO secrets VALUES ('{KEY}', '{VALUE}')");
    query(&mut stream, &row).await.unwrap();
    Some(Peer {
        name: "PostgreSQL SELECT",
        version: server::version(&program),
        server,
        client: Arc::new(client),
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command as [`USER`], or as the bench's own user if that is not root. The process stays the command's.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
    command
}

/// Gives the files to [`USER`].
fn give_away(directory: &Path) {
    let key = directory.join("tls.key");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    if !is_root() {
        return;
    }
    let said = Command::new("id").args(["-u", USER]).output().unwrap().stdout;
    let id = String::from_utf8(said).unwrap().trim().parse().unwrap();
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    for path in files.chain([directory.to_owned()]) {
        chown(path, Some(id), None).unwrap();
    }
}

#[derive(Clone)]
struct Client {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Client {
    /// Connects, and prepares the statement.
    async fn open(&self) -> io::Result<Stream> {
        let mut stream = wire::tcp(self.port).await?;
        // SSLRequest: its length, and a code in place of a version.
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
        if stream.read_u8().await? != b'S' {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut stream = BufReader::new(wire::tls(stream, Arc::clone(&self.tls)).await?);
        let startup = [&b"\0\x03\0\0user\0"[..], CLIENT.as_bytes(), b"\0database\0postgres\0\0"];
        stream.write_all(&sized(&startup.concat())).await?;
        stream.flush().await?;
        until_idle(&mut stream).await?;
        let parse = message(b'P', b"s\0SELECT value FROM secrets WHERE name = $1\0\0\0");
        // The table is missing at the first connection, which makes it.
        stream.write_all(&[parse, message(b'S', b"")].concat()).await?;
        stream.flush().await?;
        until_idle(&mut stream).await?;
        Ok(stream)
    }
}

impl Connect for Client {
    fn connect(&self) -> BoxFuture<'static, Arc<dyn Ask>> {
        let client = self.clone();
        async move {
            let stream = client.open().await.unwrap();
            let connected: Arc<dyn Ask> = Arc::new(Pipeline::start::<Select>(stream));
            connected
        }
        .boxed()
    }
}

/// The extended query protocol.
struct Select;

impl Protocol for Select {
    /// Bind of the statement `s` with a text, Execute without a limit, Sync.
    const REQUEST: &'static [u8] =
        b"B\0\0\0\x19\0s\0\0\0\0\x01\0\0\0\x08aws/prod\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";

    async fn reply(stream: &mut Stream) -> io::Result<()> {
        assert_eq!(until_idle(stream).await?, 1, "a row");
        Ok(())
    }
}

async fn query(stream: &mut Stream, text: &str) -> io::Result<usize> {
    stream.write_all(&message(b'Q', format!("{text}\0").as_bytes())).await?;
    stream.flush().await?;
    until_idle(stream).await
}

/// Reads to ReadyForQuery. Returns the number of rows, which must be the value.
async fn until_idle(stream: &mut Stream) -> io::Result<usize> {
    let mut rows = 0;
    loop {
        let kind = stream.read_u8().await?;
        let size = usize::try_from(stream.read_u32().await?).unwrap();
        let body = wire::exactly(stream, size - 4).await?;
        match kind {
            b'Z' => return Ok(rows),
            b'D' => {
                assert!(body.ends_with(VALUE.as_bytes()), "the value");
                rows += 1;
            }
            _ => {}
        }
    }
}

/// A message: its kind, its length, its body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &sized(body)].concat()
}

/// A body behind its length, which counts itself.
fn sized(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 4).unwrap();
    [&size.to_be_bytes()[..], body].concat()
}
