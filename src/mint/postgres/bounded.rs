//! A connection that reads no more than a call needs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::egress::SecureStream;
use crate::identity::server_end_point;

/// The most bytes that a server may send over one connection.
const MAX_BYTES: usize = 1024 * 1024;

/// A stream that fails once the server has sent a mebibyte.
pub(super) struct Bounded<S> {
    stream: S,
    room: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, room: MAX_BYTES }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        match self.room.checked_sub(count) {
            Some(room) => self.room = room,
            None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for Bounded<SecureStream> {
    /// Binds the login to this connection, so that no machine in between can pass it on.
    fn channel_binding(&self) -> ChannelBinding {
        let bound = self.stream.server_certificate().and_then(server_end_point);
        bound.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
