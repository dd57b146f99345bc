//! A plan shows every part of a change but the values, so that nobody confirms more than they see.

use std::process::Output;

use serde_json::{Value as Json, json};

use crate::harness::{Steps, keyhatch_in, succeeded, text};

const CANARY: &str = "c4n4ry";

const PROD: &str = "\
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: prod}
spec:
  integration: aws
  fields: {access_key_id: AKIA, secret_access_key: c4n4ry}
  access: {resolver: ['workflow:deploy']}
";

const HOSTILE: &str = "\
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: prod, labels: {x: y}, tags: {env: prod}}
spec:
  integration: aws
  access: {resolver: ['workflow:evil'], editor: ['operator:evil', 'operator:admin']}
  fields: {access_key_id: {keep: true}, secret_access_key: {keep: true}}
  default: true
  disabled: true
  maxTtl: 90s
  expires: '2030-01-01T00:00:00Z'
---
apiVersion: keyhatch/v1
kind: Connection
metadata: {name: new, labels: {team: a}, tags: {env: dev}}
spec:
  integration: http
  kind: none
  fields: {base_url: {fromEnv: KH_CANARY}}
  access: {viewer: ['workflow:*']}
  default: true
---
apiVersion: keyhatch/v1
kind: ConnectionGroup
metadata: {name: accounts, labels: {team: b}}
spec: {integration: aws, identifiers: [env], members: [prod], access: {viewer: ['workflow:evil']}}
---
apiVersion: keyhatch/v1
kind: Secret
metadata: {name: foreign, workflow: deploy}
spec: {value: {fromFile: value}}
";

const PLAN: &[&str] = &[
    "~ connections/aws/prod (",
    "    values (kept): access_key_id, secret_access_key",
    "  - access.resolver: workflow:deploy",
    "  + access.resolver: workflow:evil",
    "  + access.editor: operator:evil",
    "    disabled: false -> true",
    "    default: false -> true",
    "  + expires: 2030-01-01T00:00:00",
    "  + max_ttl: 90s",
    "  + tags.env: prod",
    "  + labels.x: y",
    "+ connections/http/new (",
    "    values (variable KH_CANARY): base_url",
    "  + access.viewer: workflow:*",
    "  + access.editor: operator:admin",
    "  + kind: none",
    "+ groups/accounts (",
    "  + access.viewer: workflow:evil",
    "  + identifiers: env",
    "  + members: aws/prod",
    "  + labels.team: b",
    "+ workflows/deploy/secrets/foreign (",
    "    values (file value): value",
];

fn run(world: &Steps, arguments: &[&str], content: &str) -> Output {
    let path = world.path("given.yaml");
    std::fs::write(&path, content).unwrap();
    let allowed = ["--allow-env", "KH_CANARY"];
    let arguments = [arguments, &["-f", path.to_str().unwrap()], &allowed].concat();
    let mut command = keyhatch_in(world.directory.path(), &arguments);
    let ran = command.env("KH_CANARY", format!("https://{CANARY}")).output().unwrap();
    assert!(!text(&ran.stdout).contains(CANARY) && !text(&ran.stderr).contains(CANARY));
    ran
}

#[test]
fn a_plan_shows_everything_but_values_in_every_command() {
    let world = Steps::seeded(PROD);
    std::fs::write(world.path("value"), CANARY).unwrap();
    let shown = |arguments: &[&str]| {
        let ran = run(&world, arguments, HOSTILE);
        text(&ran.stdout) + &text(&ran.stderr)
    };
    let prune = ["apply", "--prune", "--label", "team=z"];
    for arguments in [&["diff"][..], &["apply", "--dry-run"]] {
        let plan = shown(arguments);
        for line in PLAN {
            assert!(plan.contains(line), "{arguments:?}: {line}\n{plan}");
        }
    }
    // The same holds before a question.
    let other = PROD.replace("{name: prod}", "{name: other, labels: {team: z}}");
    assert!(run(&world, &["apply"], &other).status.success());
    let asked = shown(&prune);
    assert!(asked.contains("Delete connections/aws/other"), "{asked}");
    assert!(PLAN.iter().all(|line| asked.contains(line)), "{asked}");
}

