//! Hands the command line over.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: keyhatch::seal::Allocator = keyhatch::seal::ALLOCATOR;

fn main() -> ExitCode {
    // Some twenty threads, each of which has a little memory of its own, would take 50 MB of huge pages where the system
    // gives them to whoever does not ask. A kernel that has none refuses, and that is as well.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    keyhatch::seal::note_wiping_allocator();
    keyhatch::cli::run()
}
