//! What the tests of the worst day found, in figures.

use std::fmt::Display;
use std::io::Write as _;

/// Whether everything is asked for, and not only what is quick.
pub fn full() -> bool {
    std::env::var_os("KEYHATCH_FULL").is_some_and(|value| value == "1")
}

/// How many, in the quick and in the full form.
pub fn scale(quick: usize, complete: usize) -> usize {
    if full() { complete } else { quick }
}

/// States a result: what was done, how often, what came of it, and what came of the careless version.
/// It is printed, and added to the table that `KEYHATCH_RESULTS` names.
pub fn report(what: &str, count: impl Display, outcome: impl Display, control: impl Display) {
    let row = format!("{what}\t{count}\t{outcome}\t{control}\n");
    print!("{}", row.replace('\t', " | "));
    if let Some(path) = std::env::var_os("KEYHATCH_RESULTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        // One write: rows of tests that run at once do not mix.
        file.write_all(row.as_bytes()).unwrap();
    }
}

/// States what cannot be tried here, and why. In the full form that is a failure.
pub fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
    report(what, "not run", why, "");
    assert!(!full(), "{what}: nothing is skipped in the full form");
}

/// The same of what `tests/run` sets up: in CI, too, that is a failure.
pub fn not_set_up(what: &str, why: &str) {
    skipped(what, why);
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{what} must be there in CI");
}
