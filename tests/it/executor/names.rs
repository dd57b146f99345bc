//! Names as workflow engines give them: no step, run or workflow is ever mistaken for another.

use crate::harness::{Steps, by_shell, keyhatch_in, text};

/// The names of a workflow, a run and a step, as engines give them.
const NAMED: [[&str; 3]; 8] = [
    ["my_dag", "scheduled__2026-01-01T00:00:00+00:00", "task__2[3]"],
    ["owner/repo", "9123456789~1", "build (ubuntu-latest, 3.12)"],
    ["owner", "repo", "owner/repo/step:x"],
    ["argo-ns/wf-abc", "wf-abc-1", "wf-abc[0].print(0:a)"],
    ["f/folder/secrets/x", "r", ":rocket: Deploy"],
    ["a/run/b/step/c", "step:b", "b/step:c/run:d"],
    ["развёртывание/部署", "проход 1", "ทดสอบแล้ว #2"],
    ["-x/--help", "-1", "--step=s"],
];

fn json(steps: &Steps, arguments: &[&str]) -> serde_json::Value {
    let shown = steps.serving.must(&[&["-o", "json"], arguments].concat());
    serde_json::from_str(&shown).unwrap()
}

/// Runs a command as a step. Returns its exit code, stdout and the last line of stderr.
fn as_step(steps: &Steps, names: [&str; 3], command: &[&str]) -> (Option<i32>, String, String) {
    let ran = steps.command_of(names, "keyhatch", command).output().unwrap();
    let stderr = text(&ran.stderr);
    let last = stderr.lines().last().unwrap_or_default().to_owned();
    (ran.status.code(), text(&ran.stdout), last)
}

/// A connection for this step alone, and a secret of its workflow.
fn seed(steps: &Steps, number: usize, [workflow, _, step]: [&str; 3]) {
    let principal = serde_json::json!(format!("workflow:{workflow}/step:{step}"));
    let workflow = serde_json::json!(workflow);
    steps.apply(&format!(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: c{number}}}\nspec:\n  integration: \
         generic\n  fields: {{v: value-{number}}}\n  access: {{resolver: [{principal}]}}\n---\napiVersion: \
         keyhatch/v1\nkind: Secret\nmetadata: {{name: s, workflow: {workflow}}}\nspec: {{value: secret-{number}}}\n"
    ));
}

#[test]
fn each_step_gets_its_own_credential_whatever_its_name() {
    let steps = Steps::start();
    for (number, names) in NAMED.into_iter().enumerate() {
        seed(&steps, number, names);
    }
    for (number, names) in NAMED.into_iter().enumerate() {
        for other in 0..NAMED.len() {
            let reference = format!("generic/c{other}");
            let (code, value, last) = as_step(&steps, names, &["get", &reference, "--field", "v"]);
            match number == other {
                true => assert_eq!(value, format!("value-{number}"), "{names:?} {last}"),
                false => {
                    assert!(code == Some(1) && last.contains("RESOLVE_DENIED"), "{names:?} {last}");
                }
            }
        }
        let secret = as_step(&steps, names, &["get", "secret:s", "--format", "raw"]).1;
        assert_eq!(secret, format!("secret-{number}"), "{names:?}");
    }
}

#[test]
fn nothing_shown_of_a_step_is_about_another() {
    let steps = Steps::start();
    let names = NAMED;
    let mut ids = Vec::new();
    for (number, names) in names.into_iter().enumerate() {
        seed(&steps, number, names);
        as_step(&steps, names, &["get", "secret:s"]);
        let (.., last) = as_step(&steps, names, &["get", "generic/absent"]);
        ids.push(last.split_once("keyhatch explain ").unwrap().1.to_owned());
    }
    for (number, [workflow, run, step]) in names.into_iter().enumerate() {
        let of_workflow = format!("--workflow={workflow}");
        // The view of the run.
        let shown = json(&steps, &["run", "show", &of_workflow, "--", run]);
        let told: Vec<_> = shown.as_array().unwrap().iter().map(|one| &one["step"]).collect();
        assert_eq!(told, [step, step], "{run}");
        let received = &shown[0]["received"][0]["resource"];
        assert_eq!(*received, format!("workflows/{workflow}/secrets/s"));
        let table = steps.serving.must(&["run", "show", &of_workflow, "--", run]);
        assert!(table.contains("secret:s") && !table.contains("secrets/s"), "{table}");
        // The journal, by workflow, by principal and by resource.
        let principal = format!("workflow:{workflow}");
        let of_run = format!("{principal}/run:{run}");
        let resource = format!("workflows/{workflow}/secrets/s");
        let tail = |given: &[&str]| {
            steps.serving.must(
                &[&["journal", "tail", "--event", "resolve", "-n", "100", "-o", "json"], given]
                    .concat(),
            )
        };
        let full = format!("\"principal\":\"{of_run}/step:{step}\"");
        for given in [
            [of_workflow.as_str(), "--event", "resolve"],
            ["--principal", &principal, "--denied"],
            ["--principal", &of_run, "--denied"],
            ["--resource", &resource, "--event=resolve"],
        ] {
            let lines = tail(&given);
            assert!(!lines.is_empty(), "{given:?}");
            assert!(lines.lines().all(|line| line.contains(&full)), "{given:?}: {lines}");
        }
        // The explanation of the decision.
        let told = json(&steps, &["explain", &ids[number]]);
        assert_eq!(told["principal"], format!("{of_run}/step:{step}"));
        // The secrets, listed and exported.
        assert_eq!(steps.serving.must(&["secret", "list", &of_workflow, "-o", "name"]), "s\n");
    }
    let exported = steps.serving.must(&["export"]);
    let again = steps.apply(&exported);
    assert!(again.contains(&format!("{} unchanged", 2 * names.len())), "{again}");
}

