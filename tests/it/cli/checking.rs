//! `check` reports for a workflow file, before it runs, whether its steps will get the resources that they ask for.

use std::process::Output;

use crate::harness::{Steps, keyhatch_in, path_with_binary, succeeded, text};

const SEED: &str = "\
connections:
  aws/my-account: {accessKeyID: a, secretAccessKey: b}
  aws/my-acount-2: {accessKeyID: a, secretAccessKey: b}
secrets: {token: t}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: chat}
spec: {integration: slack, fields: {api_token: t}, access: {resolver: ['workflow:deploy']}}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: prod, tags: {env: prod, region: eu}}
spec: {integration: gcp, fields: {service_account_key: '{}'}, access: {resolver: ['workflow:deploy']}}
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: dev, tags: {env: dev, region: eu}}
spec: {integration: gcp, fields: {service_account_key: '{}'}}
---
apiVersion: keyhatch/v1
kind: ConnectionGroup
metadata: {name: projects}
spec: {integration: gcp, identifiers: [env, region], members: [prod, dev], access: {viewer: ['workflow:deploy']}}
";

/// A broker with the seed. Its directory holds the workflow files to check.
fn seeded() -> Steps {
    let steps = Steps::seeded(
        "connections: {}\nsecrets: {}\n---\nconnections: {aws/x: {accessKeyID: a, secretAccessKey: b}}\n",
    );
    std::fs::write(steps.path("all.yaml"), SEED).unwrap();
    let path = steps.path("all.yaml");
    let applied =
        steps.serving.run(&["apply", "-f", path.to_str().unwrap(), "--workflow", "deploy"]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    steps
}

fn check(steps: &Steps, workflow: &str, more: &[&str]) -> Output {
    std::fs::write(steps.path("deploy.yaml"), workflow).unwrap();
    let mut check = keyhatch_in(steps.directory.path(), &["check", "deploy.yaml"]);
    check.args(more).current_dir(steps.directory.path()).output().unwrap()
}

#[test]
fn each_reference_is_fine_missing_or_denied_with_a_remedy() {
    let steps = seeded();
    let workflow = "\
steps:
- name: notify
  spec:
    chat: !Connection [slack, chat]
    token: !Secret token
    other: !Secret tokn
- name: build
  spec:
    account: ${connections.aws.my-account}
    typo: !Connection {type: aws, name: my-acount}
    unknown: !Connection [awz, x]
";
    let checked = check(&steps, workflow, &[]);
    let expected = "\
deploy.yaml:4:11: slack/chat: fine
deploy.yaml:5:12: secret:token: fine
deploy.yaml:6:12: secret:tokn: missing: workflow deploy has no such secret; nearest: token
    keyhatch secret put --workflow deploy tokn --value @FILE
deploy.yaml:9:14: aws/my-account: workflow deploy may not resolve it
    keyhatch access add aws/my-account --relation resolver --principal workflow:deploy/step:build
deploy.yaml:10:11: aws/my-acount: missing: there is no such connection; nearest: aws/my-account, aws/my-acount-2, aws/x
    keyhatch connection create aws/my-acount --kind access_key --field access_key_id=VALUE --field secret_access_key=@FILE --resolver workflow:deploy
deploy.yaml:11:14: awz/x: missing: there is no integration awz; nearest: aws";
    let said = text(&checked.stdout);
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(text(&checked.stderr), "1 file(s), 6 reference(s), 4 problem(s)\n");
    assert_eq!(checked.status.code(), Some(1));
    // The printed commands repair each fault.
    for command in said.lines().filter_map(|line| line.strip_prefix("    keyhatch ")) {
        std::fs::write(steps.path("FILE"), "v").unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("keyhatch {command}")]).env("PATH", path_with_binary());
        shell.env("KEYHATCH_STATE", steps.path("state")).current_dir(steps.directory.path());
        succeeded(&shell.output().unwrap());
    }
    let workflow = workflow.replace("    unknown: !Connection [awz, x]\n", "");
    let checked = check(&steps, &workflow, &["--quiet"]);
    assert_eq!((checked.status.code(), text(&checked.stdout)), (Some(0), String::new()));
    assert_eq!(text(&checked.stderr), "1 file(s), 5 reference(s), 0 problem(s)\n");
}

