//! `SystemService.Backup`: an archive from a thread that reads files to a stream.

use std::io::Write;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::bounded_stream::{BoundedStream, ReplyStream, reply_stream};
use crate::broker::Error;
use crate::grpc::admin::call::Call;
use crate::grpc::pb;

/// The bytes of one message.
const PIECE_BYTES: usize = 64 * 1024;
/// Messages that wait for the client.
const WAITING_PIECES: usize = 8;

/// An archive, piece by piece.
pub(crate) type BackupStream = ReplyStream<pb::BackupResponse>;

/// Starts a backup.
///
/// # Errors
/// See `SystemService.Backup`.
pub(crate) async fn begin(call: &Call) -> Result<BackupStream, Error> {
    let (broker, caller) = (Arc::clone(&call.broker), call.caller.clone());
    let internal = |error: JoinError| Error::Internal(error.to_string());
    let held = spawn_blocking(move || broker.backup(&caller)).await;
    let backup = held.map_err(internal)??;
    let total_bytes = i64::try_from(backup.total_bytes()).unwrap_or(i64::MAX);
    let (pieces, read) = mpsc::channel(WAITING_PIECES);
    let (broker, peer) = (Arc::clone(&call.broker), Arc::clone(&call.peer));
    let writing = spawn_blocking(move || {
        let stream = BoundedStream::new(pieces, Arc::clone(&broker), peer);
        let buffer = Vec::with_capacity(PIECE_BYTES);
        let written = broker.write_backup(backup, Pieces { stream, total_bytes, buffer });
        written.map_err(|error| Error::Internal(format!("backup: {error}")))
    });
    Ok(reply_stream(read, writing))
}

/// Sends an archive in pieces, as fast as the client takes them.
struct Pieces {
    stream: BoundedStream<pb::BackupResponse>,
    total_bytes: i64,
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
        let message = pb::BackupResponse { data: piece, total_bytes: self.total_bytes };
        match self.stream.blocking_send(message) {
            true => Ok(()),
            false => Err(std::io::Error::other("the client takes no more, or may not have it")),
        }
    }
}
