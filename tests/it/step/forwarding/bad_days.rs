//! Requests that are refused, and exchanges that break off.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;

use super::World;
use crate::harness::{block_on, keyhatch_in, path_with_binary, text};

#[test]
fn errors_of_the_broker_say_that_they_are_the_brokers() {
    let Some(world) = World::start() else { return };
    let status = "-sS -o body -w '%{http_code} %header{keyhatch-error}'";
    let ask = |reference: &str, path: &str| {
        let curl = format!("curl {status} --path-as-is \"$KEYHATCH_HTTP_URL{path}\"; cat body");
        text(&world.run(&format!("http={reference}"), &curl).stdout)
    };
    let denied = ask("http/none", "/echo");
    assert!(denied.starts_with("403 RESOLVE_DENIED{\"error\":"), "{denied}");
    assert!(denied.contains("keyhatch explain"), "{denied}");
    let climbing = ask("http/api", "/../git/");
    assert!(climbing.starts_with("400 SEND_INVALID{"), "{climbing}");
    let own = ask("http/api", "/files/missing");
    assert!(own.starts_with("404 <html>"), "{own}");
}

#[test]
fn an_upstream_that_is_away_is_a_bad_gateway() {
    let Some(World { nginx, steps }) = World::start() else { return };
    drop(nginx);
    let curl = "curl -sS -o /dev/null -w '%{http_code}' \"$KEYHATCH_HTTP_URL/echo\"";
    let exec = ["exec", "--serve", "http=http/api", "--", "sh", "-euc", curl];
    assert_eq!(text(&steps.run("keyhatch", &exec).stdout), "502");
}

#[test]
fn requests_without_the_token_or_of_pages_are_refused() {
    let Some(world) = World::start() else { return };
    let script = "
        origin=${KEYHATCH_HTTP_URL%/*}
        status() { curl -sS -o /dev/null -w '%{http_code} ' \"$@\" || echo 'none '; }
        status $origin/echo
        status ${KEYHATCH_HTTP_URL}0/echo
        status $KEYHATCH_HTTP_URL/echo -H 'Host: rebound.example'
        status $KEYHATCH_HTTP_URL/echo -H 'Origin: http://evil.example'
        status $KEYHATCH_HTTP_URL/echo -H 'Sec-Fetch-Site: cross-site'
        status $KEYHATCH_HTTP_URL/echo --http2
        status $KEYHATCH_HTTP_URL/echo -H 'Upgrade: websocket' -H 'Connection: Upgrade'
        status $KEYHATCH_HTTP_URL/echo --proxy $origin --noproxy ''
        status $KEYHATCH_HTTP_URL/echo -X TRACE";
    assert_eq!(world.api(script), "401 401 421 400 400 400 400 400 400 ");
    assert_eq!(world.nginx.asked(), "");
}

#[test]
fn another_user_cannot_use_the_address() {
    let Some(world) = World::start() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let script =
        "setpriv --reuid 65534 --clear-groups curl -sS \"$KEYHATCH_HTTP_URL/echo\" || echo refused";
    assert_eq!(world.api(script), "refused\n");
}

#[test]
fn a_step_that_closes_cuts_its_downloads() {
    let Some(world) = World::start() else { return };
    let file = std::fs::File::create(world.nginx.files().join("large")).unwrap();
    file.set_len(64 * 1024 * 1024).unwrap();
    let opened = block_on(world.steps.serving.open("w", "s")).unwrap();
    let script = "(curl -sS -N \"$KEYHATCH_HTTP_URL/slow/large\" || echo \"curl $?\" >&2) | (head -c 1; echo begun; wc -c)";
    let exec = ["exec", "--serve", "http=http/api", "--", "sh", "-euc", script];
    let mut command = keyhatch_in(world.steps.directory.path(), &exec);
    command.env("KEYHATCH_DIR", &opened.directory).env("PATH", path_with_binary());
    let mut exec = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("begun"));
    block_on(async {
        let mut executor =
            ExecutorServiceClient::new(world.steps.serving.admin("executors/local").await);
        let close = pb::CloseStepRequest { name: opened.name, ..Default::default() };
        executor.close_step(close).await.unwrap();
    });
    let length: u64 = lines.next().unwrap().unwrap().trim().parse().unwrap();
    assert!(length < 64 * 1024 * 1024 - 1, "{length}");
    let ended = exec.wait_with_output().unwrap();
    // 18: the transfer ended before the whole was there.
    assert!(text(&ended.stderr).contains("curl 18"), "{}", text(&ended.stderr));
}
