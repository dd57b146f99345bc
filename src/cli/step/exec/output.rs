//! The way of the command's output through the masks.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::streams::CommandStream;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::mask::{Masks, StreamMask};
use crate::model::{Clock, Timestamp};

/// Bytes read at a time: the capacity of a pipe.
const PIECE_BYTES: usize = 64 * 1024;
/// How long the output is passed on of a process that the command left behind.
const GRACE: Duration = Duration::from_secs(2);

/// How long output is held back for what may follow. A program that writes single bytes is faster.
const QUIET: Duration = Duration::from_millis(100);

/// The end of a wait.
enum Waited {
    /// There is output, or its end.
    Output,
    /// No output came in time.
    Quiet,
    /// The grace period after the command is over.
    GivenUp,
}

/// The streams of a command that are masked.
pub struct MaskedOutputs {
    copies: Vec<JoinHandle<bool>>,
    /// The pipes that the command writes to, also after a restart.
    pipes: Vec<(CommandStream, PipeWriter)>,
    /// Dropped when the command has ended.
    ended: PipeWriter,
}

impl MaskedOutputs {
    /// Makes pipes for these streams, and starts a thread for each.
    pub fn open(streams: &[CommandStream], masks: &Arc<Masks>) -> Result<Self, Failure> {
        let (ended_reader, ended) = std::io::pipe()?;
        let (mut copies, mut pipes) = (Vec::new(), Vec::new());
        for stream in streams {
            let (from, pipe) = std::io::pipe()?;
            let to = match stream {
                CommandStream::Stdout => own(std::io::stdout().as_fd())?,
                CommandStream::Stderr => own(std::io::stderr().as_fd())?,
            };
            let (ended, masks) = (ended_reader.try_clone()?, Arc::clone(masks));
            let copy = move || copy(from, to, &ended, &masks);
            copies.push(std::thread::Builder::new().name("output".to_owned()).spawn(copy)?);
            pipes.push((*stream, pipe));
        }
        Ok(Self { copies, pipes, ended })
    }

    /// Makes a command write to the pipes.
    pub fn attach(&self, command: &mut Command) -> std::io::Result<()> {
        for (stream, pipe) in &self.pipes {
            let pipe = Stdio::from(pipe.try_clone()?);
            match stream {
                CommandStream::Stdout => command.stdout(pipe),
                CommandStream::Stderr => command.stderr(pipe),
            };
        }
        Ok(())
    }

    /// Waits for the rest of the output once the command has ended.
    pub fn finish(self) {
        drop((self.pipes, self.ended));
        // A panic counts as a stream that was not copied to its end.
        let cut: Vec<bool> =
            self.copies.into_iter().map(|copy| copy.join().unwrap_or(true)).collect();
        if cut.contains(&true) {
            say(
                "a process that the command left behind still had its output open; what it writes now is lost",
            );
        }
    }
}

fn own(descriptor: BorrowedFd<'_>) -> std::io::Result<File> {
    descriptor.try_clone_to_owned().map(File::from)
}

/// Copies a stream. Returns true if it was given up before its end.
fn copy(mut from: PipeReader, mut to: File, ended: &PipeReader, masks: &Masks) -> bool {
    let mut stream = StreamMask::default();
    let mut piece = vec![0; PIECE_BYTES];
    let mut deadline = None;
    let is_cut = loop {
        match wait(&from, ended, &mut deadline, stream.is_holding().then_some(QUIET)) {
            Ok(Waited::Output) => {}
            Ok(Waited::Quiet) => {
                if to.write_all(&stream.release(&masks.patterns())).is_err() {
                    return false;
                }
                continue;
            }
            Ok(Waited::GivenUp) | Err(_) => break true,
        }
        match from.read(&mut piece) {
            Ok(0) => break false,
            Ok(length) => {
                let written =
                    stream.feed(&masks.patterns(), piece.get(..length).unwrap_or_default());
                // The reader has gone. Ending here gives the command a SIGPIPE.
                if to.write_all(&written).is_err() {
                    return false;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break false,
        }
    };
    let _ = to.write_all(&stream.finish(&masks.patterns()));
    is_cut
}

/// Waits for output: without limit while the command runs, and for the grace period after it. Returns earlier after
/// `quiet`.
fn wait(
    from: &PipeReader,
    ended: &PipeReader,
    deadline: &mut Option<Timestamp>,
    quiet: Option<Duration>,
) -> rustix::io::Result<Waited> {
    if deadline.is_none() {
        let mut both = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        if !polled(&mut both, quiet)? {
            return Ok(Waited::Quiet);
        }
        let [_, ended] = &both;
        if ended.revents().is_empty() {
            return Ok(Waited::Output);
        }
        *deadline = Some(Clock::system().now().after(GRACE));
    }
    let left = deadline.map_or(Duration::ZERO, |deadline| deadline.since(Clock::system().now()));
    let timeout = quiet.map_or(left, |quiet| quiet.min(left));
    let is_ready = polled(&mut [PollFd::new(from, PollFlags::IN)], Some(timeout))?;
    Ok(match is_ready {
        true => Waited::Output,
        false if timeout < left => Waited::Quiet,
        false => Waited::GivenUp,
    })
}

/// poll(2), repeated when a signal interrupts it. Returns whether anything is ready.
fn polled(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> rustix::io::Result<bool> {
    let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or_default());
    loop {
        match poll(descriptors, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}
