//! Connections that answer in the order of the requests: Redis's and PostgreSQL's.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::{Ask, Server};

pub type Stream = BufReader<TlsStream<TcpStream>>;

/// The requests and replies of a protocol.
pub trait Protocol: Send + 'static {
    /// The bytes of a request.
    const REQUEST: &'static [u8];

    /// Reads the reply to a request.
    fn reply(stream: &mut Stream) -> impl Future<Output = io::Result<()>> + Send;
}

/// Connects to a port of loopback. Small messages leave at once, as every client of these servers has it.
pub async fn tcp(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes the handshake on a connection.
pub async fn tls(stream: TcpStream, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Tries until a server that has just been started lets a client in.
pub async fn until_ready<T>(server: &Server, connect: impl AsyncFn() -> io::Result<T>) -> T {
    let begin = Instant::now();
    loop {
        match connect().await {
            Ok(connected) => return connected,
            Err(error) if begin.elapsed() > Duration::from_secs(30) => {
                panic!("{error}: {}", server.log())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A connection that sends the requests that wait together, and then reads their replies.
pub struct Pipeline(mpsc::UnboundedSender<oneshot::Sender<()>>);

impl Pipeline {
    pub fn start<P: Protocol>(mut stream: Stream) -> Self {
        let (sender, mut requests) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        tokio::spawn(async move {
            while let Some(first) = requests.recv().await {
                let mut waiting = vec![first];
                while let Ok(next) = requests.try_recv() {
                    waiting.push(next);
                }
                stream.write_all(&P::REQUEST.repeat(waiting.len())).await.unwrap();
                stream.flush().await.unwrap();
                for request in waiting {
                    P::reply(&mut stream).await.unwrap();
                    let _ = request.send(());
                }
            }
            let _ = stream.shutdown().await;
        });
        Self(sender)
    }
}

impl Ask for Pipeline {
    fn ask(&self) -> BoxFuture<'static, ()> {
        let (reply, replied) = oneshot::channel();
        self.0.send(reply).unwrap();
        async { replied.await.unwrap() }.boxed()
    }
}

/// Reads this many bytes.
pub async fn exactly(stream: &mut Stream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
