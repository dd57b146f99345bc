//! Questions on the terminal. They go to stderr: stdout is the answer.

use std::io::{IsTerminal as _, Write as _};

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

/// Asks for a line that the terminal does not show.
///
/// # Errors
/// If the terminal cannot be read or written.
pub fn ask_hidden(prompt: &str) -> Result<Vec<u8>, Failure> {
    Ok(rpassword::prompt_password(prompt)?.into_bytes())
}
