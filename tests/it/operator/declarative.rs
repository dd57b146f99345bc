//! Files describe the wanted state: `apply` makes it so, `diff` shows what would change, `export` writes the current
//! state.

use std::process::{Command, Output};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;

use crate::harness::{
    ServeProcess, Steps, TestBroker, connection_document, keyhatch_in, path_with_binary, reason,
    secret_document, succeeded, temp_dir, text,
};

const SEED: &str = "\
apiVersion: keyhatch/v1
kind: ConnectionGroup
metadata: {name: accounts, labels: {team: pay}}
spec: {integration: aws, identifiers: [env], members: [prod, staging], access: {viewer: ['workflow:w']}}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: prod, tags: {env: prod}, labels: {team: pay}}
spec:
  integration: aws
  fields: {access_key_id: AKIAPROD, secret_access_key: first-hush}
  access: {resolver: ['workflow:w']}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: staging, tags: {env: staging}, labels: {team: pay}}
spec:
  integration: aws
  fields: {access_key_id: AKIASTAGING, secret_access_key: second-hush}
---
apiVersion: keyhatch/v1
kind: Secret
metadata: {name: token, workflow: w}
spec: {value: third-hush}
";

/// Writes a file, and runs a command on it.
fn on_file(steps: &Steps, name: &str, content: &str, arguments: &[&str]) -> Output {
    let path = steps.path(name);
    std::fs::write(&path, content).unwrap();
    let (command, rest) = arguments.split_first().unwrap();
    let mut all = vec![*command, "-f", path.to_str().unwrap()];
    all.extend(rest);
    steps.serving.run(&all)
}

