//! Questions on the terminal. They go to stderr: stdout is the answer.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::failure::{Failure, exit};

/// Asks whether to go on, unless `--yes` was given.
///
/// # Errors
/// `USAGE` if stdin is no terminal; `CANCELLED` if the answer is not yes.
pub fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to ask: give --yes")));
    }
    match ask(&format!("{question} [y/N] "))?.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("CANCELLED", "nothing was done", exit::FAILED)),
    }
}

/// Asks for a line, and returns it without its newline.
///
/// # Errors
/// If the terminal cannot be read or written.
pub fn ask(prompt: &str) -> Result<String, Failure> {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush())?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches('\n').to_owned())
}

/// Asks on the controlling terminal for a line that it does not show, even if the line is typed before the prompt is
/// there.
///
/// # Errors
/// If there is no terminal, or it cannot be read or written.
pub fn ask_hidden(prompt: &str) -> std::io::Result<Vec<u8>> {
    let mut terminal = HiddenTerminal::open()?;
    terminal.file.write_all(prompt.as_bytes())?;
    Ok(rpassword::read_password()?.into_bytes())
}

/// The controlling terminal without its echo, until this is dropped.
///
/// rpassword turns the echo off after its prompt, and at Ctrl-C it ends the process before it turns the echo on again. So
/// the echo is off before, and an interrupt waits until the terminal is as it was.
struct HiddenTerminal {
    file: File,
    before: Termios,
    interrupts: SigSet,
}

impl HiddenTerminal {
    fn open() -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&file)?;
        let mut interrupts = SigSet::empty();
        interrupts.add(Signal::SIGINT);
        interrupts.thread_block()?;
        let terminal = Self { file, before, interrupts };
        let mut hidden = terminal.before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal.file, OptionalActions::Now, &hidden)?;
        Ok(terminal)
    }
}

impl Drop for HiddenTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Now, &self.before);
        let _ = self.interrupts.thread_unblock();
    }
}
