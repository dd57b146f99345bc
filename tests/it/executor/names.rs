//! Names as workflow engines give them: everywhere a step, its run or its workflow is named, they are told apart.

use crate::harness::{ServeProcess, by_shell, keyhatch_in, path_with_binary};

/// A workflow, a run and a step, as engines name them.
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

/// A broker, and what an operator and a step do with it.
struct World {
    directory: tempfile::TempDir,
    serving: ServeProcess,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kh").tempdir().unwrap();
        let serving = ServeProcess::start(directory.path());
        Self { directory, serving }
    }

    /// Stdout of a command that succeeds.
    fn run(&self, arguments: &[&str]) -> String {
        let ran = self.serving.run(arguments);
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(ran.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(&[&["-o", "json"], arguments].concat())).unwrap()
    }

    /// A command as a step: its exit code, stdout and the last line of stderr.
    fn step(&self, names: [&str; 3], command: &[&str]) -> (Option<i32>, String, String) {
        let given = ["workflow", "run", "step"];
        let given = given.iter().zip(names).map(|(name, value)| format!("--{name}={value}"));
        let given: Vec<_> = given.collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let run = [&["step", "run"], &given[..], &["--", "keyhatch"], command].concat();
        let mut ran = keyhatch_in(self.directory.path(), &run);
        let ran = ran.env("PATH", path_with_binary()).output().unwrap();
        let stderr = String::from_utf8(ran.stderr).unwrap();
        let last = stderr.lines().last().unwrap_or_default().to_owned();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap(), last)
    }

    fn apply(&self, seed: &str) -> String {
        let path = self.directory.path().join("seed.yaml");
        std::fs::write(&path, seed).unwrap();
        let applied = self.serving.run(&["apply", "-f", path.to_str().unwrap()]);
        let stderr = String::from_utf8(applied.stderr).unwrap();
        assert!(applied.status.success(), "{stderr}");
        stderr
    }

    /// A connection for this one step, and a secret of its workflow.
    fn seed(&self, number: usize, [workflow, _, step]: [&str; 3]) {
        let principal = serde_json::json!(format!("workflow:{workflow}/step:{step}"));
        let workflow = serde_json::json!(workflow);
        self.apply(&format!(
            "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: c{number}}}\nspec:\n  integration: \
             generic\n  fields: {{v: value-{number}}}\n  access: {{resolver: [{principal}]}}\n---\napiVersion: \
             keyhatch/v1\nkind: Secret\nmetadata: {{name: s, workflow: {workflow}}}\nspec: {{value: secret-{number}}}\n"
        ));
    }
}

#[test]
fn each_step_gets_its_own_whatever_its_engine_calls_it() {
    let world = World::start();
    for (number, names) in NAMED.into_iter().enumerate() {
        world.seed(number, names);
    }
    for (number, names) in NAMED.into_iter().enumerate() {
        for other in 0..NAMED.len() {
            let reference = format!("generic/c{other}");
            let (code, value, last) = world.step(names, &["get", &reference, "--field", "v"]);
            match number == other {
                true => assert_eq!(value, format!("value-{number}"), "{names:?} {last}"),
                false => {
                    assert!(code == Some(1) && last.contains("RESOLVE_DENIED"), "{names:?} {last}");
                }
            }
        }
        let secret = world.step(names, &["get", "secret:s", "--format", "raw"]).1;
        assert_eq!(secret, format!("secret-{number}"), "{names:?}");
    }
}

#[test]
fn what_is_told_of_a_step_is_of_no_other() {
    let world = World::start();
    let names = NAMED;
    let mut ids = Vec::new();
    for (number, names) in names.into_iter().enumerate() {
        world.seed(number, names);
        world.step(names, &["get", "secret:s"]);
        let (.., last) = world.step(names, &["get", "generic/absent"]);
        ids.push(last.split_once("keyhatch explain ").unwrap().1.to_owned());
    }
    for (number, [workflow, run, step]) in names.into_iter().enumerate() {
        let of_workflow = format!("--workflow={workflow}");
        // Of the run.
        let shown = world.json(&["run", "show", &of_workflow, "--", run]);
        let told: Vec<_> = shown.as_array().unwrap().iter().map(|one| &one["step"]).collect();
        assert_eq!(told, [step, step], "{run}");
        let received = &shown[0]["received"][0]["resource"];
        assert_eq!(*received, format!("workflows/{workflow}/secrets/s"));
        let table = world.run(&["run", "show", &of_workflow, "--", run]);
        assert!(table.contains("secret:s") && !table.contains("secrets/s"), "{table}");
        // Of the journal, by workflow, by principal and by resource.
        let principal = format!("workflow:{workflow}");
        let of_run = format!("{principal}/run:{run}");
        let resource = format!("workflows/{workflow}/secrets/s");
        let tail = |given: &[&str]| {
            world.run(
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
        // Of the decision.
        let told = world.json(&["explain", &ids[number]]);
        assert_eq!(told["principal"], format!("{of_run}/step:{step}"));
        // Of the secrets, listed and exported.
        assert_eq!(world.run(&["secret", "list", &of_workflow, "-o", "name"]), "s\n");
    }
    let exported = world.run(&["export"]);
    let again = world.apply(&exported);
    assert!(again.contains(&format!("{} unchanged", 2 * names.len())), "{again}");
}

#[test]
fn what_mends_a_refusal_is_a_command_that_a_shell_takes() {
    let world = World::start();
    let [workflow, _, step] = NAMED[1];
    world.apply(
        "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: c}\nspec: {integration: generic, fields: {v: x}}\n",
    );
    let (_, _, last) = world.step(NAMED[1], &["get", "generic/c"]);
    let id = last.split_once("keyhatch explain ").unwrap().1;
    let told = world.run(&["explain", id]);
    let line = told.lines().find(|line| line.contains("keyhatch access add")).unwrap();
    assert!(line.contains(&format!("'workflow:{workflow}/step:{step}'")), "{line}");
    let line = line.replacen("keyhatch", "\"$0\"", 1);
    let mut shell = by_shell(&line, &keyhatch_in(world.directory.path(), &[]));
    assert!(shell.output().unwrap().status.success(), "{line}");
    assert_eq!(world.step(NAMED[1], &["get", "generic/c", "--field", "v"]).1, "x");
}

#[test]
fn one_binding_admits_the_steps_whose_names_begin_alike() {
    let world = World::start();
    world.apply(
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
        let (code, ..) = world.step(names, &["get", "generic/c"]);
        assert_eq!(code == Some(0), expected, "{names:?}");
    }
    let add = ["access", "add", "generic/c", "--relation", "resolver", "--principal"];
    for bad in ["workflow:deploy/step:*", "workflow:deploy*/step:a", "workflow:a//b", "workflow:.."]
    {
        let refused = world.serving.run(&[&add[..], &[bad]].concat());
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && stderr.contains("PRINCIPAL_INVALID"),
            "{bad}: {stderr}"
        );
    }
}

#[test]
fn names_that_nobody_could_tell_apart_are_refused() {
    let world = World::start();
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
        let ran = world.serving.run(&["step", "open", &workflow, "--run=1", "--step=s"]);
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && stderr.contains("NAME_INVALID"), "{bad:?}: {stderr}");
        // Nor does the refusal bring them to the terminal.
        assert!(!stderr.contains(['\u{202e}', '\u{200b}', '\u{3164}']), "{stderr:?}");
    }
}