#[test]
fn the_remedy_of_a_refusal_is_a_command_for_a_shell() {
    let steps = Steps::start();
    let [workflow, _, step] = NAMED[1];
    steps.apply(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: c}\nspec: {integration: generic, fields: {v: x}}\n",
    );
    let (_, _, last) = as_step(&steps, NAMED[1], &["get", "generic/c"]);
    let id = last.split_once("keyhatch explain ").unwrap().1;
    let told = steps.serving.must(&["explain", id]);
    let line = told.lines().find(|line| line.contains("keyhatch access add")).unwrap();
    assert!(line.contains(&format!("'workflow:{workflow}/step:{step}'")), "{line}");
    let line = line.replacen("keyhatch", "\"$0\"", 1);
    let mut shell = by_shell(&line, &keyhatch_in(steps.directory.path(), &[]));
    assert!(shell.output().unwrap().status.success(), "{line}");
    assert_eq!(as_step(&steps, NAMED[1], &["get", "generic/c", "--field", "v"]).1, "x");
}

#[test]
fn one_binding_admits_steps_with_a_common_prefix() {
    let steps = Steps::start();
    steps.apply(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: c}\nspec: {integration: generic, fields: {v: x}, \
         access: {resolver: ['workflow:deploy/step:notify-*', 'workflow:owner/*', 'workflow:d/step:task[*']}}\n",
    );
    for (names, expected) in [
        (["deploy", "1", "notify-slack"], true),
        (["deploy", "1", "notify-"], true),
        (["deploy", "1", "notify"], false),
        (["deploy", "1", "x/notify-slack"], false),
        (["deploy2", "1", "notify-slack"], false),
        (["owner/repo", "1", "s"], true),
        (["owner", "repo", "s"], false),
        (["d", "1", "task[3]"], true),
        (["d", "1", "task"], false),
    ] {
        let (code, ..) = as_step(&steps, names, &["get", "generic/c"]);
        assert_eq!(code == Some(0), expected, "{names:?}");
    }
    let add = ["access", "add", "generic/c", "--relation", "resolver", "--principal"];
    for bad in ["workflow:deploy/step:*", "workflow:deploy*/step:a", "workflow:a//b", "workflow:.."]
    {
        let refused = steps.serving.run(&[&add[..], &[bad]].concat());
        let stderr = text(&refused.stderr);
        assert!(
            !refused.status.success() && stderr.contains("PRINCIPAL_INVALID"),
            "{bad}: {stderr}"
        );
    }
}

#[test]
fn names_that_look_alike_are_refused() {
    let steps = Steps::start();
    for bad in [
        "",
        "..",
        "a/../b",
        "/a",
        "a/",
        " a",
        "a*",
        "a\nb",
        "a\u{202e}b",
        "a\u{200b}",
        "a\u{3164}",
        "-",
    ] {
        let workflow = format!("--workflow={bad}");
        let ran = steps.serving.run(&["step", "open", &workflow, "--run=1", "--step=s"]);
        let stderr = text(&ran.stderr);
        assert!(!ran.status.success() && stderr.contains("NAME_INVALID"), "{bad:?}: {stderr}");
        // The refusal does not print the invisible characters.
        assert!(!stderr.contains(['\u{202e}', '\u{200b}', '\u{3164}']), "{stderr:?}");
    }
}
