//! The machine of a run, as far as it explains the figures.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

/// The flags of a processor that decide how fast TLS, hashes and ciphers are, by their names in /proc/cpuinfo: of x86-64,
/// then of ARM.
const FLAGS: [&str; 9] =
    ["sha_ni", "aes", "avx2", "avx512f", "vaes", "vpclmulqdq", "sha2", "pmull", "sve2"];

#[derive(Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The machine's type. Results of one type are compared with each other.
    pub label: String,
    pub flags: String,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Self {
        let processor = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |field: &str| {
            let line = processor.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| Some(line.split_once(':')?.1.trim())).unwrap_or_default()
        };
        let has = [of("flags"), of("Features")].join(" ");
        let has: Vec<_> = has.split_whitespace().collect();
        let flags: Vec<_> = FLAGS.into_iter().filter(|flag| has.contains(flag)).collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            label: format!("{}, {cores} cores", of("model name")),
            flags: flags.join(" "),
            kernel: kernel.split('-').next().unwrap_or_default().trim().to_owned(),
        }
    }
}
