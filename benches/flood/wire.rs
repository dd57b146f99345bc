//! One connection of a flood, which never waits for longer than it is told to.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{Next, PATIENCE, Tally, Target};

pub struct Wire {
    pub socket: UnixStream,
    pub tls: ClientConnection,
}

impl Wire {
    /// Connects; none if too many wait for the server already.
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

    /// The ClientHello in bytes that were not sent.
    pub fn take_hello(&mut self) -> Vec<u8> {
        let mut hello = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut hello).is_ok() {}
        hello
    }

    pub fn send_half_hello(&mut self) {
        let hello = self.take_hello();
        // What the server makes of it is for the server to see.
        let _ = self.socket.write_all(&hello[..hello.len() / 2]);
    }

    /// Moves what can be moved without waiting; whether anything was.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn exchange(&mut self) -> io::Result<bool> {
        let mut has_moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(has_moved),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut said = [0; 4096];
            while self.tls.reader().read(&mut said).is_ok_and(|count| count > 0) {}
        }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// If the connection has ended, or the flood has.
    pub fn shake_hands(&mut self, pace: &mut dyn FnMut(&Tally) -> Next) -> io::Result<()> {
        while self.tls.is_handshaking() || self.tls.wants_write() {
            self.exchange_or_wait(pace)?;
        }
        Ok(())
    }

    /// Sends all of this.
    ///
    /// # Errors
    /// If the connection has ended, or the flood has.
    pub fn send(&mut self, bytes: &[u8], pace: &mut dyn FnMut(&Tally) -> Next) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        // Even when all of it is gone there may be something to read, which must not pile up.
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
        let wanted = match self.tls.wants_write() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        wait(&self.socket, wanted, PATIENCE)?;
        match pace(&Tally::default()) {
            Next::End => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }
}

fn wait(socket: &UnixStream, wanted: PollFlags, at_most: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(socket, wanted)], Some(&timeout))?;
    Ok(())
}
