//! A KEK that a command prints: any key management service, a smart card, systemd-creds.

use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use zeroize::Zeroizing;

use super::error::KekError;
use super::{Kek, KekKind, check_owner, decode_digits};
use crate::model::{Clock, Timestamp};
use crate::seal::memory::secret_memory::SecretKey;
use crate::sys::{DirectoryError, Trust};

/// How long a command may take. Shorter than a request, so that the request can report it.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest output that is read: more than 64 digits and a newline.
const MAX_OUTPUT_BYTES: usize = 128;

/// Runs a command, without a shell, and reads the key that it prints: 64 hexadecimal digits, or 32 bytes.
///
/// The command inherits stderr; its output is never shown. The program, and every directory that leads to it, belong to
/// root or the broker's user: no other user can replace the program before it is run by its path.
///
/// # Errors
/// If another user could replace the program, it cannot be run or fails, or it prints no key in 30 seconds.
pub(crate) fn run(words: &[String], trust: &Trust) -> Result<Kek, KekError> {
    let (program, arguments) = words.split_first().ok_or(KekError::NoCommand)?;
    let failed = |what: String| KekError::Command { program: program.clone(), what };
    let unrunnable = |error: std::io::Error| failed(format!("cannot be run: {error}"));
    let path = find(program).ok_or_else(|| unrunnable(ErrorKind::NotFound.into()))?;
    let found = trust.locate(&path).map_err(|error| match error {
        DirectoryError::Io { source, .. } => unrunnable(source),
        error => KekError::Place(error),
    })?;
    check_owner(&found, &std::fs::metadata(&found).map_err(unrunnable)?, trust)?;
    let mut command = Command::new(&path);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(unrunnable)?;
    let mut output = Zeroizing::new([0_u8; MAX_OUTPUT_BYTES]);
    let ended = finish(&mut child, &mut *output);
    if ended.is_err() {
        // The command may have ended meanwhile.
        let _ = child.kill().and_then(|()| child.wait());
    }
    let (length, status) = ended.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => failed(format!("took more than {} s", DEADLINE.as_secs())),
        _ => failed(error.to_string()),
    })?;
    if !status.success() {
        // "exit status: 3", or the signal that ended it.
        return Err(failed(format!("failed: {status}")));
    }
    let printed = output.get(..length).unwrap_or_default();
    parse(printed)
        .map(|key| Kek::new(key, KekKind::Command))
        .ok_or_else(|| failed("printed neither 64 hexadecimal digits nor 32 bytes".to_owned()))
}

/// The path of a program, as execvp(3) finds it.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

fn parse(printed: &[u8]) -> Option<SecretKey> {
    match <&[u8; 32]>::try_from(printed) {
        Ok(key) => Some(SecretKey::new(key)),
        Err(_) => decode_digits(printed.trim_ascii_end()),
    }
}

/// Reads the command's output and waits for its end. Returns the length of the output, at most that of the buffer.
fn finish(child: &mut Child, output: &mut [u8]) -> std::io::Result<(usize, ExitStatus)> {
    let clock = Clock::system();
    let deadline = Deadline { until: clock.now().after(DEADLINE), clock };
    let length = match child.stdout.take() {
        Some(stdout) => read(stdout, output, &deadline)?,
        None => 0,
    };
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    deadline.wait_for(PollFd::new(&end, PollFlags::IN))?;
    Ok((length, child.wait()?))
}

fn read(mut stdout: ChildStdout, output: &mut [u8], deadline: &Deadline) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(free) = output.get_mut(length..).filter(|free| !free.is_empty()) {
        deadline.wait_for(PollFd::new(&stdout, PollFlags::IN))?;
        match stdout.read(free)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// The time until which the command is waited for.
struct Deadline {
    clock: Clock,
    until: Timestamp,
}

impl Deadline {
    fn wait_for(&self, what: PollFd<'_>) -> std::io::Result<()> {
        let mut waited = [what];
        loop {
            let timeout = Timespec::try_from(self.until.since(self.clock.now())).ok();
            match poll(&mut waited, timeout.as_ref()) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
