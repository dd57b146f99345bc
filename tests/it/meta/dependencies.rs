//! Every crate in the program has a licence, a name and a source that `deny.toml` allows.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::harness::text;

#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// A crate of the resolved graph. `Cargo.lock` alone also lists crates of features that are off.
struct Dependency {
    name: String,
    license: String,
    /// Its registry, repository or directory; empty if it comes from crates.io.
    source: String,
}

fn dependencies() -> Vec<Dependency> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--edges", "normal,build,dev"]);
    tree.args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]);
    let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let described = text(&output.stdout);
    // The first line is keyhatch itself.
    let crates = described.lines().skip(1).map(|line| {
        let (package, license) = line.split_once('|').unwrap();
        let package = package.replace(" (proc-macro)", "");
        let mut words = package.splitn(3, ' ');
        let (name, source) = (words.next().unwrap().to_owned(), words.nth(1).unwrap_or_default());
        Dependency { name, license: license.to_owned(), source: source.to_owned() }
    });
    crates.collect()
}

/// True if each part that AND joins has an alternative in `allowed`.
fn is_allowed(license: &str, allowed: &[String]) -> bool {
    license.replace('/', " OR ").split(" AND ").all(|part| {
        let alternatives = part.split(" OR ").map(|name| name.trim_matches([' ', '(', ')']));
        alternatives.into_iter().any(|name| allowed.iter().any(|allowed| allowed == name))
    })
}

#[test]
fn dependencies_are_what_the_policy_allows() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let policy: Policy = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let crates = dependencies();
    assert!(crates.iter().any(|found| found.name == "aws-lc-rs"), "the whole graph is listed");
    for Dependency { name, license, source } in crates {
        assert!(is_allowed(&license, &policy.licenses.allow), "{name}: licence {license:?}");
        assert!(policy.bans.deny.iter().all(|banned| banned.name != name), "{name} is banned");
        assert_eq!(source, "", "{name} does not come from crates.io");
    }
}

#[test]
fn a_licence_must_be_allowed_in_each_of_its_parts() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for good in ["MIT", "ISC AND (GPL-3.0 OR MIT)", "GPL-3.0 OR MIT", "GPL-3.0/MIT"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT AND (GPL-3.0 OR AGPL-3.0)"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