fn journal_lines(steps: &Steps) -> Vec<String> {
    let journal = std::fs::read_to_string(steps.path("state/journal/000001.jsonl")).unwrap();
    journal.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_dry_run_says_what_apply_would_do_and_does_nothing() {
    let steps = Steps::seeded("connections: {aws/x: {accessKeyID: a, secretAccessKey: b}}\n");
    let planned = on_file(&steps, "new.yaml", SEED, &["apply", "--dry-run"]);
    let heads = |said: &str, sign: char| {
        let heads = said.lines().filter_map(|line| line.strip_prefix(sign)?.strip_prefix(' '));
        heads.map(|head| head.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let resources = [
        "groups/accounts",
        "connections/aws/prod",
        "connections/aws/staging",
        "workflows/w/secrets/token",
    ];
    assert_eq!(heads(&text(&planned.stdout), '+'), resources, "{}", text(&planned.stderr));
    let listed = steps.serving.run(&["connection", "list", "-o", "name"]);
    assert_eq!(text(&listed.stdout), "aws/x\n");
    let applied = on_file(&steps, "new.yaml", SEED, &["apply"]);
    let created: String = resources.map(|name| format!("{name} created\n")).concat();
    assert_eq!(text(&applied.stdout), created);
    let planned = on_file(&steps, "new.yaml", SEED, &["apply", "--dry-run"]);
    assert_eq!(heads(&text(&planned.stdout), '='), resources);
    let again = on_file(&steps, "new.yaml", SEED, &["apply"]);
    assert_eq!(text(&again.stdout).matches(" unchanged\n").count(), 4);
    assert_eq!(text(&again.stderr), "4 unchanged\n");
}

#[test]
fn diff_shows_changes_and_never_a_sensitive_value() {
    let steps = Steps::seeded(SEED);
    let same = on_file(&steps, "same.yaml", SEED, &["diff"]);
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), String::new()));
    let changed = SEED
        .replace("first-hush", "other-hush")
        .replace("third-hush", "fourth-hush")
        .replace("AKIAPROD", "AKIAOTHER")
        .replace("{env: staging}", "{env: stage}")
        .replace("resolver: ['workflow:w']", "resolver: ['workflow:v']")
        .replace("[prod, staging]", "[prod]");
    let differs = on_file(&steps, "changed.yaml", &changed, &["diff"]);
    let expected = "\
~ groups/accounts (changed.yaml:1:1)
  - members: aws/staging
~ connections/aws/prod (changed.yaml:6:1)
    values (text): access_key_id, secret_access_key
  - access.resolver: workflow:w
  + access.resolver: workflow:v
    fields.access_key_id: AKIAPROD -> AKIAOTHER
    fields.secret_access_key: (changed)
~ connections/aws/staging (changed.yaml:14:1)
    values (text): access_key_id, secret_access_key
    tags.env: staging -> stage
~ workflows/w/secrets/token (changed.yaml:21:1)
    values (text): value
    value: (changed)
";
    let directory = format!("{}/", steps.directory.path().display());
    assert_eq!(
        text(&differs.stdout).replace(&directory, ""),
        expected,
        "{}",
        text(&differs.stderr)
    );
    assert_eq!(differs.status.code(), Some(1));
    assert!(!text(&differs.stderr).contains("hush"));
    // diff changes nothing, and its exit code separates an error from a difference.
    let same = on_file(&steps, "same.yaml", SEED, &["diff"]);
    assert_eq!(same.status.code(), Some(0));
    let broken = on_file(&steps, "broken.yaml", "kind: [\n", &["diff"]);
    assert_eq!(broken.status.code(), Some(2));
    let refused = SEED.replace("access_key_id:", "nonsense:");
    let refused = on_file(&steps, "refused.yaml", &refused, &["diff"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn comparing_values_is_journaled_and_limited() {
    let broker = TestBroker::start();
    let aws = [("access_key_id", "AKIA"), ("secret_access_key", "s")];
    broker.apply(vec![connection_document("aws/prod", &aws, vec![])]).unwrap();
    let plan = |documents: Vec<pb::apply_request::Document>| {
        let request = |document| pb::PlanRequest {
            document: Some(pb::ApplyRequest { document: Some(document) }),
        };
        let requests: Vec<_> = documents.into_iter().map(request).collect();
        let mut client = ApplyServiceClient::new(broker.operator());
        let planned = broker.block_on(client.plan(tokio_stream::iter(requests)));
        planned.map(|planned| planned.into_inner().results)
    };
    let guess = |value: &str| {
        let fields = [("access_key_id", "AKIA"), ("secret_access_key", value)];
        let planned = plan(vec![connection_document("aws/prod", &fields, vec![])])?;
        Ok::<_, tonic::Status>(planned[0].action())
    };
    let before = broker.journaled("compared").len();
    assert_eq!(guess("s").unwrap(), pb::ApplyAction::Unchanged);
    assert_eq!(guess("t").unwrap(), pb::ApplyAction::Changed);
    let lines = broker.journaled("compared");
    assert_eq!(lines.len(), before + 2);
    assert_eq!(lines[0]["principal"], "operator:admin");
    assert_eq!(lines[0]["resources"][0], "connections/aws/prod");
    for _ in 2..10 {
        guess("x").unwrap();
    }
    assert_eq!(reason(guess("x")), "TOO_MANY_REQUESTS");
    // A plan without comparisons still works, because it reveals nothing.
    plan(vec![connection_document("aws/new", &aws, vec![])]).unwrap();
    plan(vec![secret_document("w", "new", "x")]).unwrap();
    assert_eq!(broker.journaled("compared").len(), before + 10);
    broker.advance(6);
    assert_eq!(guess("s").unwrap(), pb::ApplyAction::Unchanged);
    assert_eq!(reason(guess("s")), "TOO_MANY_REQUESTS");
}

/// The time or the error of an Apply could reveal a value without a trace.
#[test]
fn an_apply_that_fails_counts_as_a_comparison() {
    let broker = TestBroker::start();
    let aws = [("access_key_id", "AKIA"), ("secret_access_key", "s")];
    broker.apply(vec![connection_document("aws/prod", &aws, vec![])]).unwrap();
    let fail = || {
        let broken = connection_document("aws/broken", &[("nonsense", "x")], vec![]);
        reason(broker.apply(vec![connection_document("aws/prod", &aws, vec![]), broken]))
    };
    for _ in 0..10 {
        assert_eq!(fail(), "DOCUMENTS_INVALID");
    }
    assert_eq!(fail(), "TOO_MANY_REQUESTS");
    assert_eq!(broker.journaled("compared").len(), 10);
    // An apply that names no stored value still works.
    broker.apply(vec![connection_document("aws/new", &aws, vec![])]).unwrap();
    broker.advance(60);
    broker.apply(vec![connection_document("aws/prod", &aws, vec![])]).unwrap();
}

#[test]
fn a_relation_that_is_named_is_replaced_also_by_nobody() {
    let steps = Steps::seeded(SEED);
    assert!(steps.run("keyhatch", &["get", "aws/prod"]).status.success());
    let nobody = SEED.replace("resolver: ['workflow:w']", "resolver: []");
    let applied = on_file(&steps, "nobody.yaml", &nobody, &["apply"]);
    assert!(text(&applied.stdout).contains("connections/aws/prod changed"));
    assert_eq!(steps.refusal(&["get", "aws/prod"]).0, Some(1));
}

#[test]
fn control_characters_of_files_and_values_are_escaped() {
    let steps = Steps::seeded(&SEED.replace("AKIAPROD", "\"x\\e]0;y\\a\\nforged\""));
    let differs = on_file(&steps, "seed.yaml", SEED, &["diff"]);
    let shown = text(&differs.stdout);
    assert!(shown.contains("forged") && !shown.contains(['\u{1b}', '\u{7}']), "{shown}");
    assert_eq!(shown.lines().count(), 3, "{shown}");
    let name = SEED.replace("{name: prod,", "{name: \"a\\e[31mb\",");
    let refused = on_file(&steps, "name.yaml", &name, &["apply"]);
    assert!(!text(&refused.stderr).contains('\u{1b}'));
}

#[test]
fn an_export_has_all_but_values_and_can_be_applied() {
    let steps = Steps::seeded(SEED);
    let exported = steps.serving.run(&["export"]);
    let exported = text(&exported.stdout);
    assert!(!exported.contains("hush"), "{exported}");
    let lines = journal_lines(&steps).len();
    let applied = on_file(&steps, "export.yaml", &exported, &["apply"]);
    assert_eq!(text(&applied.stderr), "4 unchanged\n");
    assert_eq!(journal_lines(&steps).len(), lines, "nothing was written");
    // On another broker no value is stored yet. Every missing field is reported, and nothing is created by half.
    let other =
        Steps::seeded("secrets: {}\nconnections: {aws/x: {accessKeyID: a, secretAccessKey: b}}\n");
    let refused = on_file(&other, "export.yaml", &exported, &["apply"]);
    let said = text(&refused.stderr);
    for missing in [
        "connections/aws/prod: secret_access_key",
        "connections/aws/staging: secret_access_key",
        "workflows/w/secrets/token: value",
    ] {
        assert!(said.contains(missing), "{said}");
    }
    let filled = exported
        .replacen("keep: true", "fromEnv: FILLED", 1)
        .replacen("keep: true", "fromEnv: FILLED", 1)
        .replacen("keep: true", "fromEnv: FILLED", 1);
    std::fs::write(other.path("filled.yaml"), filled).unwrap();
    let mut apply = keyhatch_in(other.directory.path(), &["apply", "-f"]);
    succeeded(
        &apply
            .arg(other.path("filled.yaml"))
            .args(["--allow-env", "FILLED"])
            .env("FILLED", "v")
            .output()
            .unwrap(),
    );
    let again = other.serving.run(&["export"]);
    let of_seed = |text: String| {
        text.split("---\n")
            .filter(|one| !one.contains("name: x"))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_seed(text(&again.stdout)), of_seed(exported));
}

#[test]
fn prune_deletes_only_labelled_resources_outside_the_files() {
    let steps = Steps::seeded(SEED);
    let other = "connections: {aws/other: {accessKeyID: a, secretAccessKey: b}}\n";
    on_file(&steps, "other.yaml", other, &["apply"]);
    let only_prod = SEED.split("---\n").nth(1).unwrap();
    let prune = |more: &[&str]| {
        let mut arguments = vec!["apply", "--prune"];
        arguments.extend(more);
        on_file(&steps, "less.yaml", only_prod, &arguments)
    };
    let without_label = prune(&["--yes"]);
    assert_eq!(without_label.status.code(), Some(2));
    assert!(text(&without_label.stderr).contains("--label"));
    let nobody_to_ask = prune(&["--label", "team=pay"]);
    assert!(text(&nobody_to_ask.stderr).contains("connections/aws/staging"));
    assert!(text(&nobody_to_ask.stderr).contains("--yes"));
    let would = prune(&["--label", "team=pay", "--dry-run"]);
    let file = steps.path("less.yaml");
    let planned = format!(
        "= connections/aws/prod ({}:1:1)\n- groups/accounts\n- connections/aws/staging\n",
        file.display()
    );
    assert_eq!(text(&would.stdout), planned);
    let expected = "connections/aws/prod unchanged\ngroups/accounts deleted\nconnections/aws/staging deleted\n";
    let names = || text(&steps.serving.run(&["connection", "list", "-o", "name"]).stdout);
    assert_eq!(names(), "aws/other\naws/prod\naws/staging\n");
    let pruned = prune(&["--label", "team=pay", "--yes"]);
    assert_eq!(text(&pruned.stdout), expected, "{}", text(&pruned.stderr));
    assert_eq!(names(), "aws/other\naws/prod\n");
}

/// The files remove a member from its group and no longer describe its connection. Both happen.
#[test]
fn prune_deletes_what_the_same_apply_has_changed() {
    let steps = Steps::seeded(SEED);
    let less: Vec<&str> =
        SEED.split("---\n").filter(|one| !one.contains("name: staging")).collect();
    let less = less.join("---\n").replace("[prod, staging]", "[prod]");
    let arguments = ["apply", "--prune", "--label", "team=pay", "--yes"];
    let pruned = on_file(&steps, "less.yaml", &less, &arguments);
    assert!(pruned.status.success(), "{}", text(&pruned.stderr));
    assert!(text(&pruned.stdout).ends_with("connections/aws/staging deleted\n"));
    // A directory without files is a mistake, not a request to delete everything.
    std::fs::create_dir(steps.path("empty")).unwrap();
    let empty = steps.path("empty");
    let mut arguments = vec!["apply", "-f", empty.to_str().unwrap()];
    arguments.extend(["--prune", "--label", "team=pay", "--yes"]);
    let refused = steps.serving.run(&arguments);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("holds no *.yaml or *.yml file"));
    let checked = steps.serving.run(&["check", empty.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(2));
}

fn labelled(name: &str) -> String {
    format!(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}, labels: {{team: pay}}}}\n\
         spec: {{integration: generic, fields: {{v: hush-{name}}}}}\n"
    )
}

