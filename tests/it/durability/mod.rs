//! Kills, restarts, failing disks, power cuts, damage and upgrades. `tests/run --quick` leaves this folder out. A test
//! belongs here if it breaks the daemon or its disk, or starts the daemon again.

mod bit_flips;
pub mod disk;
mod disk_faults;
mod endings;
mod hanging_disk;
mod kills;
mod lifecycle;
mod power_cuts;
mod restarts;
mod unwritten_endings;
mod upgrades;
