//! etcd: Range of one key by gRPC over TLS with a client certificate, one member.

use std::io;
use std::process::Command;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::server::{self, Ask, Connect, KEY, Peer, Server, VALUE};
use crate::wire;

pub async fn start() -> Option<Peer> {
    let program = server::program("etcd", &[])?;
    let directory = tempfile::tempdir().unwrap();
    let mut tls = server::certificates(directory.path());
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let [port, peers] = [server::free_port(), server::free_port()];
    let (clients, peers) =
        (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    let mut command = Command::new(&program);
    command.current_dir(directory.path()).args(["--data-dir", "data", "--client-cert-auth"]);
    command.args([
        "--trusted-ca-file",
        "ca.crt",
        "--cert-file",
        "tls.crt",
        "--key-file",
        "tls.key",
    ]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}")]);
    let server = Server::spawn(&mut command, directory);
    let client = Client { tls: Arc::new(tls), port };
    let put = PutRequest { key: KEY.into(), value: VALUE.into() };
    let kept = async || {
        let channel = client.open().await.map_err(io::Error::other)?;
        let kept = call::<_, Empty>(channel, "/etcdserverpb.KV/Put", put.clone()).await;
        kept.map_err(io::Error::other)
    };
    wire::until_ready(&server, kept).await;
    Some(Peer {
        name: "etcd Range",
        version: server::version(&program),
        server,
        client: Arc::new(client),
    })
}

/// etcd's messages as far as they are used here: rpc.proto and kv.proto of etcd.
#[derive(Clone, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, prost::Message)]
struct Empty {}

async fn call<M, R>(channel: Channel, path: &'static str, message: M) -> Result<R, Status>
where
    M: prost::Message + 'static,
    R: prost::Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let reply = client.unary(Request::new(message), path, ProstCodec::default()).await;
    reply.map(tonic::Response::into_inner)
}

#[derive(Clone)]
struct Client {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Client {
    async fn open(&self) -> Result<Channel, tonic::transport::Error> {
        let client = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let client = client.clone();
            async move {
                let stream = wire::tls(wire::tcp(client.port).await?, client.tls).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        Endpoint::from_static("https://localhost").connect_with_connector(connector).await
    }
}

impl Connect for Client {
    fn connect(&self) -> BoxFuture<'static, Arc<dyn Ask>> {
        let client = self.clone();
        async move {
            let connected: Arc<dyn Ask> = Arc::new(Connected(client.open().await.unwrap()));
            connected
        }
        .boxed()
    }
}

struct Connected(Channel);

impl Ask for Connected {
    fn ask(&self) -> BoxFuture<'static, ()> {
        let channel = self.0.clone();
        async move {
            let range = RangeRequest { key: KEY.into() };
            let reply = call::<_, RangeResponse>(channel, "/etcdserverpb.KV/Range", range).await;
            assert_eq!(reply.unwrap().kvs[0].value, VALUE.as_bytes());
        }
        .boxed()
    }
}