const GROUPS: &str = "\
name: deploy
parameters: {env: {default: dev}}
steps:
- name: a
  connectionGroup: {name: projects, tags: ['env:prod', 'region:eu']}
- name: b
  spec:
    connectionGroup:
      name: projects
      tags: {env: '${parameters.env}', region: eu}
- name: c
  spec:
    connectionGroup: {name: projects, tags: {env: prod}}
- name: d
  spec:
    connectionGroup: {name: projects, tags: {env: prod, region: us}}
- name: e
  spec:
    connectionGroup: {name: project, tags: {env: prod, region: us}}
";

#[test]
fn check_names_the_values_that_fail_in_a_group() {
    let steps = seeded();
    let checked = check(&steps, GROUPS, &["-o", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let told: Vec<_> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["line"].as_u64().unwrap(),
                one["state"].as_str().unwrap(),
                one["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (5, "fine", "fine"),
            (9, "denied", "1 of 2 would fail: env=dev (gcp/dev: RESOLVE_DENIED)"),
            (13, "malformed", "the group needs a value for its identifier region"),
            (
                16,
                "missing",
                "missing: no member of the group has these values; nearest: region=eu, env=dev,region=eu"
            ),
            (19, "missing", "missing: there is no such group; nearest: projects"),
        ]
    );
    let grant =
        "keyhatch access add gcp/dev --relation resolver --principal workflow:deploy/step:b";
    assert_eq!(findings[1]["commands"], serde_json::json!([grant]));
}

const EVERY_FORM: &str = "\
locals:
  unused: !Connection [slack, unused]
  shared: &shared
    connection: !Connection [slack, shared]
triggers:
- name: hook
  source: {type: webhook, spec: {key: !Secret hook}}
steps:
- name: one
  env: {A: !Secret env}
  when: !Fn.equals [!Secret when, 'yes']
  spec:
    flow: !Connection {type: aws, name: flow}
    sequence: !Connection [aws, sequence]
    block: !Connection
      type: aws
      name: block
    typed: {$type: Connection, type: aws, name: typed}
    typedSecret:
      $type: Secret
      name: typed-secret
    plain: ${connections.aws.plain}
    quoted: ${connections.aws.'quoted name'}
    bracket: ${connections['aws'][\"bracket\"].accessKeyID}
    text: 'a ${secrets.one}b${secrets[\"two\"]}'
    folded: >
      x ${secrets.folded}
      y
    within: ${concat(secrets.inner, outputs.'a'.b)}
    computed: ${secrets['a.' + parameters.b]}
    function: !Fn.merge
      a: !Connection [aws, merged]
    json: !Fn.jsonUnmarshal [!Secret json]
    mapped: !Secret {name: mapped}
    listed: !Secret [listed]
    shared: *shared
  input:
  - echo ${secrets.shell} ${connections.shell}
  - '!Connection [aws, text]'
- name: two
  spec: {<<: *shared}
";

const FOUND: [&str; 22] = [
    "slack/unused",
    "slack/shared",
    "secret:hook",
    "secret:env",
    "secret:when",
    "aws/flow",
    "aws/sequence",
    "aws/block",
    "aws/typed",
    "secret:typed-secret",
    "aws/plain",
    "aws/quoted name",
    "aws/bracket",
    "secret:one",
    "secret:two",
    "secret:folded",
    "secret:inner",
    "a secret",
    "aws/merged",
    "secret:json",
    "secret:mapped",
    "secret:listed",
];

/// Every form that Relay has for a reference, and forms that Relay does not have.
#[test]
fn every_form_is_found_and_what_is_the_shells_is_left_alone() {
    let steps = seeded();
    let found = check(&steps, EVERY_FORM, &["--offline", "-o", "name"]);
    assert!(found.status.success(), "{}", text(&found.stderr));
    let stdout = text(&found.stdout);
    let mut found: Vec<&str> = stdout.lines().collect();
    found.sort_unstable();
    let mut expected = FOUND.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    // Each step that uses an anchor asks for its references.
    let json = check(&steps, EVERY_FORM, &["--offline", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let shared = json.as_array().unwrap().iter().find(|one| one["reference"] == "slack/shared");
    assert_eq!(shared.unwrap()["steps"], serde_json::json!(["one", "two"]));
    let of_two = check(&steps, EVERY_FORM, &["--offline", "--step", "two", "-o", "name"]);
    assert_eq!(text(&of_two.stdout), "slack/shared\n");
}

#[test]
fn malformed_parts_are_reported_by_place_beside_the_rest() {
    let steps = seeded();
    let workflow = "\
steps:
- name: s
  spec:
    a: !Connection my-account
    b: !Connection {slack, chat}
    c: !Secret {nme: x}
    d: !Sekret x
    e: ${connections}
    f: ${secrets.}
    g: !Connection [slack, chat]
    h: {$type: Connection, name: x}
    i: !Connection [slack, 'a/b']
";
    let checked = check(&steps, workflow, &[]);
    let stdout = text(&checked.stdout);
    let places: Vec<&str> = stdout.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [4, 5, 6, 7, 8, 9, 10, 11, 12].map(|line| { format!("deploy.yaml:{line}:8") })
    );
    assert_eq!(checked.status.code(), Some(1));
    let fine: Vec<&str> = stdout.lines().filter(|line| line.ends_with(": fine")).collect();
    assert_eq!(fine, ["deploy.yaml:10:8: slack/chat: fine"]);
    for (broken, place) in [("steps: [\n", "deploy.yaml:"), ("a: b: c\n", "deploy.yaml:1:")] {
        let broken = check(&steps, broken, &[]);
        assert!(text(&broken.stdout).starts_with(place), "{}", text(&broken.stdout));
        assert_eq!(broken.status.code(), Some(1));
    }
}

#[test]
fn a_file_too_large_or_grown_by_aliases_is_refused() {
    let steps = seeded();
    let large = format!("steps: []\n# {}\n", "x".repeat(10 * 1024 * 1024));
    let refused = check(&steps, &large, &[]);
    assert!(text(&refused.stdout).contains("more than 4194304 bytes"), "{}", text(&refused.stdout));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let refused = check(&steps, &bomb, &[]);
    assert!(text(&refused.stdout).contains("once its aliases are written out"));
    assert_eq!(refused.status.code(), Some(1));
    // Labels multiply, too.
    let mut labels = String::from("steps:\n");
    for number in 0..1000 {
        labels.push_str(&format!("- {{name: s{number}, connectionLabel: a}}\n"));
    }
    labels.push_str("connectionEnvs:\n- connectionGroups:\n");
    (0..1000).for_each(|_| labels.push_str("  - {label: a, name: g, tags: ['a:b']}\n"));
    let refused = check(&steps, &labels, &[]);
    assert!(text(&refused.stdout).contains("uses more than 50000 connections"));
}

#[test]
fn a_files_control_characters_do_not_reach_the_terminal() {
    let steps = seeded();
    let workflow =
        "steps:\n- name: s\n  spec: {a: !Connection [aws, \"x\\e[31m\\n    keyhatch forged\"]}\n";
    for form in ["table", "name"] {
        let checked = check(&steps, workflow, &["-o", form]);
        let shown = text(&checked.stdout);
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 1, "{shown}");
    }
    let nowhere = check(&steps, workflow, &["--step", "t"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("there is no step t in it; steps: s"));
}

#[test]
fn check_names_and_binds_only_the_steps_that_fail() {
    let steps = seeded();
    let bind = ["access", "add", "aws/my-account", "--relation", "resolver", "--principal"];
    succeeded(&steps.serving.run(&[&bind[..], &["workflow:deploy/step:list"]].concat()));
    let workflow = |names: [&str; 3]| {
        let steps = names.map(|name| format!("- {name}\n  spec: {{a: *account}}\n"));
        format!("locals:\n  a: &account !Connection [aws, my-account]\nsteps:\n{}", steps.concat())
    };
    let some = workflow(["name: list", "name: delete", "name: report"]);
    let told = text(&check(&steps, &some, &[]).stdout);
    let grant =
        "    keyhatch access add aws/my-account --relation resolver --principal workflow:deploy";
    assert_eq!(
        told,
        format!(
            "deploy.yaml:2:15: aws/my-account: workflow deploy may not resolve it in step delete, report; its other \
             steps may\n{grant}/step:delete\n{grant}/step:report\n"
        )
    );
    let none = workflow(["name: a", "name: b", "name: c"]);
    let told = text(&check(&steps, &none, &[]).stdout);
    assert!(told.ends_with(&format!("may not resolve it\n{grant}\n")), "{told}");
}

#[test]
fn an_almost_reference_is_reported() {
    let steps = seeded();
    let workflow = "\
steps:
- name: s
  spec:
    a: {$type: connection, type: slack, name: chat}
    b: {$type: Conection, type: slack, name: chat}
    c: {$type: Collection, type: slack, name: chat}
    d: ${connection.slack.chat}
    e: {$type: SECRET, name: token}
";
    let checked = check(&steps, workflow, &["--offline"]);
    let stdout = text(&checked.stdout);
    let told: Vec<_> = stdout.lines().map(|line| line.split_once(": ").unwrap()).collect();
    let of = |line: usize, column| format!("deploy.yaml:{line}:{column}");
    let typed = |text: &str, meant: &str| format!("unknown $type {text:?}; is {meant} meant?");
    let name = "connection is not a name that a spec can use; it can use connections, secrets, parameters, outputs, steps \
                and event";
    let expected = [
        (of(4, 16), typed("connection", "Connection")),
        (of(5, 16), typed("Conection", "Connection")),
        (of(7, 8), name.to_owned()),
        (of(8, 16), typed("SECRET", "Secret")),
    ];
    let expected: Vec<_> = expected.iter().map(|(at, what)| (at.as_str(), what.as_str())).collect();
    assert_eq!(told, expected);
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn a_file_that_is_no_workflow_is_not_fine() {
    let steps = seeded();
    for file in ["hello: world\n", "[]\n", "{\"data\": {\"type\": \"monitor\"}}\n"] {
        let checked = check(&steps, file, &["--offline"]);
        assert_eq!(
            text(&checked.stdout),
            "deploy.yaml:1:1: it has no steps: is it a workflow of Relay or Datadog?\n"
        );
        assert_eq!(checked.status.code(), Some(1));
    }
    // A directory also has other files.
    std::fs::create_dir(steps.path("all")).unwrap();
    std::fs::write(steps.path("all/a.yaml"), "hello: world\n").unwrap();
    std::fs::write(steps.path("all/b.yaml"), "steps: []\n").unwrap();
    let mut checked = keyhatch_in(steps.directory.path(), &["check", "all", "--offline"]);
    let checked = checked.current_dir(steps.directory.path()).output().unwrap();
    let told = text(&checked.stderr);
    assert!(told.starts_with("note: all/a.yaml: it has no steps"), "{told}");
    assert!(checked.status.success());
}

const DATADOG: &str = r#"{"data": {"type": "workflows", "attributes": {"name": "deploy", "spec": {
  "steps": [
    {"name": "Notify", "actionId": "com.datadoghq.slack.sendMessage", "connectionLabel": "CHAT"},
    {"name": "Project", "actionId": "com.datadoghq.gcp.list", "connectionLabel": "PROJECTS"},
    {"name": "Lost", "actionId": "com.datadoghq.aws.list", "connectionLabel": "LOST"},
    {"name": "Branch", "actionId": "com.datadoghq.core.if"}
  ],
  "connectionEnvs": [{"env": "default",
    "connections": [{"label": "CHAT", "connectionId": "chat"}],
    "connectionGroups": [
      {"label": "PROJECTS", "connectionGroupId": "projects", "tags": ["env:dev", "region:eu"]}]}]
}}}}
"#;

#[test]
fn a_workflow_of_datadog_is_read_as_it_is_exported() {
    let steps = seeded();
    let checked = check(&steps, DATADOG, &["-o", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let told = findings.as_array().unwrap().iter().map(|one| {
        let [reference, state] = ["reference", "state"].map(|key| one[key].as_str().unwrap());
        (one["line"].as_u64().unwrap(), reference, state, one["steps"].clone())
    });
    let step = |name: &str| serde_json::json!([name]);
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (5, "", "malformed", serde_json::json!([])),
            (9, "slack/chat", "fine", step("Notify")),
            (11, "group:projects:env=dev,region=eu", "denied", step("Project")),
        ]
    );
    let query = r#"{"queries": [{"properties": {"spec":
        {"fqn": "com.datadoghq.slack.sendMessage", "connectionId": "chat"}}}]}"#;
    let found = check(&steps, query, &["--offline", "-o", "name"]);
    assert_eq!(
        text(&found.stdout),
        "slack/chat
"
    );
}

