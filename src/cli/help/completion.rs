//! `keyhatch completion`: prints a script with which a shell completes the commands.

use clap_complete::{Shell, generate};

use crate::cli::command;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;

/// Arguments of `completion`.
#[derive(clap::Args)]
pub struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "keyhatch", &mut script);
        output::write(&script)
    }
}
