//! The signals of a process that runs a command: the command gets what the process was sent.

use std::time::Duration;

use nix::unistd::getsid;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process};
use rustix_libc_wrappers::process::SignalExt as _;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::failure::{Failure, exit};

/// The highest number of a signal: signal(7).
const LAST: i32 = 64;
/// No handler takes the first two. The others are faults of this program itself, to which no handler can return.
const NOT_PASSED_ON: [Signal; 6] =
    [Signal::KILL, Signal::STOP, Signal::BUS, Signal::FPE, Signal::ILL, Signal::SEGV];
/// A terminal gives these to a whole group, the command included; passed on, they would come twice.
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
/// A process that does not handle these goes on all the same, or after a pause.
const HARMLESS: [Signal; 7] = [
    Signal::CHILD,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::URG,
    Signal::WINCH,
];

/// With these a process is told to end.
const ENDING: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TERM];

/// Every signal that can be passed on. Listening is for the rest of this process's life: signals no longer end it.
pub struct ForwardedSignals {
    arrived: UnboundedReceiver<Arrived>,
    /// This process has stopped after the command, and goes on now.
    was_stopped: bool,
    /// Whether this process was told to end, and so was the command.
    pub is_ending: bool,
}

/// A signal, and whether the kernel sent it to a whole group.
#[derive(Clone, Copy)]
struct Arrived {
    signal: Signal,
    is_of_a_terminal: bool,
}

impl ForwardedSignals {
    /// Listens from now on. Signals that this process has inherited as ignored, as nohup has it, stay ignored: the
    /// command ignores them, too.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> std::io::Result<Self> {
        let ignored = ignored_signals();
        let is_ignored = |signal: Signal| {
            ignored.checked_shr(signal.as_raw().unsigned_abs() - 1).unwrap_or(0) & 1 == 1
        };
        let taken = (1..=LAST).filter_map(Signal::from_raw).filter(|signal| {
            // Rust's runtime ignores PIPE for itself. Without CHLD nobody would know that the command has ended.
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

    /// Passes signals on to the command until it has ended; 128 + N if signal N ended it. As process 1, and wherever
    /// processes without a parent become this one's children, it takes note of their end, too: they would stay as zombies.
    ///
    /// # Errors
    /// If the command is not this process's child.
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
            // The shell that lets this process go on lets its whole group go on.
            let has_it = signal == Signal::CONT
                && std::mem::take(&mut self.was_stopped)
                && !is_stopped(command);
            if !is_of_a_terminal && !has_it {
                // It may have ended by itself meanwhile.
                let _ = kill_process(command, signal);
            }
        }
    }

    /// Ends the command, by force after this time. Gives its exit code if it is not to be begun again: it has ended by
    /// itself before, or this process was told to end meanwhile.
    ///
    /// # Errors
    /// If the command is not this process's child.
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

    /// Waits for a signal that means this process, the command having ended.
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
        let gone = || Failure::new("INTERNAL", "signals are no longer heard", exit::FAILED);
        self.arrived.recv().await.ok_or_else(gone)
    }

    /// Stops after the command, where a shell waits to have its terminal back.
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
        // A pipe that this process writes to is closed: it knows.
        let is_own =
            origin.process.is_some_and(|process| process.pid == getpid().as_raw_nonzero().get());
        // A terminal that hangs up tells the session's leader, and not the leader's group.
        let is_for_the_leader = signal == Signal::HUP && leads_the_session();
        let is_of_a_terminal = matches!(origin.cause, Cause::Kernel)
            && OF_A_TERMINAL.contains(&signal)
            && !is_for_the_leader;
        (!is_own).then_some(Self { signal, is_of_a_terminal })
    }
}

/// Takes note of every child that has ended. Says how the command has, or that it was stopped.
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

/// A session that began outside of this process's namespace has the number 0, which rustix cannot tell.
fn leads_the_session() -> bool {
    getsid(None).is_ok_and(|session| session == nix::unistd::getpid())
}

/// Whether a process is stopped: the state behind its name in proc(5).
fn is_stopped(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit(')').next().is_some_and(|state| state.trim_start().starts_with('T'))
    })
}
