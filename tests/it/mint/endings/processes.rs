//! Daemons that die while credentials end.

use tokio::runtime::Runtime;

use crate::harness::{
    ServeProcess, connection, init_in, request, resolve_on, step_channel, temp_dir, wait_until,
};
use crate::mint::ROOT;
use crate::mint::processes::serve;
use crate::mint::upstream::{REVOKE, Scripted, status};

/// The lines of an event.
fn lines_of(directory: &std::path::Path, event: &str) -> Vec<String> {
    let lines = std::fs::read_to_string(directory.join("state/journal/000001.jsonl")).unwrap();
    let wanted = format!("\"event\":\"{event}\"");
    lines.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect()
}

#[test]
fn endings_go_on_after_a_kill_and_a_long_outage() {
    let (directory, upstream) = (temp_dir(), Scripted::start());
    let runtime = Runtime::new().unwrap();
    init_in(directory.path());
    let serving = serve(directory.path(), &upstream, &[]);
    let urls = [upstream.url("/token"), upstream.url(REVOKE)];
    let fields = [
        ("token_url", urls[0].as_str()),
        ("revocation_url", urls[1].as_str()),
        ("client_id", "me"),
        ("client_secret", ROOT),
    ];
    let seed = directory.path().join("seed.yaml");
    std::fs::write(&seed, connection("oauth2", "api", &fields)).unwrap();
    serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    let opened = runtime.block_on(serving.open("w", "s")).ok().unwrap();
    let channel = runtime.block_on(step_channel(opened.directory.as_ref()));
    let got = runtime.block_on(resolve_on(channel, request("oauth2/api"))).unwrap();
    upstream.revokes(|_| status(503, "{}"));
    let closed = serving.must(&["step", "close", &opened.name]);
    assert!(closed.contains("not ended upstream yet: the credential of oauth2/api"), "{closed}");
    assert!(closed.contains("UPSTREAM_UNAVAILABLE"), "{closed}");
    // The connection is gone when the broker comes back, and so is its root.
    let deleted = serving.run(&["connection", "delete", "oauth2/api", "--yes", "--force"]);
    let told = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(deleted.status.success() && told.contains("not ended upstream yet"), "{told}");
    serving.kill();
    for _ in 0..2 {
        kill_and_start(directory.path(), &upstream);
    }
    upstream.revokes(|_| status(200, ""));
    let serving = serve(directory.path(), &upstream, &[]);
    wait_until("it is ended", || !lines_of(directory.path(), "ended_upstream").is_empty());
    assert_eq!(lines_of(directory.path(), "ending").len(), 1);
    assert!(upstream.revoked().iter().all(|token| *token == got.fields["access_token"]));
    wait_until("the record is removed", || {
        lines_of(directory.path(), "intent").iter().any(|line| line.contains("ending.forget"))
    });
    assert_eq!(serving.must(&["ending", "list"]).trim(), "no endings are pending");
    let log = serving.log();
    assert!(!log.contains(ROOT) && !log.contains("minted-"), "{log}");
    assert!(serving.terminate());
}

/// Serves until the upstream is asked, and kills the daemon.
fn kill_and_start(directory: &std::path::Path, upstream: &Scripted) {
    let asked = upstream.revoked().len();
    let serving: ServeProcess = serve(directory, upstream, &[]);
    wait_until("it is tried again", || upstream.revoked().len() > asked);
    assert!(serving.must(&["ending", "list", "-o", "name"]).trim().len() == 32);
    serving.kill();
}
