//! The program `keyhatch`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: keyhatch::seal::Allocator = keyhatch::seal::ALLOCATOR;

fn main() -> ExitCode {
    // Some twenty threads with a little memory each would take 50 MB on a system that gives out huge pages by default. A
    // kernel without huge pages refuses, which is fine.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    keyhatch::seal::note_wiping_allocator();
    keyhatch::cli::run()
}
