//! `exec --serve relay`: Puppet Relay's metadata API over plain HTTP. The tests in `tools` use Relay's own SDK.

use std::process::Output;

use serde_json::{Value as Json, json};

use crate::harness::{Steps, connection, secret, skipped};

const SPEC: &str = "\
name: step
image: relaysh/core
spec:
  aws:
    connection: !Connection {type: aws, name: prod}
    region: eu-west-1
  other: ${connections.aws.absent}
  token: !Secret token
  odd: !Secret image.tag
  text: 'with ${secrets.token} in it'
  who: !Parameter who
  later: !Output {from: s, name: made}
env:
  TOKEN: !Secret token
  MISSING: !Parameter missing
when:
- !Fn.equals [!Parameter who, me]
- ${secrets.token != 'x'}
";

fn world() -> Steps {
    let steps = Steps::seeded(
        &[
            connection(
                "aws",
                "prod",
                &[("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", "not-a-real-secret")],
            ),
            secret("token", "hush-hush"),
            secret("image.tag", "v1"),
        ]
        .concat(),
    );
    std::fs::write(steps.path("spec.yaml"), SPEC).unwrap();
    steps
}

/// Runs a script of `curl`s as `ask METHOD PATH [BODY]`, each of which prints a line: the status and the answer.
fn ask(world: &Steps, options: &[&str], script: &str) -> Output {
    let ask = "ask() { curl -sS -X \"$1\" ${3+--data-binary \"$3\"} -w ' %{http_code}\\n' \"$METADATA_API_URL$2\"; }\n";
    let script = format!("set -e\n{ask}{script}");
    let serve = ["exec", "--serve", "relay", "--spec", "spec.yaml", "--no-mask"];
    world.run("keyhatch", &[&serve, options, &["--", "sh", "-c", &script]].concat())
}

fn answers(world: &Steps, options: &[&str], script: &str) -> Vec<(Json, u16)> {
    let ran = ask(world, options, script);
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{stdout}{}", String::from_utf8_lossy(&ran.stderr));
    let line = |line: &str| {
        let (body, status) = line.rsplit_once(' ').unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|_| Json::from(body));
        (body, status.parse().unwrap())
    };
    stdout.lines().map(line).collect()
}

#[test]
fn a_spec_is_answered_in_each_query_language() {
    let world = world();
    let script = "
        ask GET '/spec?q=aws%5B%22connection%22%5D%5B%22accessKeyID%22%5D'
        ask GET '/spec?q=aws.connection.secretAccessKey&lang=path'
        ask GET '/spec?q=%24.aws.region&lang=jsonpath'
        ask GET '/spec?q=in%20%7B.aws.region%7D&lang=jsonpath-template'
        ask GET '/spec?q=%24%7Baws.region%7D&lang=path-template'
        ask GET '/spec?q=aws.connection'
        ask GET '/spec?q=text'
        ask GET '/spec?q=odd'
        ask GET '/spec?q=aws.connection.access_key_id'";
    let answers = answers(&world, &[], script);
    let complete =
        |value: Json| (json!({ "value": value, "unresolvable": {}, "complete": true }), 200);
    let connection =
        json!({ "accessKeyID": "AKIAEXAMPLE", "secretAccessKey": "not-a-real-secret" });
    assert_eq!(
        answers,
        [
            complete(json!("AKIAEXAMPLE")),
            complete(json!("not-a-real-secret")),
            complete(json!("eu-west-1")),
            complete(json!("in eu-west-1")),
            complete(json!("eu-west-1")),
            complete(connection),
            complete(json!("with hush-hush in it")),
            complete(json!("v1")),
            complete(json!("AKIAEXAMPLE")),
        ]
    );
}

