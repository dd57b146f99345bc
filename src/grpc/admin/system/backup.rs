//! `SystemService.Backup`: an archive from a thread that reads files to a stream.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::bounded_stream::BoundedStream;
use crate::broker::Error;
use crate::grpc::admin::call::Call;
use crate::grpc::convert::status::to_status;
use crate::grpc::pb;
use crate::identity::Peer;

/// The bytes of one message.
const PIECE_BYTES: usize = 64 * 1024;
/// Messages that wait for who reads them.
const WAITING_PIECES: usize = 8;

/// An archive, piece by piece.
pub(crate) type BackupStream =
    Pin<Box<dyn Stream<Item = Result<pb::BackupResponse, Status>> + Send>>;

/// Starts a backup.
///
/// # Errors
/// See `SystemService.Backup`.
pub(crate) async fn begin(call: &Call, peer: Arc<Peer<()>>) -> Result<BackupStream, Error> {
    let (broker, caller) = (Arc::clone(&call.broker), call.caller.clone());
    let internal = |error: tokio::task::JoinError| Error::Internal(error.to_string());
    let held = tokio::task::spawn_blocking(move || broker.backup(&caller)).await;
    let backup = held.map_err(internal)??;
    let total_bytes = i64::try_from(backup.total_bytes()).unwrap_or(i64::MAX);
    let (pieces, read) = mpsc::channel(WAITING_PIECES);
    let broker = Arc::clone(&call.broker);
    let writing = tokio::task::spawn_blocking(move || {
        let feed = BoundedStream::new(pieces, Arc::clone(&broker), peer);
        let pieces = Pieces { feed, buffer: Vec::with_capacity(PIECE_BYTES) };
        broker.write_backup(backup, pieces)
    });
    let told =
        ReceiverStream::new(read).map(move |data| Ok(pb::BackupResponse { data, total_bytes }));
    let end = futures_util::stream::once(async move {
        let failed = |text: String| Err(to_status(&Error::Internal(format!("backup: {text}"))));
        match writing.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(failed(error.to_string())),
            Err(error) => Some(failed(error.to_string())),
        }
    });
    Ok(Box::pin(told.chain(end.filter_map(|end| end))))
}

/// Hands on what is written in pieces, as fast as they are taken.
struct Pieces {
    feed: BoundedStream<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = PIECE_BYTES - self.buffer.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        match self.feed.send(piece) {
            true => Ok(()),
            false => Err(std::io::Error::other("whoever asked for it takes no more, or may not")),
        }
    }
}
