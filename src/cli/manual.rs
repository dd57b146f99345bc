//! `keyhatch man`: pages for man(1), from the same source as `--help`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_mangen::{Man, generate_to};

use super::failure::Failure;
use super::{Cli, output};

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct Manual {
    /// Write a page for each command into this directory, which is made if it is missing; otherwise the page of
    /// keyhatch itself is printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Some(directory) = self.out else {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page)?;
            return output::write(&page);
        };
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| generate_to(Cli::command(), &directory));
        written.map_err(|error| {
            Failure::usage(format!(
                "--out {}: {error}; name a directory to write to",
                directory.display()
            ))
        })
    }
}
