//! Redis: GET over TLS with a client certificate, nothing on disk.

use std::io;
use std::process::Command;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::server::{self, Ask, Connect, KEY, Peer, Server, VALUE};
use crate::wire::{self, Pipeline, Protocol, Stream};

pub async fn start() -> Option<Peer> {
    let program = server::program("redis-server", &[])?;
    let directory = tempfile::tempdir().unwrap();
    let tls = Arc::new(server::certificates(directory.path()));
    let port = server::free_port();
    let mut command = Command::new(&program);
    command.current_dir(directory.path()).args(["--port", "0", "--bind", "127.0.0.1"]);
    command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "yes"]);
    command.args(["--tls-ca-cert-file", "ca.crt", "--tls-cert-file", "tls.crt"]);
    command.args(["--tls-key-file", "tls.key", "--save", "", "--appendonly", "no"]);
    let server = Server::spawn(&mut command, directory);
    let client = Client { tls, port };
    let mut stream = wire::until_ready(&server, async || client.open().await).await;
    let set = format!("SET {KEY} \"{VALUE}\"\r\n");
    stream.write_all(set.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "+OK\r\n");
    Some(Peer {
        name: "Redis GET",
        version: server::version(&program),
        server,
        client: Arc::new(client),
    })
}

#[derive(Clone)]
struct Client {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Client {
    async fn open(&self) -> io::Result<Stream> {
        let stream = wire::tls(wire::tcp(self.port).await?, Arc::clone(&self.tls)).await?;
        Ok(BufReader::new(stream))
    }
}

impl Connect for Client {
    fn connect(&self) -> BoxFuture<'static, Arc<dyn Ask>> {
        let client = self.clone();
        async move {
            let connected: Arc<dyn Ask> =
                Arc::new(Pipeline::start::<Resp>(client.open().await.unwrap()));
            connected
        }
        .boxed()
    }
}

/// RESP, the protocol of Redis.
struct Resp;

impl Protocol for Resp {
    const REQUEST: &'static [u8] = b"*2\r\n$3\r\nGET\r\n$8\r\naws/prod\r\n";

    /// `$61\r\n`, the bytes, `\r\n`.
    async fn reply(stream: &mut Stream) -> io::Result<()> {
        let mut head = String::new();
        stream.read_line(&mut head).await?;
        let size: usize = head.trim_start_matches('$').trim_end().parse().unwrap();
        let bytes = wire::exactly(stream, size + 2).await?;
        assert_eq!(bytes[..size], *VALUE.as_bytes());
        Ok(())
    }
}