#[test]
fn an_import_lists_the_readers_of_existing_connections() {
    let world = Steps::seeded(PROD);
    let content = "connections: {aws/prod: {accessKeyID: AKIAc4n4ry, secretAccessKey: c4n4ry2}}\n";
    let path = world.path("given.yaml");
    std::fs::write(&path, content).unwrap();
    let import = ["import", "--from", "relay", path.to_str().unwrap()];
    let give = ["--resolver", "workflow:evil"];
    let expected = [
        "~ connections/aws/prod (",
        "    values (imported): accessKeyID, secretAccessKey",
        "  - access.resolver: workflow:deploy",
        "  + access.resolver: workflow:evil",
        "    fields.access_key_id: (changed)",
        "    fields.secret_access_key: (changed)",
    ];
    for more in [&["--dry-run"][..], &["--yes"]] {
        let ran = world.serving.run(&[&import[..], &give, more].concat());
        let plan = text(&ran.stdout) + &text(&ran.stderr);
        assert!(ran.status.success() && !plan.contains(CANARY), "{plan}");
        assert!(expected.iter().all(|line| plan.contains(line)), "{plan}");
    }
}

#[test]
fn no_number_of_other_changes_hides_a_change_of_access() {
    let world = Steps::seeded(PROD);
    let labels: Vec<_> = (0..60).map(|n| format!("l{n}: v")).collect();
    let fields: Vec<_> = (0..120).map(|n| format!("f{n}: v")).collect();
    let document = |access: &str, fields: &str, labels: &str| {
        format!(
            "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: many, labels: {{{labels}}}}}\n\
             spec:\n  integration: generic\n  access: {{resolver: ['{access}']}}\n  fields: {{{fields}}}\n"
        )
    };
    assert!(run(&world, &["apply"], &document("workflow:deploy", "a: b", "")).status.success());
    let hostile = document("workflow:evil", &fields.join(", "), &labels.join(", "));
    let plan = text(&run(&world, &["diff"], &hostile).stdout);
    assert!(plan.contains("\n  + access.resolver: workflow:evil\n"), "{plan}");
    assert!(plan.contains("and 80 more, which the broker does not list"), "{plan}");
    let answer = run(&world, &["diff", "-o", "json"], &hostile);
    let answer: Json = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer[0]["untold_differences"], json!(80));
    assert_eq!(answer[0]["differences"][0]["path"], "access.resolver");
}

/// An integration with many fields, one with a pattern that is longer than a plan shows.
fn own(description: &str, of_token: &str, of_pattern: &str) -> String {
    let others: String = (0..126)
        .map(|n| format!("    - {{name: f{n}, description: {description}, sensitive: true}}\n"))
        .collect();
    let pattern = "a".repeat(330);
    format!(
        "apiVersion: keyhatch/v1\nkind: Integration\nmetadata: {{name: own}}\nspec:\n  title: {description}\n  kinds:\n  \
         - name: k\n    fields:\n{others}    - {{name: token, description: x, {of_token}}}\n    \
         - {{name: url, description: x, sensitive: false, pattern: '{pattern}{of_pattern}}}\n"
    )
}

#[test]
fn no_description_hides_how_an_integration_keeps_values() {
    let world = Steps::seeded(PROD);
    let before = own("old", "sensitive: true, required: true", "'");
    succeeded(&run(&world, &["apply"], &before));
    let hostile = own(
        "new",
        "sensitive: false, destination: true, env: EVIL",
        "b', aliases: [evil], template: true",
    );
    let plan = text(&run(&world, &["diff"], &hostile).stdout);
    let alike = "a".repeat(20);
    for line in [
        "    kinds.k.token.sensitive: true -> false\n",
        "  + kinds.k.token.destination: true\n",
        "  - kinds.k.token.required: true\n",
        "  + kinds.k.token.env: EVIL\n",
        "  + kinds.k.url.aliases: evil\n",
        "  + kinds.k.url.template: true\n",
        &format!("    kinds.k.url.pattern: … {alike} -> … {alike}b\n"),
        "    and 28 more, which the broker does not list",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
}

#[test]
fn no_number_of_tags_hides_where_a_credential_is_sent() {
    let world = Steps::seeded(PROD);
    let document = |url: &str, n: usize| {
        let many: Vec<_> = (0..n).map(|n| format!("l{n}: v")).collect();
        let many = many.join(", ");
        format!(
            "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: many, labels: {{{many}}}, tags: {{{many}}}}}\n\
             spec: {{integration: http, kind: none, fields: {{base_url: '{url}'}}}}\n"
        )
    };
    succeeded(&run(&world, &["apply"], &document("https://a.example/", 0)));
    let plan = text(&run(&world, &["diff"], &document("https://evil.example/", 60)).stdout);
    let line = "    fields.base_url: https://a.example/ -> https://evil.example/\n";
    assert!(plan.contains(line) && plan.contains("which the broker does not list"), "{plan}");
}
