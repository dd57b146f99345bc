//! An editor of a connection names its fields, and still does not choose which programs a step executes.

use std::process::Output;

use crate::harness::{Steps, connection, secret, text};

fn world() -> Steps {
    let fields = [
        "ssh_command",
        "config_count",
        "options",
        "preload",
        "env",
        "func_ls",
        "startup",
        "path",
        "token",
    ];
    let fields = fields.map(|name| (name, "touch ran"));
    let own = "---\napiVersion: keyhatch/v1\nkind: Integration\nmetadata: {name: git}\nspec:\n  kinds:\n  \
               - {name: any, fields: [{name: ssh_command, description: x, sensitive: true}, {name: token, description: x, sensitive: true}]}\n";
    Steps::seeded(
        &[
            own.to_owned(),
            connection("generic", "hostile", &fields),
            connection("git", "hostile", &[("ssh_command", "touch ran"), ("token", "hush")]),
            secret("path", "/tmp/evil"),
            secret("LD_PRELOAD", "/tmp/evil.so"),
            secret("token", "hush-hush"),
        ]
        .concat(),
    )
}

fn refused(ran: &Output, variable: &str) {
    let said = text(&ran.stderr);
    assert!(ran.stdout.is_empty() && !ran.status.success(), "{variable}: {said}");
    assert!(said.contains("error: VARIABLE_REFUSED: "), "{variable}: {said}");
    assert!(said.contains(variable) && said.contains("exec --env NAME="), "{variable}: {said}");
}

#[test]
fn no_field_becomes_a_variable_that_steers_programs() {
    let world = world();
    let run = |env: &str| world.run("keyhatch", &["exec", "--env", env, "--", "touch", "ran"]);
    for (prefix, variable) in [
        ("GIT", "GIT_CONFIG_COUNT"),
        ("NODE", "NODE_OPTIONS"),
        ("LD", "LD_"),
        ("BASH", "BASH_ENV"),
        ("bash", "BASH_ENV"),
        ("JAVA_TOOL", "JAVA_TOOL_OPTIONS"),
        ("npm_config_x", "NPM_CONFIG_X_"),
        ("KEYHATCH", "KEYHATCH_"),
    ] {
        refused(&run(&format!("{prefix}=generic/hostile")), variable);
    }
    refused(&run("git/hostile"), "GIT_SSH_COMMAND");
    refused(&run("secret:path"), "PATH");
    refused(&run("secret:LD_PRELOAD"), "LD_PRELOAD");
    assert!(!world.path("ran").exists());
}

#[test]
fn no_format_of_get_sets_such_a_variable() {
    let world = world();
    for format in ["env", "dotenv"] {
        let get = |reference: &str| world.run("keyhatch", &["get", reference, "--format", format]);
        refused(&get("git/hostile"), "GIT_SSH_COMMAND");
        refused(&get("secret:path"), "PATH");
    }
    // Every other format still has the field.
    let got = world.text(&["get", "git/hostile", "--field", "ssh_command"]);
    assert_eq!(got, "touch ran");
}

#[test]
fn the_user_of_a_command_may_name_such_a_variable() {
    let world = world();
    let command = ["--", "sh", "-c", "echo \"$GIT_SSH_COMMAND\"; echo \"$NAME\""];
    let env = ["exec", "--no-mask", "--env", "GIT_SSH_COMMAND=git/hostile:ssh_command", "--env"];
    let ran = world.run("keyhatch", &[&env[..], &["NAME=secret:token"], &command].concat());
    assert_eq!(text(&ran.stdout), "touch ran\nhush-hush\n");
}

#[test]
fn no_prefix_alone_sets_names_that_an_editor_chose() {
    let own = "---\napiVersion: keyhatch/v1\nkind: Integration\nmetadata: {name: own}\nspec:\n  kinds:\n  \
               - {name: any, fields: [{name: '*', description: x, sensitive: true}]}\n";
    let fields = [("new_way_in", "hush-1"), ("url", "hush-2")];
    let world = Steps::seeded(
        &[
            own.to_owned(),
            connection("generic", "app", &fields),
            connection("generic", "one", &[("new.way", "hush-1")]),
            connection("own", "app", &fields),
            connection("http", "none", &[("base_url", "https://a.example"), ("tokens.in", "hush")]),
        ]
        .concat(),
    );
    let run = |options: &[&str]| {
        let command = ["--", "sh", "-c", "env | grep ^TOOL_ | sort"];
        world.run("keyhatch", &[&["exec", "--no-mask"], options, &command].concat())
    };
    for (asked, typed) in [
        ("TOOL=generic/app", "TOOL=generic/app:new_way_in,url"),
        ("TOOL=generic/one", "TOOL_NEW_WAY=generic/one:new.way"),
        ("TOOL=own/app", "TOOL=own/app:new_way_in,url"),
        ("TOOL=http/none", "TOOL=http/none:base_url,tokens.in"),
    ] {
        std::fs::write(world.path("refs"), asked).unwrap();
        for options in [["--env", asked], ["--env-file", "refs"]] {
            let ran = run(&options);
            let said = text(&ran.stderr);
            assert!(!ran.status.success() && ran.stdout.is_empty(), "{asked}: {said}");
            assert!(said.contains("error: VARIABLE_REFUSED: "), "{asked}: {said}");
            assert!(said.contains(&format!(": exec --env {typed}\n")), "{asked}: {said}");
        }
        // The printed option works.
        assert!(run(&["--env", typed]).status.success(), "{typed}");
    }
    let ran = run(&["--env", "tool=generic/app:url,new_way_in"]);
    let set = text(&ran.stdout);
    assert_eq!(set, "TOOL_NEW_WAY_IN=hush-1\nTOOL_URL=hush-2\n");
    // The fixed prefix cannot form other programs' variables.
    let command = ["exec", "--no-mask", "--env", "generic/app", "--", "printenv", "GENERIC_URL"];
    assert_eq!(world.run("keyhatch", &command).stdout, b"hush-2\n");
}
