//! A group changes as a whole: only the end of a change counts for members, tags and identifiers.

use std::process::Output;

use crate::harness::{ServeProcess, keyhatch_in, succeeded, temp_dir, text};

struct World {
    directory: tempfile::TempDir,
    serving: ServeProcess,
}

/// A connection's document.
fn connection(name: &str, tags: &str) -> String {
    format!(
        "---\napiVersion: keyhatch/v1\nkind: Connection\nmetadata: {{name: {name}, tags: {{{tags}}}}}\nspec: \
         {{integration: generic, fields: {{v: value-{name}}}, access: {{resolver: ['workflow:w']}}}}\n"
    )
}

/// The document of group `g`.
fn group(identifiers: &str, members: &str) -> String {
    format!(
        "---\napiVersion: keyhatch/v1\nkind: ConnectionGroup\nmetadata: {{name: g}}\nspec: {{integration: generic, \
         identifiers: [{identifiers}], members: [{members}], access: {{viewer: ['workflow:w']}}}}\n"
    )
}

#[test]
fn a_group_document_without_identifiers_is_refused_in_words() {
    let world = World::start();
    for (given, said) in [("[]", "one to three identifiers"), ("env", "expected a list")] {
        let document = group("env", "a, b").replace("[env]", given);
        let refused = last(&world.try_apply(&[document]));
        assert!(refused.contains(said), "{given}: {refused}");
    }
}

impl World {
    /// A broker with a group of `a` and `b`, identified by `env`.
    fn start() -> Self {
        let directory = temp_dir();
        let serving = ServeProcess::start(directory.path());
        let world = Self { directory, serving };
        world.apply(&[
            connection("a", "env: prod"),
            connection("b", "env: dev"),
            group("env", "a, b"),
        ]);
        world
    }

    fn try_apply(&self, documents: &[String]) -> Output {
        let path = self.directory.path().join("seed.yaml");
        std::fs::write(&path, documents.concat()).unwrap();
        self.serving.run(&["apply", "-f", path.to_str().unwrap()])
    }

    fn apply(&self, documents: &[String]) {
        succeeded(&self.try_apply(documents));
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let ran = self.serving.run(arguments);
        match ran.status.success() {
            true => Ok(text(&ran.stdout)),
            false => Err(last(&ran)),
        }
    }

    /// The value that a step gets by identifiers, or the last line of the refusal.
    fn value(&self, identifiers: &str) -> String {
        let reference = format!("group:g:{identifiers}");
        let program = env!("CARGO_BIN_EXE_keyhatch");
        let step = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--", program];
        let step = [&step[..], &["get", &reference, "--field", "v"]].concat();
        let ran = keyhatch_in(self.directory.path(), &step).output().unwrap();
        match ran.status.success() {
            true => text(&ran.stdout),
            false => last(&ran),
        }
    }

    /// Members and identifiers of the group, and the tags of its connections.
    fn state(&self) -> [String; 3] {
        ["group get g", "connection get generic/a", "connection get generic/b"].map(|command| {
            let words: Vec<_> = ["-o", "json"].into_iter().chain(command.split(' ')).collect();
            self.run(&words).unwrap()
        })
    }
}

