//! Every command that binds principals, or shows who is bound, knows each relation.

use crate::harness::{Steps, text};

fn seed(access: &str) -> String {
    format!(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: chat}}\nspec: {{integration: slack, fields: \
         {{api_token: t}}, access: {{{access}}}}}\n"
    )
}

#[test]
fn a_user_is_bound_shown_exported_and_taken_away() {
    let steps = Steps::start();
    let run = |words: &[&str]| steps.serving.must(words);
    let fields = ["--kind", "none", "--field", "base_url=https://example.com"];
    run(&[&["connection", "create", "http/api", "--user", "workflow:w"][..], &fields].concat());
    let shown = run(&["connection", "get", "http/api"]);
    assert!(shown.lines().any(|line| line == "user         workflow:w"), "{shown}");
    let change = |verb, principal| {
        run(&["access", verb, "http/api", "--relation", "user", "--principal", principal])
    };
    assert!(change("add", "workflow:v").contains("user      workflow:v"));
    let listed = run(&["access", "list", "http/api", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["access"]["user"], serde_json::json!(["workflow:v", "workflow:w"]));
    assert!(!change("remove", "workflow:w").contains("workflow:w"));
    let exported = run(&["export", "-o", "yaml"]);
    assert!(exported.contains("user:\n      - workflow:v"), "{exported}");
    // Only a connection has users.
    let group = ["group", "create", "g", "--integration", "http", "--identifier", "env"];
    run(&group);
    let group = ["access", "add", "group:g", "--relation", "user", "--principal", "workflow:w"];
    let refused = steps.serving.run(&group);
    assert!(text(&refused.stderr).contains("users and resolvers are bound to its members"));
}

#[test]
fn documents_and_imports_bind_users() {
    let steps = Steps::start();
    // A connection that some step may use is a connection for somebody.
    assert!(!steps.apply(&seed("user: ['workflow:w']")).contains("no step may"));
    std::fs::write(steps.path("next.yaml"), seed("user: ['workflow:v']")).unwrap();
    let path = steps.path("next.yaml");
    let plan = steps.serving.run(&["diff", "-f", path.to_str().unwrap()]);
    let plan = text(&plan.stdout);
    assert!(plan.contains("- access.user: workflow:w"), "{plan}");
    assert!(plan.contains("+ access.user: workflow:v"), "{plan}");
    std::fs::write(steps.path("app.env"), "OPENAI_API_KEY=not-a-real-secret\n").unwrap();
    let path = steps.path("app.env");
    let import = ["import", "--from", "env", path.to_str().unwrap(), "--name", "ai", "--yes"];
    steps.serving.must(&[&import[..], &["--user", "workflow:w"]].concat());
    let listed = steps.serving.must(&["access", "list", "openai/ai"]);
    assert!(listed.contains("user      workflow:w"), "{listed}");
    steps.refusal(&["get", "openai/ai"]);
}

#[test]
fn explain_shows_the_relation_that_a_step_has() {
    let steps = Steps::start();
    steps.apply(&seed("user: ['workflow:w']"));
    let ask = ["explain", "slack/chat", "--workflow", "w"];
    let told = steps.serving.must(&ask);
    let expected = [
        "now: RESOLVE_DENIED: its relation to connections/slack/chat is user, and it needs resolver",
        "connections/slack/chat: needs resolver, has user;",
        "  keyhatch access add slack/chat --relation resolver --principal workflow:w/step:any",
        "  keyhatch send slack/chat GET /PATH",
        "  keyhatch exec --serve http=slack/chat -- COMMAND",
    ];
    for line in expected {
        assert!(told.contains(line), "{told}");
    }
    // A stranger can do neither.
    let stranger = steps.serving.must(&["explain", "slack/chat", "--workflow", "other"]);
    assert!(!stranger.contains("keyhatch send"), "{stranger}");
    let told = steps.serving.must(&[&ask[..], &["--use"]].concat());
    assert!(told.contains("now: ALLOWED: allowed by user workflow:w"), "{told}");
    assert!(told.contains("connections/slack/chat: needs user, given;"), "{told}");
    steps.refusal(&["get", "slack/chat"]);
    let denied = steps.serving.must(&["journal", "tail", "--denied", "-o", "json"]);
    let line: serde_json::Value = serde_json::from_str(denied.lines().last().unwrap()).unwrap();
    let id = format!("1.{}", line["n"]);
    let told = steps.serving.must(&["explain", &id]);
    assert!(told.contains("RESOLVE_DENIED: its relation was too low: user workflow:w"), "{told}");
}

#[test]
fn access_suggest_raises_whom_the_values_were_refused() {
    let steps = Steps::start();
    steps.apply(&seed("user: ['workflow:w']"));
    for _ in 0..2 {
        steps.refusal(&["get", "slack/chat"]);
    }
    let told = steps.serving.must(&["access", "suggest", "w"]);
    let evidence =
        "raise: a step was refused its values, 2 time(s), step s last: keyhatch explain 1.";
    assert!(told.contains(evidence), "{told}");
    let (_, id) = told.split_once("keyhatch explain ").unwrap();
    let explained = steps.serving.must(&["explain", id.split_whitespace().next().unwrap()]);
    assert!(explained.contains("asks for slack/chat"), "{explained}");
    // A step can provoke the advice, so no command stands ready.
    assert!(!told.contains("keyhatch access add"), "{told}");
    let command = "keyhatch access add slack/chat --relation resolver --principal workflow:w";
    steps.serving.must(&command.split(' ').skip(1).collect::<Vec<_>>());
    steps.answer(&["get", "slack/chat"]);
    assert!(steps.serving.must(&["access", "suggest", "w"]).contains("all were used, or are new"));
}
