//! `keyhatch completion`: this program's commands, for a shell to complete.

use clap_complete::{Shell, generate};

use super::failure::Failure;
use super::{command, output};

/// Arguments of `completion`.
#[derive(clap::Args)]
pub struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "keyhatch", &mut script);
        output::write(&script)
    }
}