#[test]
fn refusals_leave_an_answer_incomplete_and_absences_fail_it() {
    let world = world();
    let script = "
        ask GET '/spec?q=other'
        ask GET '/spec?q=who'
        ask GET /spec
        ask GET '/spec?q=aws.nothing'
        ask GET '/spec?q=aws.connection.nothing'
        ask GET '/spec?q=aws%5B'
        ask GET '/spec?q=a&lang=xpath'
        ask GET /secrets/nothing
        ask GET /nothing
        ask POST /events '{\"data\": {}}'";
    let answers = answers(&world, &[], script);
    let absent = json!([{ "type": "aws", "name": "absent" }]);
    assert_eq!(
        answers[0],
        (
            json!({ "value": null, "unresolvable": { "connections": absent }, "complete": false }),
            200
        )
    );
    let who = json!([{ "name": "who" }]);
    assert_eq!(
        answers[1].0,
        json!({ "value": null, "unresolvable": { "parameters": who }, "complete": false })
    );
    let (whole, _) = &answers[2];
    assert_eq!(whole["complete"], false);
    assert_eq!(whole["value"]["other"], "${connections.aws.absent}");
    assert_eq!(whole["value"]["who"], json!({ "$type": "Parameter", "name": "who" }));
    assert_eq!(whole["value"]["token"], "hush-hush");
    let expected = [
        (422, "rma_expression_evaluation_error"),
        (422, "rma_expression_evaluation_error"),
        (422, "rma_expression_evaluation_error"),
        (422, "rma_expression_unsupported_language_error"),
        (404, "rma_model_not_found_error"),
        (404, "rma_model_not_found_error"),
        (501, "rma_api_not_implemented_error"),
    ];
    for ((body, status), (code, name)) in answers[3..].iter().zip(expected) {
        assert_eq!((*status, body["error"]["code"].as_str()), (code, Some(name)), "{body}");
    }
    let technical = answers[3].0["error"]["description"]["technical"].clone();
    assert_eq!(technical, "path \"aws.nothing\": unknown key nothing");
}

