//! The signals of a process that runs a command: it passes them on to the command.

use std::time::Duration;

use nix::unistd::getsid;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process};
use rustix_libc_wrappers::process::SignalExt as _;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::failure::{Failure, exit};

/// The highest signal number: signal(7).
const LAST: i32 = 64;
/// The first two cannot be handled. The others are faults of this program itself, and a handler cannot return.
const NOT_PASSED_ON: [Signal; 6] =
    [Signal::KILL, Signal::STOP, Signal::BUS, Signal::FPE, Signal::ILL, Signal::SEGV];
/// A terminal sends these to a whole process group, so the command gets them already.
const OF_A_TERMINAL: [Signal; 8] = [
    Signal::CONT,
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::WINCH,
];
/// Without a handler these do not end a process.
const HARMLESS: [Signal; 7] = [
    Signal::CHILD,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::URG,
    Signal::WINCH,
];

/// These ask a process to end.
const ENDING: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TERM];

/// Receives every signal that can be passed on. From then on signals no longer end this process.
pub struct ForwardedSignals {
    arrived: UnboundedReceiver<Arrived>,
    /// This process has stopped after the command did, and has continued.
    was_stopped: bool,
    /// True if this process was asked to end, and so was the command.
    pub is_ending: bool,
}

/// A signal, and whether a terminal sent it to the whole group.
#[derive(Clone, Copy)]
struct Arrived {
    signal: Signal,
    is_of_a_terminal: bool,
}

impl ForwardedSignals {
    /// Starts to listen. Signals that this process has inherited as ignored, as from nohup, stay ignored: the command
    /// ignores them, too.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> std::io::Result<Self> {
        let ignored = ignored_signals();
        let is_ignored = |signal: Signal| {
            ignored.checked_shr(signal.as_raw().unsigned_abs() - 1).unwrap_or(0) & 1 == 1
        };
        let taken = (1..=LAST).filter_map(Signal::from_raw).filter(|signal| {
            // Rust's runtime itself ignores PIPE, and CHLD reports the end of the command.
            let is_own = [Signal::PIPE, Signal::CHILD].contains(signal);
            !NOT_PASSED_ON.contains(signal) && (is_own || !is_ignored(*signal))
        });
        let numbers: Vec<i32> = taken.map(Signal::as_raw).collect();
        let mut listened = SignalsInfo::<WithOrigin>::new(numbers)?;
        let (sender, arrived) = unbounded_channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in listened.forever() {
                let Some(arrived) = Arrived::of(&origin) else { continue };
                if sender.send(arrived).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { arrived, was_stopped: false, is_ending: false })
    }

    /// Passes signals on to the command until it ends, and returns its exit code; 128 + N if signal N ended it. Reaps
    /// every other child, too: as process 1 this process gets those without a parent, and they would stay as zombies.
    ///
    /// # Errors
    /// If the command is not a child of this process.
    pub async fn pass_on(&mut self, command: Pid) -> Result<u8, Failure> {
        loop {
            let Arrived { signal, is_of_a_terminal } = self.next().await?;
            if signal == Signal::CHILD {
                match reap(command)? {
                    Some(status) if status.stopped() => self.stop(),
                    Some(status) => return Ok(exit_code(status)),
                    None => {}
                }
                continue;
            }
            self.is_ending |= ENDING.contains(&signal);
            // A shell continues the whole group, and so the command.
            let has_it = signal == Signal::CONT
                && std::mem::take(&mut self.was_stopped)
                && !is_stopped(command);
            if !is_of_a_terminal && !has_it {
                // The command may have ended by itself.
                let _ = kill_process(command, signal);
            }
        }
    }

    /// Ends the command, by force after this time. Returns its exit code if the command is not to be started again: it had
    /// ended by itself, or this process was asked to end; `None` otherwise.
    ///
    /// # Errors
    /// If the command is not a child of this process.
    pub async fn end(&mut self, command: Pid, patience: Duration) -> Result<Option<u8>, Failure> {
        if let Some(status) = reap(command)?.filter(|status| !status.stopped()) {
            return Ok(Some(exit_code(status)));
        }
        for signal in [Signal::TERM, Signal::CONT] {
            let _ = kill_process(command, signal);
        }
        let ended = tokio::time::timeout(patience, self.pass_on(command)).await;
        let code = match ended {
            Ok(code) => code?,
            Err(_) => {
                let _ = kill_process(command, Signal::KILL);
                self.pass_on(command).await?
            }
        };
        Ok(self.is_ending.then_some(code))
    }

    /// Waits for a signal that would end this process, after the command has ended.
    pub async fn ending(&mut self) -> Result<Signal, Failure> {
        loop {
            let arrived = self.next().await?;
            if arrived.signal == Signal::CHILD {
                while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            } else if !HARMLESS.contains(&arrived.signal) {
                return Ok(arrived.signal);
            }
        }
    }

    async fn next(&mut self) -> Result<Arrived, Failure> {
        let gone = || Failure::new("INTERNAL", "signals are no longer received", exit::FAILED);
        self.arrived.recv().await.ok_or_else(gone)
    }

    /// Stops this process like the command, so that a shell gets its terminal back.
    fn stop(&mut self) {
        let has_terminal = std::fs::File::open("/dev/tty").is_ok();
        if has_terminal && !leads_the_session() {
            self.was_stopped = true;
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }
}

impl Arrived {
    fn of(origin: &Origin) -> Option<Self> {
        let signal = Signal::from_raw(origin.signal)?;
        // This process gets PIPE from itself, and sees the error of the write.
        let is_own =
            origin.process.is_some_and(|process| process.pid == getpid().as_raw_nonzero().get());
        // A terminal that hangs up signals only the leader of the session.
        let is_for_the_leader = signal == Signal::HUP && leads_the_session();
        let is_of_a_terminal = matches!(origin.cause, Cause::Kernel)
            && OF_A_TERMINAL.contains(&signal)
            && !is_for_the_leader;
        (!is_own).then_some(Self { signal, is_of_a_terminal })
    }
}

/// Reaps every child that has ended. Returns the status of the command if it has ended or stopped.
fn reap(command: Pid) -> Result<Option<WaitStatus>, Failure> {
    while let Some((child, status)) =
        rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)
            .map_err(std::io::Error::from)?
    {
        if child == command {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

fn exit_code(status: WaitStatus) -> u8 {
    let code =
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED)
}

/// The signals that this process has inherited as ignored: SigIgn of proc(5), a bit each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// True if this process leads its session. rustix cannot represent a session of another namespace, whose number is 0.
fn leads_the_session() -> bool {
    getsid(None).is_ok_and(|session| session == nix::unistd::getpid())
}

/// True if a process is stopped: the state behind its name in proc(5).
fn is_stopped(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit(')').next().is_some_and(|state| state.trim_start().starts_with('T'))
    })
}
