//! One connection of a flood. It never waits longer than its limit.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{Next, PATIENCE, Tally, Target};

/// The most reads in a row from one connection.
const MOST_READS: usize = 64;

pub struct Wire {
    pub socket: UnixStream,
    pub tls: ClientConnection,
}

impl Wire {
    /// Connects. `None` if the server's queue of connections is full.
    pub fn connect(target: &Target) -> io::Result<Option<Self>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &SocketAddrUnix::new(&target.socket)?) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&target.config), name);
        let mut tls = tls.map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        Ok(Some(Self { socket: UnixStream::from(socket), tls }))
    }

    /// Takes the bytes of the ClientHello before they are sent.
    pub fn take_hello(&mut self) -> Vec<u8> {
        let mut hello = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut hello).is_ok() {}
        hello
    }

    pub fn send_half_hello(&mut self) {
        let hello = self.take_hello();
        // The outcome of the half hello does not matter to the flood.
        let _ = self.socket.write_all(&hello[..hello.len() / 2]);
    }

    /// Sends and receives without waiting. True if any byte moved. It fails if the connection has ended.
    pub fn exchange(&mut self) -> io::Result<bool> {
        self.hear(&mut |_| {})
    }

    /// Sends and receives without waiting, and passes the received bytes to `heard`. It fails if the connection has
    /// ended.
    pub fn hear(&mut self, heard: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut has_moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // The limit keeps a busy server from holding the flood here.
        for _ in 0..MOST_READS {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(has_moved),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut said = [0; 4096];
            while let Ok(count @ 1..) = self.tls.reader().read(&mut said) {
                heard(&said[..count]);
            }
        }
        Ok(has_moved)
    }

    /// True if the server accepts no more bytes now.
    pub fn is_full(&mut self) -> bool {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket).is_err() {
                return true;
            }
        }
        false
    }

    fn wanted(&self) -> PollFlags {
        match self.tls.wants_write() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        }
    }

    /// Makes the handshake. It fails if the connection or the flood has ended.
    pub fn shake_hands(&mut self, pace: &mut dyn FnMut(&Tally) -> Next) -> io::Result<()> {
        while self.tls.is_handshaking() || self.tls.wants_write() {
            self.exchange_or_wait(pace)?;
        }
        Ok(())
    }

    /// Sends all bytes. It fails if the connection or the flood has ended.
    pub fn send(&mut self, bytes: &[u8], pace: &mut dyn FnMut(&Tally) -> Next) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        // Received bytes must not pile up, so this also reads when all is sent.
        self.exchange()?;
        while self.tls.wants_write() {
            self.exchange_or_wait(pace)?;
        }
        Ok(())
    }

    fn exchange_or_wait(&mut self, pace: &mut dyn FnMut(&Tally) -> Next) -> io::Result<()> {
        if self.exchange()? {
            return Ok(());
        }
        wait_for_any(std::iter::once(&*self), PATIENCE)?;
        match pace(&Tally::default()) {
            Next::End => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }
}

/// Waits until any of these can send or receive. It fails as poll(2) does.
pub fn wait_for_any<'a>(
    wires: impl Iterator<Item = &'a Wire>,
    at_most: Duration,
) -> io::Result<()> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    let mut sockets: Vec<_> = wires.map(|wire| PollFd::new(&wire.socket, wire.wanted())).collect();
    poll(&mut sockets, Some(&timeout))?;
    Ok(())
}