fn last(ran: &Output) -> String {
    let stderr = text(&ran.stderr);
    stderr.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn one_apply_gives_members_other_tags_and_the_group_other_keys() {
    let world = World::start();
    // The order of the documents does not matter, and the result survives a restart.
    world.apply(&[
        group("region, tier", "a, b"),
        connection("b", "env: prod, region: eu, tier: one"),
        connection("a", "env: prod, region: eu, tier: two"),
    ]);
    assert_eq!(world.value("region=eu,tier=two"), "value-a");
    assert_eq!(world.value("region=eu,tier=one"), "value-b");
    assert!(world.value("env=prod").contains("IDENTIFIER_UNKNOWN"));
    let World { directory, serving } = world;
    drop(serving);
    let serving = ServeProcess::start(directory.path());
    let world = World { directory, serving };
    assert_eq!(world.value("region=eu,tier=two"), "value-a");
}

#[test]
fn members_swap_their_values_and_make_room_in_one_apply() {
    let world = World::start();
    world.apply(&[connection("a", "env: dev"), connection("b", "env: prod")]);
    assert_eq!([world.value("env=dev"), world.value("env=prod")], ["value-a", "value-b"]);
    // One member replaces another, then three members exchange their tags.
    world.apply(&[connection("c", "env: prod"), group("env", "a, c")]);
    assert_eq!(world.value("env=prod"), "value-c");
    world.apply(&[
        group("env", "a, b, c"),
        connection("a", "env: prod"),
        connection("b", "env: test"),
        connection("c", "env: dev"),
    ]);
    let values = ["env=prod", "env=test", "env=dev"].map(|asked| world.value(asked));
    assert_eq!(values, ["value-a", "value-b", "value-c"]);
}

#[test]
fn an_end_that_breaks_the_group_is_refused_and_changes_nothing() {
    let world = World::start();
    let before = world.state();
    for (documents, reason) in [
        (vec![connection("a", "env: dev")], "IDENTIFIERS_NOT_UNIQUE"),
        (vec![group("region", "a, b")], "IDENTIFIER_MISSING"),
        (vec![group("region", "a, b"), connection("a", "region: eu")], "IDENTIFIER_MISSING"),
        (
            vec![
                group("region", "a, b"),
                connection("a", "region: eu"),
                connection("b", "region: eu"),
            ],
            "IDENTIFIERS_NOT_UNIQUE",
        ),
        (vec![connection("c", "env: prod"), group("env", "a, b, c")], "IDENTIFIERS_NOT_UNIQUE"),
    ] {
        let refused = world.try_apply(&documents);
        let error = last(&refused);
        assert!(error.contains(reason) && error.contains("group g"), "{documents:?}: {error}");
        assert_eq!(world.state(), before);
    }
    // A refused change leaves nothing that affects the next change.
    world.apply(&[connection("a", "env: test")]);
    assert_eq!(world.value("env=test"), "value-a");
}

#[test]
fn one_update_of_a_group_is_done_whole_or_not_at_all() {
    let world = World::start();
    world.apply(&[connection("c", "region: eu"), connection("d", "region: us")]);
    let before = world.state();
    let update = |arguments: &str| {
        let words = ["group", "update", "g"].into_iter().chain(arguments.split(' '));
        world.run(&words.collect::<Vec<_>>())
    };
    let error =
        update("--identifier region --add-member generic/c --remove-member generic/a").unwrap_err();
    assert!(error.contains("IDENTIFIER_MISSING") && error.contains("generic/b"), "{error}");
    assert_eq!(world.state(), before);
    update(
        "--identifier region --add-member generic/c --add-member generic/d --remove-member generic/a \
         --remove-member generic/b --rename h",
    )
    .unwrap();
    let shown = world.run(&["-o", "json", "group", "get", "h"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["members"], serde_json::json!(["generic/c", "generic/d"]));
    assert_eq!(shown["identifiers"], serde_json::json!(["region"]));
    // A group whose members do not fit is not created.
    let create = ["group", "create", "new", "--integration", "generic", "--identifier", "env"];
    let create = [&create[..], &["--member", "generic/a", "--member", "generic/c"]].concat();
    assert!(world.run(&create).unwrap_err().contains("IDENTIFIER_MISSING"));
    assert!(world.run(&["group", "get", "new"]).unwrap_err().contains("GROUP_NOT_FOUND"));
}

#[test]
fn too_many_identifiers_are_refused_with_their_names() {
    let world = World::start();
    let create = ["group", "create", "new", "--integration", "generic"];
    let four = ["--identifier=one", "--identifier=two", "--identifier=three", "--identifier=four"];
    let error = world.run(&[&create[..], &four].concat()).unwrap_err();
    assert!(error.contains("\"four, one, three, two\""), "{error}");
    let error = last(&world.try_apply(&[group("one, two, three, four", "a")]));
    assert!(error.contains("\"four, one, three, two\""), "{error}");
}
