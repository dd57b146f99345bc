//! Upstreams of minted credentials on this machine: real ones, and an Internet in which every host is one of them.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use keyhatch::egress::{Egress, EgressTable, MAX_REPLY_BYTES, Request, Rules};
use keyhatch::model::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::http::tls_for;
use super::{block_on, installed, source};

/// A server of `tests/clients`, which said that it serves. It ends when this is dropped.
pub struct Upstream {
    child: Child,
    // The server ends when its stdin ends, even if this process is killed.
    _stdin: Option<ChildStdin>,
    told: serde_json::Value,
}

impl Upstream {
    /// AWS by moto (`tests/clients/tools/moto_server.py`). `None` if it is not installed; the test is reported as skipped.
    pub fn aws() -> Option<Self> {
        let python = installed("tools")?.join("venv/bin/python");
        let mut command = Command::new(python);
        command.arg(source("tests/clients/tools/moto_server.py"));
        Some(Self::start(command))
    }

    /// AWS as [`Self::aws`], whose roles take tokens of the issuer whose documents are in this directory. `None` as for
    /// [`Self::aws`].
    pub fn aws_trusting(documents: &Path) -> Option<Self> {
        let python = installed("tools")?.join("venv/bin/python");
        let mut command = Command::new(python);
        command.arg(source("tests/clients/tools/moto_server.py")).arg(documents);
        Some(Self::start(command))
    }

    /// Google's federation (`tests/clients/oidc-provider/google_federation.js`) for the issuer whose documents are in this
    /// directory. `None` as for [`Self::aws`].
    pub fn google_federation(documents: &Path) -> Option<Self> {
        let modules = installed("oidc-provider")?.join("node_modules");
        let mut command = Command::new("node");
        command.arg(source("tests/clients/oidc-provider/google_federation.js")).arg(documents);
        command.env("NODE_PATH", modules);
        Some(Self::start(command))
    }

    /// Token servers by oidc-provider (`tests/clients/oidc-provider/token_server.js`). `None` as for [`Self::aws`].
    pub fn tokens() -> Option<Self> {
        Some(Self::start(node("oidc-provider", "token_server.js")?))
    }

    /// GitHub, with jose (`tests/clients/github/door.js`). `None` as for [`Self::aws`].
    pub fn github() -> Option<Self> {
        Some(Self::start(node("github", "door.js")?))
    }

    /// A token endpoint for crowds (`tests/clients/tools/token_upstream.py`). `None` as for [`Self::aws`].
    pub fn crowd() -> Option<Self> {
        let python = installed("tools")?.join("venv/bin/python");
        let mut command = Command::new(python);
        command.arg(source("tests/clients/tools/token_upstream.py"));
        Some(Self::start(command))
    }

    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no server: {line:?}"));
        Self { _stdin: child.stdin.take(), child, told }
    }

    pub fn port(&self) -> u16 {
        u16::try_from(self.told["port"].as_u64().unwrap()).unwrap()
    }

    /// `http://127.0.0.1:PORT`, as a rule of `egress.allow` is written.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The JSON with which it answers a request of the test's own.
    pub fn ask(&self, method: &'static str, path: &str) -> serde_json::Value {
        self.ask_with(method, path, "")
    }

    /// The text with which it answers a GET of the test's own.
    pub fn get(&self, path: &str) -> String {
        self.reply("GET", path, "")
    }

    /// The same for a form, which may be empty.
    pub fn ask_with(&self, method: &'static str, path: &str, form: &str) -> serde_json::Value {
        serde_json::from_str(&self.reply(method, path, form)).unwrap()
    }

    fn reply(&self, method: &'static str, path: &str, form: &str) -> String {
        let form_type = Value::new(b"application/x-www-form-urlencoded".to_vec());
        let request = Request {
            method,
            url: Value::new(format!("{}{path}", self.origin()).into()),
            headers: vec![("content-type".to_owned(), form_type)],
            body: Value::new(form.into()),
            ca_certificate: None,
            is_private_denied: false,
            max_reply_bytes: MAX_REPLY_BYTES,
        };
        let egress = Egress::new(allowing(&[&self.origin()]));
        let reply = block_on(egress.exchange(request)).unwrap();
        String::from_utf8(reply.body.expose().to_vec()).unwrap()
    }

    /// What the server said about itself: `access_key_id`, `google.private_key`.
    pub fn told(&self, path: &str) -> &str {
        let found = path.split('.').fold(&self.told, |found, key| &found[key]);
        found.as_str().unwrap_or_else(|| panic!("{path} was not told"))
    }
}

/// A script of a client in Node. `None` if the client is not installed; the test is reported as skipped.
pub fn node(client: &str, script: &str) -> Option<Command> {
    let modules = installed(client)?.join("node_modules");
    let mut command = Command::new("node");
    command.arg(source("tests/clients").join(client).join(script)).env("NODE_PATH", modules);
    Some(command)
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rules of egress with these entries of `allow`.
pub fn allowing(allow: &[&str]) -> Rules {
    table(allow, None).rules().unwrap()
}

fn table(allow: &[&str], proxy: Option<String>) -> EgressTable {
    let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
    EgressTable { allow, deny: Vec::new(), proxy }
}

/// A proxy behind which every host is one server on this machine, with TLS.
pub struct Internet {
    port: u16,
    /// The issuer of the hosts' certificate.
    pub ca_pem: String,
    hosts: Vec<String>,
    asked: Receiver<String>,
}

impl Internet {
    /// Has these hosts served by the plain server at a port. The proxy's thread ends with the test's process.
    pub fn start(hosts: &[&str], server: u16) -> Self {
        let (config, ca_pem) = tls_for(hosts);
        let acceptor = TlsAcceptor::from(config);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(relay(stream, acceptor.clone(), server, sender.clone()));
                }
            });
        });
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Self { port, ca_pem, hosts, asked }
    }

    /// Rules that reach the hosts through the proxy.
    pub fn rules(&self) -> Rules {
        let allow: Vec<_> = self.hosts.iter().map(String::as_str).collect();
        table(&allow, Some(format!("http://127.0.0.1:{}", self.port))).rules().unwrap()
    }

    /// The same rules, as the configuration of a daemon.
    pub fn table(&self) -> String {
        let hosts = &self.hosts;
        format!("[egress]\nallow = {hosts:?}\nproxy = \"http://127.0.0.1:{}\"\n", self.port)
    }

    /// The hosts and ports that were asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

async fn relay(mut client: TcpStream, acceptor: TlsAcceptor, server: u16, asked: Sender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let _ = asked.send(head.split(' ').nth(1).unwrap_or_default().to_owned());
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // A client that refuses the certificate hangs up.
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