#[test]
fn a_request_of_datadog_needs_a_user_only() {
    let steps = seeded();
    let create = ["connection", "create", "http/api", "--kind", "none", "--user", "workflow:asks"];
    steps.serving.must(&[&create[..], &["--field", "base_url=https://example.com"]].concat());
    let step = |name: &str, action: &str, connection: &str| {
        format!(
            r#"{{"name": "{name}", "actionId": "com.datadoghq.{action}", "connectionId": "{connection}"}}"#
        )
    };
    let spec = |steps: &[String]| format!(r#"{{"queries": [{}]}}"#, steps.join(", "));
    let request = spec(&[step("Ask", "http.request", "api")]);
    let told = |workflow: &str, spec: &str| {
        let checked = check(&steps, spec, &["--workflow", workflow]);
        (checked.status.code(), text(&checked.stdout))
    };
    let (code, said) = told("asks", &request);
    assert_eq!((code, said.contains("http/api: fine")), (Some(0), true), "{said}");
    let (code, said) = told("other", &request);
    assert!(said.contains("workflow other may not use it"), "{said}");
    let command = "keyhatch access add http/api --relation user --principal workflow:other";
    assert_eq!((code, said.contains(command)), (Some(1), true), "{said}");
    let (_, said) = told("other", &spec(&[step("Ask", "http.request", "nothere")]));
    assert!(said.contains("--user workflow:other"), "{said}");
    // A step that gets the values needs more, and the answer says what its workflow has.
    let (code, said) = told("asks", "steps: [{name: a, spec: {c: !Connection [http, api]}}]");
    assert!(said.contains("workflow asks may use it, but not resolve it"), "{said}");
    let way = "without its values it may run keyhatch exec --serve http=http/api -- COMMAND";
    assert!(said.contains(way), "{said}");
    let command = "keyhatch access add http/api --relation resolver --principal workflow:asks";
    assert_eq!((code, said.contains(command)), (Some(1), true), "{said}");
}

#[test]
fn a_workflow_is_taken_from_stdin_as_from_a_file() {
    let steps = seeded();
    let piped = |more: &[&str]| {
        std::fs::write(steps.path("w"), "steps: [{name: a, spec: {c: !Connection [slack, chat]}}]")
            .unwrap();
        let mut check = keyhatch_in(steps.directory.path(), &["check", "-"]);
        check.args(more).stdin(std::fs::File::open(steps.path("w")).unwrap()).output().unwrap()
    };
    let named = piped(&["--workflow", "deploy"]);
    assert_eq!(named.status.code(), Some(0), "{}", text(&named.stderr));
    assert!(text(&named.stdout).starts_with("stdin:1:"), "{named:?}");
    let unnamed = piped(&[]);
    assert_eq!(unnamed.status.code(), Some(2), "{unnamed:?}");
    assert!(text(&unnamed.stderr).contains("give --workflow"), "{unnamed:?}");
}
