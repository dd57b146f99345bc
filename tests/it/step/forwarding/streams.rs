//! Bodies that are larger than any buffer.

use super::World;
use crate::harness::{report, scale, text};

/// The most memory that the daemon may take for streams, in KiB.
const MOST_GROWTH: u64 = 20 * 1024;

#[test]
fn large_bodies_take_no_memory_of_the_daemon() {
    let Some(world) = World::start() else { return };
    let (mib, serving) = (scale(96, 1024), &world.steps.serving);
    let file = std::fs::File::create(world.nginx.files().join("large")).unwrap();
    file.set_len(u64::try_from(mib).unwrap() << 20).unwrap();
    // Nothing of the first requests counts.
    world.steps.text(&["send", "http/api", "PUT", "/files/small", "--data", "all is well"]);
    world.steps.text(&["send", "http/api", "GET", "/files/small"]);
    let most = || serving.memory("VmHWM:");
    let before = most();
    // What comes down goes up again, and nobody knows its length.
    let script = "keyhatch send --fail http/api GET /files/large | keyhatch send --fail http/api PUT /files/copy --data -";
    let ran = world.steps.run("sh", &["-euc", script]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let grown = most().saturating_sub(before);
    let copy = std::fs::metadata(world.nginx.files().join("copy")).unwrap().len();
    assert_eq!(copy, u64::try_from(mib).unwrap() << 20);
    report(
        "large bodies through Send",
        format!("{mib} MiB each way"),
        format!("{grown} KiB more"),
        "",
    );
    assert!(grown < MOST_GROWTH, "{grown} KiB");
}
