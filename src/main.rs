//! Hands the command line over.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Whatever is freed is wiped first: values pass through buffers of libraries that do not wipe them.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    // Some twenty threads, each of which has a little memory of its own, would take 50 MB of huge pages where the system
    // gives them to whoever does not ask. A kernel that has none refuses, and that is as well.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    keyhatch::seal::note_wiping_allocator();
    keyhatch::cli::run()
}
