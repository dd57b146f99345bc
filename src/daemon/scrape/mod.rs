//! Where Prometheus fetches metrics: a loopback address, if the configuration names one.
//!
//! Everybody on this machine can connect and read. So the metrics hold no secret, and no names but those of operators
//! and executors. A connection has a short time of its own to ask and to be answered; then it is closed if others wait.
//! Clients that ask too often get a text that was made before.

mod gauges;
mod handler;
mod slots;
mod text_cache;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::slots::ScrapeSlots;
use self::text_cache::TextCache;
use super::DaemonError;
use crate::broker::Broker;
use crate::metrics::Metrics;
use crate::sys::local_http::{HttpLimits, accept, serve_connection};

/// How many requests read from the broker at a time. A thread that waits for a hanging disk outlives its client: this
/// bounds how many such threads there are.
const MAX_READERS: usize = 2;
/// How many connections wait in the kernel, if the system allows as many. A client that finds the queue full tries
/// again after a second.
const BACKLOG: i32 = 4096;
const LIMITS: HttpLimits = HttpLimits {
    head_timeout: Duration::from_secs(1),
    timeout: Some(Duration::from_secs(10)),
    max_head_bytes: 8 * 1024,
    max_headers: 32,
};

/// The sources of the metrics.
#[derive(Clone)]
pub(super) struct MetricsSource {
    broker: Arc<Broker>,
    metrics: Metrics,
    readers: Arc<Semaphore>,
    cache: Arc<TextCache>,
}

impl MetricsSource {
    pub(super) fn new(broker: Arc<Broker>, metrics: Metrics) -> Self {
        Self {
            broker,
            metrics,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            cache: Arc::default(),
        }
    }
}

/// An address where connections wait, and none is served yet.
pub(super) struct ScrapeListener {
    listener: StdTcpListener,
    address: SocketAddr,
}

impl ScrapeListener {
    /// Listens on an address; port 0 is any that is free.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, DaemonError> {
        let bound = StdTcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            rustix::net::listen(&listener, BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| DaemonError::Metrics { address, source })
    }

    /// The address that was bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until `stop`, on the runtime that this is called on.
    ///
    /// # Errors
    /// If the runtime cannot take the listener.
    pub(super) fn serve(
        self,
        source: MetricsSource,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        tracing::info!(address = %self.address, "metrics are served at /metrics");
        tokio::spawn(stop.run_until_cancelled_owned(serve_all(listener, source)));
        Ok(())
    }
}

async fn serve_all(listener: TcpListener, source: MetricsSource) {
    let slots = Arc::new(ScrapeSlots::default());
    loop {
        slots.wait().await;
        let (stream, _) = accept(&listener).await;
        let (source, slots) = (source.clone(), Arc::clone(&slots));
        let slot = slots.acquire(stream.as_fd().try_clone_to_owned().ok());
        tokio::spawn(async move {
            let respond = |request| slot.respond(handler::respond(&source, request));
            tokio::select! {
                () = slot.evicted() => {}
                () = serve_connection(stream, LIMITS, respond) => {}
            }
            slots.release(&slot);
        });
    }
}
