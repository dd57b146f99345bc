//! Hands the command line over.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyhatch::cli::run()
}
