//! Hands the command line over.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Whatever is freed is wiped first: values pass through buffers of libraries that do not wipe them.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    keyhatch::seal::note_wiping_allocator();
    keyhatch::cli::run()
}