#[test]
fn secrets_environment_and_conditions_are_answered() {
    let world = world();
    let script = "
        ask GET /healthz
        ask GET /secrets/token
        ask GET /secrets/image.tag
        ask GET /environment/TOKEN
        ask GET /environment
        ask GET /conditions";
    let answered = answers(&world, &["--parameter", "who=me"], script);
    assert_eq!(answered[0], (json!({ "ping": "pong" }), 200));
    assert_eq!(answered[1], (json!({ "key": "token", "value": "hush-hush" }), 200));
    assert_eq!(answered[2], (json!({ "key": "image.tag", "value": "v1" }), 200));
    assert_eq!(
        (&answered[3].0["value"], &answered[3].0["complete"]),
        (&json!("hush-hush"), &json!(true))
    );
    assert_eq!(answered[4].0["complete"], false);
    assert_eq!(answered[5], (json!({ "resolved": true, "success": true, "message": "" }), 200));
    let other = answers(&world, &["--parameter", "who=you"], "ask GET /conditions");
    assert_eq!((&other[0].0["resolved"], &other[0].0["success"]), (&json!(true), &json!(false)));
    let unknown = answers(&world, &[], "ask GET /conditions");
    assert_eq!(
        (&unknown[0].0["resolved"], &unknown[0].0["success"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn outputs_and_state_are_kept_for_the_life_of_the_command() {
    let world = world();
    let script = "
        ask PUT /outputs/made '\"by me\"'
        ask PUT /outputs/a%20b/c '{\"x\": 1}'
        ask PUT /outputs/made/metadata '{\"sensitive\": true}'
        ask GET /outputs/s/made
        ask GET /outputs/s/a+b/c
        ask GET /outputs/other/made
        ask GET '/spec?q=later'
        ask PUT /state/seen '[1]'
        ask GET /state/seen
        ask GET /state/nothing
        ask PUT /outputs/bad '{'";
    let answers = answers(&world, &[], script);
    let statuses: Vec<_> = answers.iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses, [201, 201, 201, 200, 200, 404, 200, 201, 200, 404, 422]);
    let made = json!({ "task_name": "s", "key": "made", "value": "by me", "metadata": { "sensitive": true } });
    assert_eq!(answers[3].0, made);
    assert_eq!(
        (&answers[4].0["key"], &answers[4].0["value"]),
        (&json!("a b/c"), &json!({ "x": 1 }))
    );
    assert_eq!(answers[6].0["value"], "by me");
    assert_eq!(answers[8].0, json!({ "key": "seen", "value": [1] }));
}

#[test]
fn no_token_or_another_host_name_gets_nothing() {
    let world = world();
    let script = "
        port=${METADATA_API_URL##*:}
        token=${METADATA_API_URL#http://:}; token=${token%@*}
        code() { curl -s -o body -w '%{http_code} ' \"$@\"; }
        code http://127.0.0.1:$port/spec
        code http://:wrong@127.0.0.1:$port/spec
        code http://somebody:$token@127.0.0.1:$port/spec
        code http://127.0.0.1:$port/aws/credentials
        code -H \"Authorization: Bearer $token\" -H 'Host: evil.example' http://127.0.0.1:$port/spec
        cat body
        code -H \"Authorization: Bearer $token\" http://127.0.0.1:$port/secrets/token
        code http://token:$token@localhost:$port/secrets/token";
    let ran = ask(&world, &[], script);
    let stdout = String::from_utf8(ran.stdout).unwrap();
    let expected = "401 401 401 401 421 this address is 127.0.0.1 and nothing else200 200 ";
    assert_eq!(stdout, expected, "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Other users can see the token in a command line, as in these tests. It must be of no use to them.
#[test]
fn another_user_gets_nothing_even_with_the_token() {
    if !rustix::process::geteuid().is_root() {
        return skipped("another user at the loopback address", "needs root");
    }
    let world = world();
    let script = "
        code() { curl -s -o /dev/null -w '%{http_code} ' \"$METADATA_API_URL/spec?q=text\" || echo \"failed \"; }
        code
        setpriv --reuid 65534 --clear-groups curl -s \"$METADATA_API_URL/spec?q=text\" || echo 'refused '
        code";
    let ran = ask(&world, &[], script);
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(stdout, "200 refused \n200 ", "{}", String::from_utf8_lossy(&ran.stderr));
    // An address for that user serves only that user.
    let script = "
        curl -s \"$METADATA_API_URL/spec?q=text\" || echo 'refused '
        setpriv --reuid 65534 --clear-groups curl -s -o /dev/null -w '%{http_code} ' \"$METADATA_API_URL/spec?q=text\"";
    let ran = ask(&world, &["--serve-uid", "65534"], script);
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), "refused \n200 ");
}

#[test]
fn values_handed_out_by_the_api_are_masked_in_output() {
    let world = world();
    let serve = ["exec", "--serve", "relay", "--spec", "spec.yaml", "--", "sh", "-c"];
    let script = "curl -s \"$METADATA_API_URL/secrets/token\"";
    let ran = world.run("keyhatch", &[&serve[..], &[script]].concat());
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(
        stdout,
        "{\"key\":\"token\",\"value\":\"***\"}",
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn a_malformed_or_greedy_spec_is_refused_with_its_place() {
    let world = world();
    for (spec, at, problem) in [
        ("a: [", "spec.yaml:1:4: ", "unclosed bracket"),
        ("a: 1\nb: !Connection {pagerduty, mine}\n", "spec.yaml:2:4: ", "!Connection wants"),
        ("a: x\nb: ${connections}\n", "spec.yaml:2:4: ", "all of them at once"),
        ("a: !Bogus x\n", "spec.yaml:1:4: ", "unknown tag"),
    ] {
        std::fs::write(world.path("spec.yaml"), spec).unwrap();
        let ran = ask(&world, &[], "touch ran");
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(125), "{stderr}");
        assert!(stderr.starts_with("error: SPEC_INVALID: ") && stderr.contains(at), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    }
    assert!(!world.path("ran").exists());
}
