//! Mistyped, forgotten and unknown words get a sentence that says what to write instead.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use crate::harness::{
    Steps, assert_says, keyhatch, keyhatch_in, path_with_binary, skipped, succeeded, text,
};

/// The last line of what `apply` says of a seed file.
fn apply(steps: &Steps, seed: &str) -> String {
    std::fs::write(steps.path("seed.yaml"), seed).unwrap();
    let path = steps.path("seed.yaml");
    let applied = steps.serving.run(&["apply", "-f", path.to_str().unwrap()]);
    text(&applied.stderr).lines().last().unwrap_or_default().to_owned()
}

/// Runs a command on a terminal and answers each question as it comes. `None` if there is no script(1).
fn on_terminal(steps: &Steps, command: &str, answers: &[(&str, &str)]) -> Option<String> {
    let mut terminal = keyhatch_in(steps.directory.path(), &[]);
    let names: Vec<_> = terminal.env("LANG", "C").get_envs().collect();
    // The timeout ends the test if a question never comes.
    let mut script = std::process::Command::new("timeout");
    script.args(["60", "script", "-qec", command, "/dev/null"]);
    script.envs(names.into_iter().filter_map(|(name, value)| Some((name, value?))));
    script.env("PATH", path_with_binary()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().ok()?;
    let (mut input, mut output) = (child.stdin.take()?, child.stdout.take()?);
    let (mut told, mut begin) = (Vec::new(), 0);
    for (question, answer) in answers {
        let mut byte = [0];
        while !text(&told[begin..]).contains(question) && output.read(&mut byte).unwrap() > 0 {
            told.extend(byte);
        }
        begin = told.len();
        // Nobody reads if there is no script(1).
        let _ = input.write_all(format!("{answer}\n").as_bytes());
    }
    output.read_to_end(&mut told).unwrap();
    let code = child.wait().unwrap().code();
    assert!(code != Some(124), "{}", text(&told));
    (code != Some(127)).then(|| text(&told))
}

fn connection(rest: &str) -> String {
    format!("apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: prod{rest}}}\n")
}

#[test]
fn a_mistyped_field_is_reported_with_the_known_fields() {
    let steps = Steps::start();
    let of_aws = |fields: &str| {
        let spec = format!("spec: {{integration: aws, fields: {{{fields}}}}}\n");
        apply(&steps, &format!("{}{spec}", connection("")))
    };
    let told = of_aws("access_key: canary");
    assert_says(&told, &["access_key is a kind, whose fields are: access_key_id, "]);
    let told = of_aws("access_key_idd: canary, secret_access_key: canary");
    assert_says(&told, &["there is no field access_key_idd; access_key has: access_key_id, "]);
    let told = of_aws("access_key_id: canary, role: canary");
    assert_says(&told, &["no kind has all of these fields; access_key has: "]);
    assert!(!told.contains("canary"));
    let field = format!("{}spec: {{integration: aws, field: {{a: b}}}}\n", connection(""));
    assert_says(&apply(&steps, &field), &["seed.yaml:4:26: unknown key; did you mean fields?"]);
    let relay = "connections:\n  aws/prod: {accessKey: canary}\n";
    assert_says(&apply(&steps, relay), &["seed.yaml:2:13", "there is no field accessKey; "]);
}

#[test]
fn a_number_as_a_tag_is_refused_with_a_hint_at_quotes() {
    let steps = Steps::start();
    for tags in ["{account_id: 333333333333}", "{account_id: 012}", "{prod: yes, on: true}", "[1]"]
    {
        let spec = "spec: {integration: slack, fields: {api_token: t}}\n";
        let told = apply(&steps, &format!("{}{spec}", connection(&format!(", tags: {tags}"))));
        assert_says(&told, &["USAGE", "seed.yaml:3:", "in quotes", "account_id: \"111122223333\""]);
        assert!(!told.contains("333333333333"), "{told}");
    }
}

#[test]
fn a_connection_for_nobody_is_reported_with_a_remedy() {
    let steps = Steps::start();
    let created = |words: &[&str]| {
        let output = steps.serving.run(words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let create = |name, more: &[&str]| {
        let words = ["connection", "create", name, "--field", "base_url=https://example.com"];
        created(&[&words[..], &["--kind", "none"], more].concat())
    };
    let told = create("http/a", &["--viewer", "workflow:w", "--resolver", "operator:admin"]);
    let mended = "keyhatch access add http/a --relation resolver --principal workflow:NAME";
    assert_eq!(told, format!("no step may resolve it yet: {mended}\n"));
    assert_eq!(create("http/b", &["--resolver", "workflow:w"]), "");
    assert_eq!(create("http/u", &["--user", "workflow:w"]), "");
    assert_eq!(create("http/c", &["--editor", "workflow:w", "--resolver", "team:ops"]), "");
    // The principals of --run-as count beside the workflow, never instead of it.
    let told = create("http/d", &["--resolver", "team:ops", "--resolver", "user:alice"]);
    assert_eq!(told, format!("no step may resolve it yet: {}\n", mended.replace("/a", "/d")));
    let spec = "spec: {integration: slack, fields: {api_token: t}}\n";
    let (first, again) = (connection(""), connection("").replace("prod", "other"));
    let told = apply(&steps, &format!("{first}{spec}---\n{again}{spec}"));
    assert_says(
        &told,
        &["no step may resolve slack/prod, slack/other yet: keyhatch access add REF"],
    );
    assert_eq!(apply(&steps, &format!("{first}{spec}")), "1 unchanged");
    let group = ["group", "create", "g", "--integration", "http", "--identifier", "env"];
    let mended = "keyhatch access add group:g --relation viewer --principal workflow:NAME";
    assert_eq!(created(&group), format!("no step may use it yet: {mended}\n"));
}

#[test]
fn on_a_terminal_the_kind_and_its_fields_are_asked_for() {
    let steps = Steps::start();
    let created = |reference: &str, answers: &[(&str, &str)]| {
        let command = format!("keyhatch connection create {reference} --resolver workflow:w");
        let told = on_terminal(&steps, &command, answers)?;
        let shown =
            text(&steps.serving.run(&["connection", "get", reference, "-o", "json"]).stdout);
        Some((told, serde_json::from_str(&shown).unwrap_or(serde_json::Value::Null)))
    };
    // An empty answer selects the first kind.
    let answers = [
        ("kind (access_key): ", ""),
        ("access_key_id (", "AKIAIOSFODNN7EXAMPLE"),
        ("secret_access_key (", "not-a-real-secret"),
    ];
    let Some((told, aws)) = created("aws/a", &answers) else {
        return skipped("on a terminal", "there is no script(1)");
    };
    assert_eq!(aws["kind"], "access_key", "{told}");
    assert_says(&told, &["1  access_key", "2  assume_role"]);
    assert!(!told.contains("not-a-real-secret"), "{told}");
    let answers = [("kind (", "none"), ("base_url (", "https://example.com")];
    let (told, http) = created("http/b", &answers).unwrap();
    assert_eq!(http["kind"], "none", "{told}");
    let name = "name of a field";
    let answers =
        [(name, "user"), ("user: ", "me"), (name, "password"), ("password: ", "s3"), (name, "")];
    let (told, own) = created("generic/c", &answers).unwrap();
    assert_says(&own.to_string(), &["\"user\"", "\"password\""]);
    assert!(told.contains("generic/c created"), "{told}");
    let (told, none) = created("aws/d", &[("kind (", "9")]).unwrap();
    assert_says(&told, &["there is no kind 9 among them"]);
    assert!(none.is_null());
}

#[test]
fn an_interrupt_at_a_hidden_question_leaves_the_echo_on() {
    let steps = Steps::start();
    let create = "keyhatch connection create aws/e --kind access_key --field access_key_id=AKIA --resolver workflow:w";
    let command = format!("trap : INT; {create}; echo ended by $?; stty -a");
    let answers = [("secret_access_key (", "\u{3}")];
    let Some(told) = on_terminal(&steps, &command, &answers) else {
        return skipped("on a terminal", "there is no script(1)");
    };
    assert_says(&told, &["ended by 130", " echo ", " icanon"]);
}

#[test]
fn dev_reports_what_it_allows_and_why_it_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("seed.yaml");
    let theirs = "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: theirs}\n\
                  spec: {integration: slack, fields: {api_token: t}, access: {resolver: ['workflow:other']}}\n";
    let own = "connections:\n  slack/own: {apiToken: t}\n";
    std::fs::write(&seed, format!("{own}{theirs}")).unwrap();
    let dev = |command: &[&str]| {
        let mut dev = keyhatch(&["dev", "-f", seed.to_str().unwrap(), "--"]);
        dev.args(command).env("PATH", path_with_binary());
        text(&dev.output().unwrap().stderr)
    };
    let allowed = "dev lets workflow:dev use slack/own, because the seed names nobody for it\n";
    assert_eq!(dev(&["keyhatch", "get", "slack/own", "--format", "json"]), allowed);
    let told = dev(&["keyhatch", "get", "slack/theirs"]);
    assert_says(
        &told,
        &[
            allowed,
            "RESOLVE_DENIED",
            "asks for slack/theirs",
            "keyhatch access add slack/theirs --relation resolver --principal workflow:dev/step:step",
        ],
    );
}

#[test]
fn customary_aliases_of_commands_work() {
    let steps = Steps::start();
    for words in [
        &["conn", "ls"][..],
        &["connections", "list"],
        &["groups", "ls"],
        &["secrets", "ls", "--workflow", "w"],
        &["steps", "ls"],
        &["runs", "ls"],
        &["operators", "ls"],
        &["executors", "ls"],
        &["keys", "ls"],
        &["integrations", "ls"],
    ] {
        succeeded(&steps.serving.run(words));
    }
}

#[test]
fn usage_does_not_ask_for_values_of_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let refused = keyhatch_in(directory.path(), &["group", "create", "x"]).output().unwrap();
    let told = text(&refused.stderr);
    assert!(told.contains("Usage: keyhatch group create") && !told.contains("--state"), "{told}");
    let refused = keyhatch_in(directory.path(), &["serve", "x"]).output().unwrap();
    let told = text(&refused.stderr);
    assert!(told.contains("Usage: keyhatch serve") && !told.contains("--runtime"), "{told}");
}

#[test]
fn help_ends_with_global_options_and_examples() {
    let help = |words: &[&str]| text(&keyhatch(words).arg("--help").output().unwrap().stdout);
    let create = help(&["connection", "create"]);
    let place = |part: &str| create.find(part).unwrap_or_else(|| panic!("{part}: {create}"));
    assert!(place("--field <") < place("Global options:"));
    assert!(place("Global options:") < place("Examples:\n  keyhatch connection create aws/prod"));
    assert!(create[place("Global options:")..].contains("--state <DIR>"));
    for words in [&["man"][..], &["completion"], &["dev"], &["exec"], &["helper", "git"]] {
        let help = help(words);
        assert!(!help.contains("--state") && !help.contains("--output"), "{help}");
    }
    assert_says(&help(&[]), &["Exit status:", "125", "the broker cannot be reached"]);
}
