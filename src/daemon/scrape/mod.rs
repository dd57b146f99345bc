//! Where Prometheus fetches metrics: an address of this machine, if the configuration names one.
//!
//! Whoever can connect may read, and everybody on this machine can connect. So nothing is told that is secret,
//! no name but those of operators and executors. Each connection has a moment to ask and to be answered, then it gives
//! way where others wait: nobody waits for long, whatever others do. Callers who ask without end are told a text that
//! was made already.

mod door;
mod gauges;
mod places;
mod told;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::places::{Place, Places};
use self::told::Told;
use super::DaemonError;
use crate::broker::Broker;
use crate::metrics::Metrics;

/// How many of them look at the broker at a time: no more threads wait for a disk that hangs, though their clients
/// are gone by then.
const MAX_READERS: usize = 2;
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
/// How long all of it may take, until the answer is read.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes: the least that hyper takes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 32;
/// How many connections wait in the kernel, at most as many as the system allows: the next is tried again after a second.
const BACKLOG: i32 = 4096;
/// How long to wait before accepting again when the system has no file descriptor to give.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(250);

/// What is told from.
#[derive(Clone)]
pub(super) struct Source {
    broker: Arc<Broker>,
    metrics: Metrics,
    readers: Arc<Semaphore>,
    told: Arc<Told>,
}

impl Source {
    pub(super) fn new(broker: Arc<Broker>, metrics: Metrics) -> Self {
        Self {
            broker,
            metrics,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            told: Arc::default(),
        }
    }
}

/// An address that is listened on, where nobody is answered yet.
pub(super) struct ScrapeListener {
    listener: StdTcpListener,
    address: SocketAddr,
}

impl ScrapeListener {
    /// Listens on this address.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, DaemonError> {
        let bound = StdTcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            rustix::net::listen(&listener, BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| DaemonError::Metrics { address, source })
    }

    /// The address that was taken.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers whoever asks, until `stop`. To be called on the runtime that answers.
    ///
    /// # Errors
    /// If the runtime cannot take it.
    pub(super) fn serve(self, source: Source, stop: CancellationToken) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        tracing::info!(address = %self.address, "metrics are told at /metrics");
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(listener, source) => {}
            }
        });
        Ok(())
    }
}

async fn accept(listener: TcpListener, source: Source) {
    let places = Arc::new(Places::default());
    loop {
        places.wait().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
            continue;
        };
        let (source, places) = (source.clone(), Arc::clone(&places));
        let place = places.take(stream.as_fd().try_clone_to_owned().ok());
        tokio::spawn(async move {
            tokio::select! {
                () = place.taken_away() => {}
                () = converse(stream, &source, &place) => {}
            }
            places.give(&place);
        });
    }
}

async fn converse(stream: TcpStream, source: &Source, place: &Place) {
    let answer = service_fn(|request| place.answer(door::answer(source, request)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), answer);
    // Who does not read or write in time has gone.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}
