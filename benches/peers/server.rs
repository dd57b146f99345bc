//! A peer: a server with a directory and certificates of its own, on loopback, and a client for it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::Process;

/// The name of the client, in its certificate and for the server.
pub const CLIENT: &str = "bench";
/// The stored value, as many bytes as the fields of the daemon's connection.
pub const VALUE: &str = "AKIAIOSFODNN7EXAMPLE xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
/// The name of the value.
pub const KEY: &str = "aws/prod";

/// A running peer.
pub struct Peer {
    pub name: &'static str,
    pub version: String,
    pub server: Server,
    pub client: Arc<dyn Connect>,
}

/// Opens connections to a peer.
pub trait Connect: Send + Sync {
    fn connect(&self) -> BoxFuture<'static, Arc<dyn Ask>>;
}

/// A connection to a peer.
pub trait Ask: Send + Sync {
    /// Asks for the value, and checks that it comes.
    fn ask(&self) -> BoxFuture<'static, ()>;
}

/// The process of a peer and its directory.
pub struct Server {
    pub process: Process,
    directory: tempfile::TempDir,
}

impl Server {
    pub fn spawn(command: &mut Command, directory: tempfile::TempDir) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        Self { process: Process::spawn(command.stderr(log)), directory }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    /// Ends it as a terminal does. PostgreSQL needs that to end its own children.
    fn drop(&mut self) {
        self.process.interrupt();
    }
}

/// A program of this name in PATH or in one of these directories.
pub fn program(name: &str, others: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(others.iter().cloned());
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    if found.is_none() {
        println!("skipped: {name} is not installed");
    }
    found
}

/// The first line that a program says about its version.
pub fn version(program: &Path) -> String {
    let said = Command::new(program).arg("--version").output().unwrap().stdout;
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// A port of loopback on which nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes ca.crt, tls.crt and tls.key of a server, and returns the settings of a client with a certificate of its own.
pub fn certificates(directory: &Path) -> ClientConfig {
    let params = |name: &str| {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        if let Ok(params) = &mut params {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.unwrap()
    };
    let key = || KeyPair::generate().unwrap();
    let mut root = params("root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = key();
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(root, root_key);
    let [(server, server_key), (client, client_key)] = ["localhost", CLIENT].map(|name| {
        let own = key();
        (params(name).signed_by(&own, &issuer).unwrap(), own)
    });
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    write("ca.crt", root_certificate.pem());
    write("tls.crt", server.pem());
    write("tls.key", server_key.serialize_pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root_certificate)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![CertificateDer::from(client)], key)
        .unwrap();
    // keyhatch's doors resume no sessions.
    config.resumption = Resumption::disabled();
    config
}
