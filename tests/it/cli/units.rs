//! The printed systemd units.

use std::path::Path;
use std::process::Command;

use keyhatch::daemon::{DaemonError, steps_within};
use keyhatch::model::Limits;

use crate::cli::packaging::is_installed;
use crate::harness::{keyhatch, skipped, succeeded, text};

/// The unit that these arguments print.
fn unit(arguments: &[&str]) -> String {
    succeeded(&keyhatch(&[&["config", "systemd-unit"], arguments].concat()).output().unwrap())
}

fn has(unit: &str, line: &str) -> bool {
    unit.lines().any(|given| given == line)
}

#[test]
fn the_unit_allows_only_the_network_of_its_options() {
    let shut = unit(&[]);
    assert!(has(&shut, "PrivateNetwork=yes") && !shut.contains("AF_INET"), "{shut}");
    let is_closed = |unit: &str| {
        let name = unit.lines().find(|line| line.starts_with("Description=")).unwrap();
        name.ends_with(" (closed: it connects to nobody)") && unit.contains("# This unit is closed")
    };
    assert!(is_closed(&shut), "{shut}");
    let metrics = unit(&["--metrics", "127.0.0.1:9464"]);
    assert!(metrics.contains(" serve --metrics 127.0.0.1:9464 --state "), "{metrics}");
    for line in [
        "PrivateNetwork=no",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
    ] {
        assert!(has(&metrics, line), "{line}");
    }
    assert!(is_closed(&metrics), "{metrics}");
    let network = unit(&["--metrics", "127.0.0.1:9464", "--network"]);
    assert!(has(&network, "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"), "{network}");
    assert!(!network.contains("closed") && network.contains("[egress]"), "{network}");
    assert!(has(&network, "PrivateNetwork=no") && !network.contains("IPAddress"), "{network}");
    assert!(has(&network, "Type=notify"));
    let names = ["--admin-name", "a.example.com", "--admin-name", "10.0.0.5"];
    let operators = unit(&[&["--admin-listen", "[::]:7443"], &names[..]].concat());
    let options =
        " serve --admin-listen [::]:7443 --admin-name a.example.com --admin-name 10.0.0.5 --state ";
    assert!(operators.contains(options), "{operators}");
    assert!(has(&operators, "PrivateNetwork=no") && !operators.contains("closed"), "{operators}");
    let refused = keyhatch(&["config", "systemd-unit", "--metrics", "0.0.0.0:9464"]).output();
    assert!(text(&refused.unwrap().stderr).contains("must be a loopback address"));
    // A daemon in a unit without a network reports why it cannot bind its address.
    let address = "127.0.0.1:9464".parse().unwrap();
    let source = rustix::io::Errno::AFNOSUPPORT.into();
    let told = DaemonError::Metrics { address, source }.to_string();
    assert!(told.contains("RestrictAddressFamilies") && told.contains("PrivateNetwork"), "{told}");
}

#[test]
fn the_unit_has_the_files_that_all_steps_need() {
    let (limits, unit) = (Limits::default(), unit(&[]));
    let files = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
    assert_eq!(steps_within(Some(files.parse().unwrap()), &limits, true), limits.open_steps);
}

#[test]
fn the_unit_keeps_its_state_in_the_given_directory() {
    let elsewhere = unit(&["--state", "/srv/kh"]);
    assert!(elsewhere.contains(" --state /srv/kh "), "{elsewhere}");
    assert!(has(&elsewhere, "ReadWritePaths=/srv/kh"), "{elsewhere}");
    assert!(!elsewhere.contains("StateDirectory") && !elsewhere.contains("/var/lib/keyhatch"));
    let named = unit(&["--state", "/var/lib/other/kh"]);
    assert!(has(&named, "StateDirectory=other/kh") && has(&named, "StateDirectoryMode=0700"));
    let refused = keyhatch(&["config", "systemd-unit", "--state", "/srv/a b"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn a_program_or_state_that_the_unit_hides_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("keyhatch");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keyhatch")).arg(&program).status();
    assert!(copied.unwrap().success());
    let printed = Command::new(&program).args(["config", "systemd-unit"]).output().unwrap();
    let told = text(&printed.stderr);
    let way = format!("install -m 755 {} /usr/local/bin/keyhatch", program.display());
    assert!(told.starts_with("warning: ") && told.contains(&way), "{told}");
    let at_home = keyhatch(&["config", "systemd-unit", "--state", "/home/al/kh"]).output().unwrap();
    assert!(text(&at_home.stderr).contains("/home/al/kh is below /home"), "{at_home:?}");
}

#[test]
fn the_units_are_written_with_a_timer_that_renews() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let arguments = ["--out", out, "--state", "/srv/kh", "--renew", "/home/ci/keyhatch"];
    let written = unit(&arguments);
    let read = |name: &str| std::fs::read_to_string(Path::new(out).join(name)).unwrap();
    let names = ["keyhatch.service", "keyhatch-renew.service", "keyhatch-renew.timer"];
    assert_eq!(written, names.map(|name| format!("{out}/{name}\n")).concat());
    let renewal = read(names[1]);
    let program = env!("CARGO_BIN_EXE_keyhatch");
    for line in [
        format!("ExecStart={program} renew --if-due --state /srv/kh"),
        format!("ExecStart={program} renew --if-due /home/ci/keyhatch"),
        "ReadWritePaths=/srv/kh".to_owned(),
        "ReadWritePaths=/home/ci/keyhatch".to_owned(),
    ] {
        assert!(has(&renewal, &line), "{line}");
    }
    let verified = names.iter().map(|name| Path::new(out).join(name));
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").args(verified).output() else {
        skipped("systemd reads the units", "systemd-analyze is not installed");
        return;
    };
    let said = text(&verified.stdout) + &text(&verified.stderr);
    assert!(verified.status.success() && !said.contains("/keyhatch"), "{said}");
}

#[test]
fn systemd_accepts_the_unit_and_it_grants_little() {
    let printed = keyhatch(&["config", "systemd-unit"]).output().unwrap();
    let unit = text(&printed.stdout);
    let start = format!("ExecStart={} serve ", env!("CARGO_BIN_EXE_keyhatch"));
    assert!(unit.lines().any(|line| line.starts_with(&start)), "{unit}");
    for line in [
        "User=keyhatch",
        "StateDirectory=keyhatch",
        "RuntimeDirectory=keyhatch-broker",
        "RuntimeDirectoryPreserve=yes",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "MemoryDenyWriteExecute=yes",
        "LimitCORE=0",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "UMask=0077",
        "KillSignal=SIGTERM",
        "Restart=on-failure",
    ] {
        assert!(unit.lines().any(|given| given == line), "{line}");
    }
    assert!(!unit.contains("AmbientCapabilities"), "{unit}");
    let calls = unit.lines().find(|line| line.starts_with("SystemCallFilter=")).unwrap();
    assert!(calls.contains("memfd_secret") && calls.contains("mlock"), "{calls}");
    if !is_installed("systemd-analyze") {
        skipped("systemd reads the unit", "systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keyhatch.service");
    std::fs::write(&file, &unit).unwrap();
    let read = Command::new("systemd-analyze").arg("verify").arg(&file).output().unwrap();
    let said = text(&read.stdout) + &text(&read.stderr);
    assert!(read.status.success() && !said.contains("keyhatch.service:"), "{said}");
}