/// A broker with labelled connections, and the directory of the files that describe them.
fn tree(files: &[(&str, &str)]) -> (Steps, std::path::PathBuf) {
    let names = ["a", "s", "j", "y", "o", "x"];
    let steps = Steps::seeded(&names.map(labelled).join("---\n"));
    let directory = steps.path("d");
    for (file, text) in files {
        let path = directory.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (steps, directory)
}

/// Runs a command on the directory. Returns its exit code, stdout and stderr.
fn on_tree(steps: &Steps, command: &[&str]) -> (Option<i32>, String, String) {
    let directory = steps.path("d");
    let path = directory.to_str().unwrap();
    let prune = ["-f", path, "--prune", "--label", "team=pay"];
    let ran = steps.serving.run(&[command, &prune].concat());
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

#[test]
fn prune_deletes_nothing_that_a_file_below_describes() {
    let json = r#"{"apiVersion": "keyhatch/v1", "kind": "Connection", "metadata": {"name": "j"},
        "spec": {"integration": "generic", "fields": {"v": "hush-j"}}}"#;
    let others = format!("kind: Other\nspec: [1, !Tag x]\n---\n{}", labelled("y"));
    let (steps, directory) = tree(&[
        ("a.yaml", &labelled("a")),
        ("sub/deep/s.yaml", &labelled("s")),
        ("j.json", json),
        ("Y.YAML", &others),
        ("o.yml.disabled", "connections: {generic/o: {v: hush-o}}\n"),
        ("keys/key.pem", "-----BEGIN"),
        ("README.md", "kind: [\n"),
        (".git/config.yaml", "kind: [\n"),
    ]);
    std::os::unix::fs::symlink("..", directory.join("sub/loop")).unwrap();
    let (code, shown, said) = on_tree(&steps, &["diff"]);
    assert_eq!((code, shown.as_str()), (Some(1), "- connections/generic/x\n"), "{said}");
    assert!(said.contains("1 would be deleted"), "{said}");
    for name in ["d/Y.YAML", "d/j.json", "d/o.yml.disabled", "d/sub"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("not read, because") && !said.contains("keys") && !said.contains(".git"));
    let (code, shown, said) = on_tree(&steps, &["apply", "--yes"]);
    let done = "connections/generic/a unchanged\nconnections/generic/x deleted\n";
    assert_eq!((code, shown.as_str()), (Some(0), done), "{said}");
    let path = directory.display();
    for (name, file) in
        [("s", "sub/deep/s.yaml"), ("j", "j.json"), ("y", "Y.YAML"), ("o", "o.yml.disabled")]
    {
        let kept = format!("kept: connections/generic/{name}, which {path}/{file} describes");
        assert!(said.contains(&kept), "{said}");
    }
    let (code, shown, said) = on_tree(&steps, &["diff"]);
    assert_eq!((code, shown.as_str()), (Some(0), ""), "{said}");
}

#[test]
fn prune_deletes_nothing_where_a_file_below_is_not_known() {
    let (steps, directory) = tree(&[("a.yaml", &labelled("a")), ("sub/s.yml", "")]);
    for unknown in ["kind: [\n", &labelled("12")] {
        std::fs::write(directory.join("sub/s.yml"), unknown).unwrap();
        let (code, shown, said) = on_tree(&steps, &["apply", "--yes"]);
        assert_eq!((code, shown.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains("--prune must know what") && said.contains("sub/s.yml:"), "{said}");
    }
    // An explicitly named file is never skipped.
    let path = directory.to_str().unwrap();
    std::fs::write(directory.join("j.json"), "").unwrap();
    let named = format!("{path}/sub/../j.json");
    let ran = steps.serving.run(&["diff", "-f", path, "-f", &named]);
    assert!(!text(&ran.stderr).contains("d/j.json,"), "{}", text(&ran.stderr));
}

#[test]
fn prune_deletes_nothing_that_a_hidden_file_describes() {
    let (steps, _) = tree(&[
        ("a.yaml", &labelled("a")),
        (".s.yaml", &labelled("s")),
        (".hid/j.yaml", &labelled("j")),
        ("noext", &labelled("y")),
        ("sub/.o", &labelled("o")),
        (".git/x.yaml", &labelled("x")),
        ("notes.txt", "Of these: [\n"),
    ]);
    let (code, shown, said) = on_tree(&steps, &["apply", "--yes"]);
    let done = "connections/generic/a unchanged\nconnections/generic/x deleted\n";
    assert_eq!((code, shown.as_str()), (Some(0), done), "{said}");
    assert!(said.contains("d/.hid, ") && said.contains("d/.s.yaml: not read, because"), "{said}");
}

#[test]
fn prune_stops_at_an_unreadable_file() {
    let (steps, directory) = tree(&[("a.yaml", &labelled("a"))]);
    std::fs::write(directory.join("picture"), b"\x89PNG\0").unwrap();
    for (name, bytes) in [
        ("gz.yaml.gz", &b"\x1f\x8b\x08"[..]),
        ("packed", b"PK\x03\x04\xff"),
        ("wide", b"\xff\xfea\0"),
        (".latin", b"# \xe9\n"),
        ("broken", b"apiVersion: keyhatch/v1\nkind: [\n"),
    ] {
        std::fs::write(directory.join(name), bytes).unwrap();
        let (code, shown, said) = on_tree(&steps, &["apply", "--yes"]);
        assert_eq!((code, shown.as_str()), (Some(2), ""), "{name}: {said}");
        assert!(
            said.contains(&format!("d/{name}: ")) && said.contains("move it elsewhere"),
            "{said}"
        );
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    let (code, _, said) = on_tree(&steps, &["diff"]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn without_files_prune_says_how_to_delete_everything() {
    let (steps, directory) = tree(&[("a.yaml", "# nothing is left\n"), ("e/.keep", "")]);
    let prune = |path: &std::path::Path| {
        let apply = ["apply", "-f", path.to_str().unwrap(), "--prune", "--label", "team=pay"];
        let ran = steps.serving.run(&[&apply[..], &["--yes"]].concat());
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    for path in [directory.join("e"), directory.clone(), directory.join("a.yaml")] {
        let (code, shown, said) = prune(&path);
        assert_eq!((code, shown.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains("has one line: connections: {}"), "{said}");
    }
    std::fs::write(directory.join("a.yaml"), "connections: {}\n").unwrap();
    let (code, shown, said) = prune(&directory);
    assert_eq!((code, shown.matches(" deleted\n").count()), (Some(0), 6), "{said}");
    let (code, _, said) = prune(&directory);
    assert!(code == Some(0) && said.contains("nothing has the label team=pay"), "{said}");
}

#[test]
fn faulty_files_are_all_reported_by_place_and_not_written() {
    let steps = Steps::seeded("connections: {aws/x: {accessKeyID: a, secretAccessKey: b}}\n");
    let directory = steps.path("seeds");
    std::fs::create_dir(&directory).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("a.yaml", SEED);
    write(
        "b.yaml",
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: b}\nspec:\n  integration: aws\n  \
         fields: {access_key_id: [canary]}\n---\napiVersion: keyhatch/v1\nkind: Sekret\n\
         metadata: {name: b}\nspec: {value: canary}\n",
    );
    write("c.yaml", "apiVersion: keyhatch/v1\nkind: {canary\n");
    write("d.yaml", SEED.split("---\n").nth(1).unwrap());
    let applied = steps.serving.run(&["apply", "-f", directory.to_str().unwrap()]);
    let said = text(&applied.stderr);
    for expected in [
        "seeds/b.yaml:6:12: expected a text",
        "seeds/b.yaml:8:1: kind must be one of: Connection",
        "seeds/c.yaml:",
        "seeds/d.yaml:1:1: connections/aws/prod is described at",
        "seeds/a.yaml:6:1, too",
        "error: USAGE: 4 problems in the files; nothing was sent",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(applied.status.code(), Some(2));
    // Faults that only the broker finds have a place too.
    let unknown = SEED.replace("secret_access_key: second-hush", "nonsense: canary");
    let refused = on_file(&steps, "unknown.yaml", &unknown, &["apply"]);
    let said = text(&refused.stderr);
    assert!(
        said.contains("unknown.yaml:14:1: connections/aws/staging: nonsense: there is"),
        "{said}"
    );
    let names = steps.serving.run(&["connection", "list", "-o", "name"]);
    assert_eq!(text(&names.stdout), "aws/x\n");
}

#[test]
fn an_apply_that_was_killed_half_way_is_done_by_the_next_one() {
    let steps = Steps::seeded("connections: {aws/x: {accessKeyID: a, secretAccessKey: b}}\n");
    let documents: String = (0..2000)
        .map(|number| {
            format!(
                "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: c{number:04}}}\nspec: {{integration: \
                 slack, fields: {{api_token: t{number}}}}}\n"
            )
        })
        .collect();
    std::fs::write(steps.path("many.yaml"), documents).unwrap();
    let many = steps.path("many.yaml");
    let apply = |serve: &Steps| -> Command {
        let mut apply = keyhatch_in(serve.directory.path(), &["apply", "-f"]);
        apply.arg(&many).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        apply
    };
    for moment in 0..8 {
        let mut applying = apply(&steps).spawn().unwrap();
        // The kill comes at an arbitrary moment of the apply.
        for _ in 0..moment * 4 {
            steps.serving.run(&["status"]);
        }
        applying.kill().unwrap();
        applying.wait().unwrap();
        let listed = steps.serving.run(&["connection", "list", "-o", "name"]);
        let count = text(&listed.stdout).lines().count();
        assert!(count == 1 || count == 2001, "all of it or none: {count}");
    }
    assert!(apply(&steps).status().unwrap().success());
    let listed = steps.serving.run(&["connection", "list", "-o", "name"]);
    assert_eq!(text(&listed.stdout).lines().count(), 2001);
}

/// Relay's own example of a connection, in the format of its tools and with its field names.
#[test]
fn relays_my_aws_account_is_taken_as_it_is() {
    let directory = temp_dir();
    let seed = directory.path().join("metadata.yaml");
    let text = "connections:\n  aws/my-aws-account:\n    accessKeyID: AKIAEXAMPLE\n    \
                secretAccessKey: hush\nsecrets:\n  my-secret: shh\n";
    std::fs::write(&seed, text).unwrap();
    let script = "keyhatch get aws/my-aws-account --field accessKeyID; \
                  keyhatch get aws/my-aws-account --field secretAccessKey; keyhatch get secret:my-secret --format raw";
    let seed = seed.to_str().unwrap();
    let mut dev = keyhatch_in(directory.path(), &["dev", "-f", seed, "--", "sh", "-c", script]);
    let ran = dev.env("PATH", path_with_binary()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "AKIAEXAMPLEhushshh");
}

const EVERY_KEY: &str = "\
apiVersion: keyhatch/v1
kind: ConnectionGroup
metadata: {name: g, labels: {team: x}}
spec: {integration: own, identifiers: [env], members: [a], access: {viewer: ['workflow:w']}}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: a, tags: {env: prod}, labels: {team: x}}
spec:
  integration: own
  kind: token
  fields: {token: hush}
  access: {resolver: ['workflow:w', 'team:ops']}
  default: true
  disabled: false
  maxTtl: 15m
---
apiVersion: keyhatch/v1
kind: Integration
metadata: {name: own}
spec:
  title: Our own
  kinds:
    - name: token
      fields: [{name: token, description: The token, sensitive: true, required: true, env: OWN_TOKEN}]
";

/// Every kind of document with every key, in YAML.
#[test]
fn a_seed_file_says_all_that_the_api_takes() {
    let directory = temp_dir();
    let serving = ServeProcess::start(directory.path());
    let seed = directory.path().join("seed.yaml");
    std::fs::write(&seed, EVERY_KEY).unwrap();
    let run = |arguments: &[&str]| {
        let ran = serving.run(arguments);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let seed = seed.to_str().unwrap();
    let applied = run(&["apply", "-f", seed]);
    assert_eq!(applied, "groups/g created\nconnections/own/a created\nintegrations/own created\n");
    assert!(run(&["apply", "-f", seed]).lines().all(|line| line.ends_with(" unchanged")));
    let shown: serde_json::Value =
        serde_json::from_str(&run(&["connection", "get", "own/a", "-o", "json"])).unwrap();
    assert_eq!(shown["max_ttl_seconds"], 900);
    assert_eq!(shown["default"], true);
    assert_eq!(shown["labels"]["team"], "x");
    assert_eq!(shown["groups"][0], "groups/g");
}

#[test]
fn a_key_of_another_kind_of_document_is_refused() {
    let directory = temp_dir();
    for (kind, spec, word) in [
        ("Secret", "{value: x, fields: {}}", "no fields"),
        ("ConnectionGroup", "{integration: own, value: x}", "no value"),
        ("Integration", "{kinds: [{name: a, fields: [{name: b, description: c}]}]}", "sensitive"),
        ("Nonsense", "{}", "kind must be"),
    ] {
        let text = format!(
            "apiVersion: keyhatch/v1\nkind: {kind}\nmetadata: {{name: x, workflow: w}}\nspec: {spec}\n"
        );
        let text = if kind == "Secret" { text } else { text.replace(", workflow: w", "") };
        let path = directory.path().join("bad.yaml");
        std::fs::write(&path, text).unwrap();
        let apply = ["apply", "-f", path.to_str().unwrap()];
        let ran = keyhatch_in(directory.path(), &apply).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.contains(word), "{kind}: {said}");
    }
}
