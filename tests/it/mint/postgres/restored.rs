//! Roles that are in no record of a broker, because it was restored from an older backup.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tokio::runtime::Runtime;

use crate::harness::{
    Postgres, ServeProcess, connection, init_in, keyhatch_in, request, resolve_on, restored,
    step_channel, temp_dir, text, wait_until,
};

fn serve(directory: &Path, options: &[&str]) -> ServeProcess {
    let path = directory.join("config.toml");
    std::fs::write(&path, "[egress]\nallow = [\"127.0.0.1\"]\n").unwrap();
    let arguments = [&["serve", "--config", path.to_str().unwrap()], options].concat();
    ServeProcess::spawn(directory, keyhatch_in(directory, &arguments))
}

/// Has a step resolve postgres/orders.
fn resolve(serving: &ServeProcess, runtime: &Runtime, step: &str) {
    let opened = runtime.block_on(serving.open("w", step)).ok().unwrap();
    let asked = async {
        resolve_on(step_channel(Path::new(&opened.directory)).await, request("postgres/orders"))
            .await
    };
    runtime.block_on(asked).unwrap();
}

/// The names of the roles without their mints.
fn steps(postgres: &Postgres) -> Vec<String> {
    let roles = postgres.roles();
    roles.iter().map(|role| role.rsplit('_').next().unwrap().to_owned()).collect()
}

/// A broker whose backup knows the role of the step `before`, and not that of the step `after`. It runs no more.
fn backed_up(postgres: &Postgres, home: &Path) -> PathBuf {
    let runtime = Runtime::new().unwrap();
    init_in(home);
    let serving = serve(home, &[]);
    let fields = postgres.fields();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let seed = home.join("seed.yaml");
    std::fs::write(&seed, connection("postgres", "orders", &fields)).unwrap();
    serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    resolve(&serving, &runtime, "before");
    let archive = home.join("backup.tar");
    serving.must(&["backup", archive.to_str().unwrap()]);
    resolve(&serving, &runtime, "after");
    assert!(confirm(&serving).contains("not looked for"), "it was never restored");
    serving.kill();
    archive
}

/// What `restore --confirm --original-gone` says beside its answer.
fn confirm(serving: &ServeProcess) -> String {
    let said = serving.run(&["restore", "--confirm", "--original-gone"]);
    assert!(said.status.success(), "{said:?}");
    text(&said.stderr)
}

#[test]
fn a_restored_broker_ends_roles_made_after_its_backup() {
    let Some(mut postgres) = Postgres::start() else { return };
    let (home, other_home) = (temp_dir(), temp_dir());
    let archive = backed_up(&postgres, home.path());
    // A role of another deployment, which this admin role may end.
    let other = "kh_010203040506_other";
    let comment =
        "keyhatch: step other of run 1 of workflow w; mint 01020304050600000000000000000000";
    postgres.ask(&format!(
        "CREATE ROLE {other}; COMMENT ON ROLE {other} IS '{comment}'; GRANT {other} TO keyhatch WITH ADMIN OPTION"
    ));
    let kek = restored(other_home.path(), &archive, &home.path().join("state/kek"));
    let serving = serve(other_home.path(), &kek.each_ref().map(String::as_str));
    let mut all = steps(&postgres);
    all.sort();
    assert_eq!(all, ["after", "before", "other"]);
    postgres.stop();
    let said = confirm(&serving);
    assert!(said.contains("connections/postgres/orders") && said.contains("repeat"), "{said}");
    postgres.serve();
    let said = confirm(&serving);
    assert!(said.contains("_after was made after the backup"), "{said}");
    wait_until("only the other deployment's is left", || steps(&postgres) == ["other"]);
    assert_eq!(confirm(&serving), "", "nothing is lost any more");
    let lines =
        serving.must(&["journal", "tail", "-n", "99", "--event", "ended_upstream", "-o", "json"]);
    assert!(lines.contains("_after\"") && lines.contains("_before\""), "{lines}");
}

#[test]
fn the_search_for_roles_goes_on_without_its_caller() {
    let Some(postgres) = Postgres::start() else { return };
    let (home, other_home) = (temp_dir(), temp_dir());
    let archive = backed_up(&postgres, home.path());
    let kek = restored(other_home.path(), &archive, &home.path().join("state/kek"));
    let serving = serve(other_home.path(), &kek.each_ref().map(String::as_str));
    // A server that accepts connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let fields = postgres.fields();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| match *name {
            "port" => ("port", port.as_str()),
            name => (name, value.as_str()),
        })
        .collect();
    let seed = other_home.path().join("seed.yaml");
    std::fs::write(&seed, connection("postgres", "silent", &fields)).unwrap();
    serving.must(&["apply", "-f", seed.to_str().unwrap()]);
    let search = || {
        let status: Json = serde_json::from_str(&serving.must(&["status", "-o", "json"])).unwrap();
        status["lost_search"].clone()
    };
    assert!(search().is_null());
    let confirm = ["restore", "--confirm", "--original-gone"];
    let mut caller = keyhatch_in(other_home.path(), &confirm).spawn().unwrap();
    wait_until("the search has begun", || search()["running"] == true);
    caller.kill().unwrap();
    caller.wait().unwrap();
    let listed = text(&serving.run(&["ending", "list"]).stderr);
    assert!(listed.contains("still looked for"), "{listed}");
    wait_until("all roles are ended", || steps(&postgres).is_empty());
    wait_until("the search is over", || search()["running"] == false);
    let over = search();
    assert_eq!((&over["found"], &over["connections_left"]), (&1.into(), &0.into()));
    assert_eq!(over["problems"][0]["connection"], "connections/postgres/silent", "{over}");
    for command in [&["ending", "list"][..], &["doctor"]] {
        let told = serving.run(command);
        let told = text(&told.stderr) + &text(&told.stdout);
        assert!(told.contains("postgres/silent") && told.contains("repeat it"), "{told}");
    }
}

#[test]
fn a_copy_never_looks_for_the_roles_of_its_original() {
    let Some(postgres) = Postgres::start() else { return };
    let (home, other_home) = (temp_dir(), temp_dir());
    let archive = backed_up(&postgres, home.path());
    let kek = restored(other_home.path(), &archive, &home.path().join("state/kek"));
    let serving = serve(other_home.path(), &kek.each_ref().map(String::as_str));
    serving.must(&["restore", "--confirm", "--copy"]);
    let said = confirm(&serving);
    assert!(said.contains("not looked for") && said.contains("copy"), "{said}");
    let listed = serving.must(&["ending", "list"]);
    assert!(!listed.contains("orders"), "{listed}");
    let mut all = steps(&postgres);
    all.sort();
    assert_eq!(all, ["after", "before"]);
}
