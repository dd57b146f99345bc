//! Results of long tests in figures, and the choice between the quick and the full form.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// True if the tests run in their full form.
pub fn full() -> bool {
    std::env::var_os("KEYHATCH_FULL").is_some_and(|value| value == "1")
}

/// A count for the quick form, or for the full form.
pub fn scale(quick: usize, complete: usize) -> usize {
    if full() { complete } else { quick }
}

/// Prints a result: the test, the count, the outcome, and the outcome of a careless version. The row is also added to
/// the file that `KEYHATCH_RESULTS` names.
pub fn report(what: &str, count: impl Display, outcome: impl Display, control: impl Display) {
    let row = format!("{what}\t{count}\t{outcome}\t{control}\n");
    print!("{}", row.replace('\t', " | "));
    if let Some(path) = std::env::var_os("KEYHATCH_RESULTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        // A single write keeps rows of parallel tests apart.
        file.write_all(row.as_bytes()).unwrap();
    }
}

/// Reports a test that cannot run here, and the reason. In the full form this is a failure.
pub fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
    report(what, "not run", why, "");
    assert!(!full(), "{what}: nothing is skipped in the full form");
}

/// Reports a missing part that `tests/run` sets up. In CI this is a failure too.
pub fn not_set_up(what: &str, why: &str) {
    skipped(what, why);
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{what} must be there in CI");
}

/// The directory of an installed client. `None` if it is not installed; the test is then reported as skipped.
pub fn installed(client: &str) -> Option<PathBuf> {
    let found =
        std::env::var_os("KEYHATCH_TEST_CLIENTS").map(|clients| Path::new(&clients).join(client));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        not_set_up(&format!("{client} client"), "not installed; run tests/run");
    }
    found
}
