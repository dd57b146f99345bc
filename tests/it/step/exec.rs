//! `keyhatch exec` runs a command with credentials and prints its output without them.

use std::process::{Output, Stdio};

use crate::harness::{Steps, connection, secret, succeeded, text};

const SECRET: &str = "not-a-real/secret+value";

fn world() -> Steps {
    Steps::seeded(
        &[
            connection(
                "aws",
                "prod",
                &[
                    ("access_key_id", "AKIAEXAMPLE"),
                    ("secret_access_key", SECRET),
                    ("region", "eu-west-1"),
                ],
            ),
            connection(
                "postgres",
                "main",
                &[("host", "db.example"), ("user", "u"), ("password", "hush!")],
            ),
            connection("ssh", "main", &[("private_key", "first line of it\nsecond line of it\n")]),
            secret("token", "hush-hush-hush"),
            secret("empty", ""),
        ]
        .concat(),
    )
}

fn exec(world: &Steps, options: &[&str], script: &str) -> Output {
    let command = [&["exec"], options, &["--", "sh", "-c", script]].concat();
    world.run("keyhatch", &command)
}

#[test]
fn values_are_masked_in_every_form_in_which_programs_print_them() {
    let world = world();
    let script = "echo \"raw $AWS_SECRET_ACCESS_KEY.\"; \
                  echo \"twice $AWS_SECRET_ACCESS_KEY$TOKEN\"; \
                  printf %s \"$AWS_SECRET_ACCESS_KEY\" | base64; \
                  printf %s \"user:$AWS_SECRET_ACCESS_KEY\" | base64; \
                  echo 'url not-a-real%2Fsecret%2Bvalue not-a-real/secret%2Bvalue'; \
                  echo 'json not-a-real\\/secret+value'; \
                  printf %s \"$KEY\" | tail -n 1; \
                  echo \"id $AWS_ACCESS_KEY_ID in $AWS_REGION\"; \
                  echo \"err $TOKEN\" >&2";
    let options =
        ["--env", "aws/prod", "--env", "TOKEN=secret:token", "--env", "KEY=ssh/main:private_key"];
    let ran = exec(&world, &options, script);
    let expected =
        "raw ***.\ntwice ******\n\n\nurl *** ***\njson ***\n***\nid AKIAEXAMPLE in eu-west-1\n";
    let printed = text(&ran.stdout);
    // The remaining Base64 characters belong to the neighbours of the value.
    let printed_lines: Vec<_> = printed.lines().collect();
    let expected_lines: Vec<_> = expected.lines().collect();
    for number in [0, 1, 4, 5, 6, 7] {
        assert_eq!(printed_lines[number], expected_lines[number], "{printed}");
    }
    for number in [2, 3] {
        assert!(
            printed_lines[number].contains("***") && printed_lines[number].len() < 14,
            "{printed}"
        );
    }
    assert_eq!(text(&ran.stderr), "err ***\n");
}

#[test]
fn a_value_printed_by_the_byte_is_masked_without_delay() {
    let world = world();
    let script = "for c in h u s h - h u s h - h u s h; do printf %s $c; done; \
                  printf 'Name? '; until [ -e go ]; do sleep 0.02; done; echo done";
    let mut command =
        world.command("keyhatch", &["exec", "--env", "T=secret:token", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    // The prompt arrives while the command waits for its answer.
    while !seen.ends_with("Name? ") {
        let mut piece = [0; 64];
        let length = std::io::Read::read(&mut stdout, &mut piece).unwrap();
        assert_ne!(length, 0, "{seen}");
        seen += std::str::from_utf8(&piece[..length]).unwrap();
    }
    assert_eq!(seen, "***Name? ");
    std::fs::write(world.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn masking_can_be_off_and_warns_of_short_values() {
    let world = world();
    let unmasked = exec(&world, &["--no-mask", "--env", "aws/prod"], "echo $AWS_SECRET_ACCESS_KEY");
    assert_eq!(text(&unmasked.stdout), format!("{SECRET}\n"));
    let short =
        exec(&world, &["--env", "postgres/main", "--env", "E=secret:empty"], "echo $PGPASSWORD");
    assert_eq!(text(&short.stdout), "hush!\n");
    let said = "password of postgres/main has fewer than 6 bytes and is not masked in what the command prints\n";
    assert_eq!(text(&short.stderr), said);
    // On a terminal the command behaves as without exec.
    let on_terminal = world
        .command(
            "script",
            &[
                "-qec",
                "keyhatch exec --env aws/prod -- sh -c 'test -t 1 && echo $AWS_SECRET_ACCESS_KEY'",
                "/dev/null",
            ],
        )
        .env_remove("CI")
        .output();
    if let Ok(ran) = on_terminal
        && ran.status.success()
    {
        assert!(text(&ran.stdout).contains(SECRET), "{}", text(&ran.stdout));
    }
}

#[test]
fn the_exit_code_is_the_commands_and_signals_reach_it() {
    let world = world();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
        for options in [&["--env", "aws/prod"][..], &["--no-mask", "--env", "aws/prod"]] {
            let ran = exec(&world, options, script);
            assert_eq!(ran.status.code(), Some(code), "{options:?} {script}");
        }
    }
    let code = |options: &[&str]| world.run("keyhatch", options).status.code();
    assert_eq!(code(&["exec", "--env", "aws/nothere", "--", "true"]), Some(125));
    assert_eq!(code(&["exec", "--env", "aws/prod", "--", "/dev/null"]), Some(126));
    assert_eq!(code(&["exec", "--env", "aws/prod", "--", "no-such-program"]), Some(127));
    // keyhatch passes the signal on. The command cleans up and sets the exit code.
    let inner = "trap 'echo got it; exit 9' TERM; touch ready; while :; do sleep 0.02; done";
    let outer = format!(
        "keyhatch exec --env aws/prod -- sh -c \"{inner}\" & \
                 until [ -e ready ]; do sleep 0.02; done; kill -TERM $!; wait $!; echo $?"
    );
    assert_eq!(text(&world.run("sh", &["-c", &outer]).stdout), "got it\n9\n");
}

#[test]
fn an_ignored_signal_stays_ignored_in_the_command() {
    let world = world();
    let inner = "touch ready; until [ -e go ]; do sleep 0.02; done; echo survived";
    let outer = format!(
        "trap '' HUP; keyhatch exec --env aws/prod -- sh -c '{inner}' & \
         until [ -e ready ]; do sleep 0.02; done; kill -HUP $!; touch go; wait $!; echo $?"
    );
    assert_eq!(text(&world.run("sh", &["-c", &outer]).stdout), "survived\n0\n");
}

#[test]
fn a_command_ignores_no_signals_but_those_that_it_would_alone() {
    let world = world();
    let ignored = |before: &str| {
        let script = format!("trap '' HUP; {before} grep SigIgn /proc/self/status");
        succeeded(&world.run("sh", &["-c", &script]))
    };
    let alone = ignored("");
    for options in ["--mask never", "--mask always", "--mask never --file f=secret:token"] {
        let exec = format!("keyhatch exec {options} --env aws/prod --");
        assert_eq!(ignored(&exec), alone, "{options}");
    }
}

#[test]
fn files_are_for_their_owner_alone_and_go_with_the_command() {
    let world = world();
    let options =
        ["--no-mask", "--file", "key=ssh/main:private_key", "--file", "token=secret:token"];
    let ran = exec(&world, &options, "stat -c %a key token; cat key token; exit 3");
    assert_eq!(text(&ran.stdout), "600\n600\nfirst line of it\nsecond line of it\nhush-hush-hush");
    assert_eq!(ran.status.code(), Some(3));
    for name in ["key", "token"] {
        assert!(!world.path(name).exists());
    }
    // The files also go if a signal ends the command, and if the command does not start.
    let killed = exec(&world, &options, "kill -KILL $$");
    assert_eq!(killed.status.code(), Some(137));
    assert!(!world.path("key").exists());
    std::fs::write(world.path("token"), "theirs").unwrap();
    let refused = exec(&world, &options, "true");
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).contains("token cannot be written"), "{}", text(&refused.stderr));
    assert!(!world.path("key").exists());
    assert_eq!(std::fs::read(world.path("token")).unwrap(), b"theirs");
}

#[test]
fn a_file_is_removed_where_its_directory_went_and_no_other() {
    let world = world();
    let exec = |script: &str| {
        std::fs::create_dir(world.path("dd")).unwrap();
        let options = ["--no-mask", "--file", "dd/f=secret:token"];
        let ran = exec(&world, &options, script);
        assert_eq!(text(&ran.stdout), "hush-hush-hush", "{}", text(&ran.stderr));
    };
    exec("cat dd/f; mv dd ee; mkdir dd; printf keep > dd/f");
    assert!(!world.path("ee/f").exists());
    assert_eq!(std::fs::read(world.path("dd/f")).unwrap(), b"keep");
    std::fs::remove_dir_all(world.path("dd")).unwrap();
    // A new file under its name stays too.
    exec("cat dd/f; rm dd/f; printf keep > dd/f");
    assert_eq!(std::fs::read(world.path("dd/f")).unwrap(), b"keep");
}

#[test]
fn inherited_variables_that_conflict_are_removed() {
    let world = world();
    let inherited = [
        ("AWS_SESSION_TOKEN", "old"),
        ("AWS_PROFILE", "old"),
        ("AWS_REGION", "old"),
        ("OTHER", "stays"),
    ];
    let run = |options: &[&str]| {
        let options = [&["exec", "--no-mask"], options, &["--", "env"]].concat();
        let ran = world.command("keyhatch", &options).envs(inherited).output().unwrap();
        (text(&ran.stdout), text(&ran.stderr))
    };
    let has = |env: &str, line: &str| env.lines().any(|found| found == line);
    let (env, _) = run(&["--env", "aws/prod"]);
    assert!(has(&env, "AWS_ACCESS_KEY_ID=AKIAEXAMPLE") && has(&env, "OTHER=stays"));
    assert!(has(&env, "AWS_REGION=eu-west-1") && has(&env, "AWS_DEFAULT_REGION=eu-west-1"));
    assert!(!env.contains("AWS_SESSION_TOKEN") && !env.contains("AWS_PROFILE"), "{env}");
    // Variables with other names do not conflict.
    let (env, _) = run(&["--env", "X=aws/prod"]);
    assert!(has(&env, "X_ACCESS_KEY_ID=AKIAEXAMPLE") && has(&env, "AWS_PROFILE=old"));
    let (env, _) = run(&["--pristine", "--env", "aws/prod"]);
    assert!(has(&env, "AWS_ACCESS_KEY_ID=AKIAEXAMPLE") && env.contains("PATH="));
    assert!(
        !env.contains("OTHER") && !env.contains("KEYHATCH_") && !env.contains("AWS_PROFILE"),
        "{env}"
    );
}

#[test]
fn no_variable_is_set_by_two_and_no_credential_by_halves() {
    let world = world();
    let session =
        [("access_key_id", "AKIAOTHER"), ("secret_access_key", "x"), ("session_token", "y")];
    let documents = [
        connection("aws", "session", &session),
        connection("generic", "app", &[("a-b", "1"), ("a_b", "2")]),
    ];
    world.apply(&documents.concat());
    let run = |options: &[&str]| {
        let ran = exec(&world, &[&["--no-mask"], options].concat(), "env");
        (text(&ran.stdout), text(&ran.stderr))
    };
    for (options, variable) in [
        (&["--env", "TOKEN=secret:token", "--env", "TOKEN=secret:empty"][..], "TOKEN"),
        (&["--env", "aws/prod", "--env", "aws/session"], "AWS_ACCESS_KEY_ID"),
        (&["--env", "aws/prod", "--env", "AWS_REGION=secret:token"], "AWS_REGION"),
        (&["--env", "AWS_REGION=secret:token", "--serve", "aws=aws/prod"], "AWS_REGION"),
        (&["--env", "generic/app"], "GENERIC_A_B"),
        (&["--env", "X=generic/app:a-b,a_b"], "X_A_B"),
    ] {
        let (env, said) = run(options);
        assert!(env.is_empty() && said.contains("error: VARIABLE_TWICE: "), "{options:?}: {said}");
        assert!(said.contains(variable) && said.contains("--env NAME="), "{options:?}: {said}");
    }
    for format in ["env", "dotenv", "docker-env"] {
        let (code, line) = world.refusal(&["get", "generic/app", "--format", format]);
        assert!(code == Some(1) && line.starts_with("error: VARIABLE_TWICE: "), "{line}");
    }
    // Naming a variable twice with the same reference is fine. The command line overrides files, for a credential and
    // for a variable.
    let (env, _) = run(&["--env", "TOKEN=secret:token", "--env", "TOKEN=secret:token"]);
    assert!(env.contains("TOKEN=hush-hush-hush\n"), "{env}");
    std::fs::write(world.path("refs"), "aws/session\n").unwrap();
    let (env, _) = run(&["--env-file", "refs", "--env", "aws/prod"]);
    assert!(env.contains("AWS_ACCESS_KEY_ID=AKIAEXAMPLE\n"), "{env}");
    assert!(!env.contains("AWS_SESSION_TOKEN"), "{env}");
    let (env, _) = run(&["--env-file", "refs", "--env", "AWS_ACCESS_KEY_ID=secret:token"]);
    for line in ["AWS_ACCESS_KEY_ID=hush-hush-hush\n", "AWS_SESSION_TOKEN=y\n"] {
        assert!(env.contains(line), "{env}");
    }
}

#[test]
fn a_database_has_an_address_with_the_login_in_it() {
    let world = world();
    let fields = [("host", "db"), ("user", "u"), ("password", "p@ss/w:rd"), ("database", "d")];
    world
        .apply(&[connection("postgres", "b", &fields), connection("mysql", "b", &fields)].concat());
    let options = ["--no-mask", "--env", "DATABASE_URL=postgres/b:uri", "--env", "M=mysql/b:uri"];
    let options = [&options[..], &["--env", "postgres/b", "--file", "f=postgres/b:uri"]].concat();
    let ran =
        exec(&world, &options, "echo \"$DATABASE_URL $M $PGUSER $PG_URI$POSTGRES_URI\"; cat f");
    let uri = "postgresql://u:p%40ss%2Fw%3Ard@db/d";
    let mysql = uri.replace("postgresql", "mysql");
    assert_eq!(text(&ran.stdout), format!("{uri} {mysql} u \n{uri}"), "{}", text(&ran.stderr));
    let masked = exec(&world, &["--env", "U=postgres/b:uri"], "echo \"$U\"");
    assert!(!text(&masked.stdout).contains("%40ss"), "{}", text(&masked.stdout));
    // For other integrations the field has no special meaning.
    world.apply(&connection("generic", "own", &[("uri", "x://y")]));
    let ran = exec(&world, &["--no-mask", "--env", "U=generic/own:uri"], "echo $U");
    assert_eq!(text(&ran.stdout), "x://y\n");
    let refused = exec(&world, &["--env", "U=aws/prod:uri"], "true");
    assert!(text(&refused.stderr).contains("FIELD_UNKNOWN"), "{}", text(&refused.stderr));
}

#[test]
fn a_field_that_is_an_address_reports_its_form() {
    let world = world();
    let refused = world.run("keyhatch", &["get", "postgres/main", "--field", "uri"]);
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("FIELD_UNKNOWN"), "{stderr}");
    assert!(stderr.contains("keyhatch get postgres/main --format uri"), "{stderr}");
}

#[test]
fn a_login_of_one_address_is_given_at_no_other() {
    let world = world();
    let ask = "curl -sS -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" $AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let serve = ["--no-mask", "--serve", "aws=aws/prod", "--serve-address", "127.0.0.2"];
    let script = format!(
        "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI; {ask}; echo; {ask} -H 'Host: localhost:1'"
    );
    let ran = exec(&world, &serve, &script);
    let printed = text(&ran.stdout);
    assert!(printed.starts_with("http://127.0.0.2:"), "{printed}{}", text(&ran.stderr));
    assert!(printed.contains("\"AKIAEXAMPLE\""), "{printed}");
    assert!(printed.ends_with("this address is 127.0.0.2 and nothing else"), "{printed}");
    let options = |address| ["--serve", "aws=aws/prod", "--serve-address", address];
    for bad in ["0.0.0.0", "localhost", "::1", "127.0.0.1:x"] {
        let ran = exec(&world, &options(bad), "touch ran");
        assert!(text(&ran.stderr).contains("one IPv4 address of this machine"), "{bad}");
    }
    let elsewhere = exec(&world, &options("192.0.2.1"), "touch ran");
    assert!(text(&elsewhere.stderr).contains("error: ADDRESS: "), "{}", text(&elsewhere.stderr));
    assert!(!world.path("ran").exists());
}

#[test]
fn a_background_process_does_not_hold_the_caller() {
    let world = world();
    // Background processes are ended, and nobody waits a minute for them.
    for background in ["sleep 60", "while :; do echo more; sleep 0.1; done"] {
        let script = format!("({background}) & echo $! > pid; echo done");
        let ran = exec(&world, &["--env", "aws/prod"], &script);
        assert_eq!(ran.status.code(), Some(0), "{background}");
        assert!(text(&ran.stdout).contains("done\n"));
        assert!(text(&ran.stderr).contains("left behind"), "{}", text(&ran.stderr));
        world.run("sh", &["-c", "kill $(cat pid)"]);
    }
}

#[test]
fn a_large_output_is_whole_and_a_lost_reader_ends_exec() {
    let world = world();
    let count = exec(&world, &["--env", "aws/prod"], "yes abcdefghij | head -c 20000000 | cat")
        .stdout
        .len();
    assert_eq!(count, 20_000_000);
    let outer = "keyhatch exec --env aws/prod -- sh -c 'yes && touch never' | head -c 10";
    assert_eq!(world.run("sh", &["-c", outer]).stdout.len(), 10);
    assert!(!world.path("never").exists());
}

#[test]
fn a_wrong_request_is_refused_before_anything_runs() {
    let world = world();
    for (options, code, said) in [
        (&[][..], 2, "required"),
        (&["--env", "aws"], 125, "INTEGRATION/NAME"),
        (&["--env", "aws/prod:region"], 125, "NAME="),
        (&["--env", "PASSWORD=touchy-value"], 125, "PASSWORD is not followed by a reference"),
        (&["--env", "A B=touchy-value"], 125, "A B: the text before ="),
        (&["--file", "x=aws/prod"], 125, "name the field"),
        (&["--serve", "vault"], 125, "there are aws"),
        (&["--serve", "relay"], 125, "--spec FILE"),
        (&["--env", "aws/prod", "--spec", "x"], 125, "--spec is for --serve relay"),
        (&["--serve", "aws=postgres/main"], 125, "INTEGRATION_UNFIT"),
        (&["--serve", "aws=aws/nothere"], 125, "RESOLVE_DENIED"),
    ] {
        let ran = exec(&world, options, "touch ran");
        assert_eq!(ran.status.code(), Some(code), "{options:?}");
        let stderr = text(&ran.stderr);
        assert!(
            stderr.lines().last().unwrap().starts_with("error: ")
                && stderr.contains(said)
                && !stderr.contains("touchy-value"),
            "{stderr}"
        );
    }
    assert!(!world.path("ran").exists());
}

#[test]
fn all_fields_of_a_connection_are_of_one_version() {
    let world = world();
    let resolved = || {
        let tail = ["journal", "tail", "--event", "resolve", "-n", "1000", "-o", "json"];
        let lines = text(&world.serving.run(&tail).stdout);
        lines.lines().filter(|line| line.contains("aws/prod")).count()
    };
    for (options, times) in [
        (&["--env", "I=aws/prod:access_key_id", "--env", "S=aws/prod:secret_access_key"][..], 1),
        (&["--file", "i=aws/prod:access_key_id", "--env", "S=aws/prod:secret_access_key"], 1),
        (&["--file", "i=aws/prod:access_key_id", "--file", "s=aws/prod:secret_access_key"], 1),
        (&["--env", "aws/prod", "--env", "X=aws/prod", "--env", "Y=aws/prod"], 1),
        // A field under its alias is a second request, and still has the same version.
        (&["--env", "aws/prod", "--env", "S=aws/prod:secretAccessKey"], 2),
    ] {
        let before = resolved();
        let script = "for f in i s; do [ ! -e $f ] || echo $f=$(cat $f); done; env | grep -E '^(I|S|AWS_SEC[A-Z_]*|[XY]_SEC[A-Z_]*)='";
        let ran = exec(&world, &[&["--no-mask"], options].concat(), script);
        assert_eq!(resolved() - before, times, "{options:?}: {}", text(&ran.stderr));
        let mut printed: Vec<_> = text(&ran.stdout).lines().map(ToOwned::to_owned).collect();
        printed.sort();
        let is_right = |line: &String| {
            let (name, value) = line.split_once('=').unwrap();
            value == if name.eq_ignore_ascii_case("i") { "AKIAEXAMPLE" } else { SECRET }
        };
        assert!(printed.len() >= 2 && printed.iter().all(is_right), "{options:?}: {printed:?}");
    }
}

#[test]
fn an_env_file_holds_references_and_prints_no_value() {
    let world = world();
    let write = |text: &str| std::fs::write(world.path("refs.env"), text).unwrap();
    write(
        "# for the tests\n\nDB=postgres/main\n  T=secret:token\nK=aws/prod:access_key_id\naws/prod\n",
    );
    let options = ["--no-mask", "--env-file", "refs.env"];
    let ran = exec(&world, &options, "echo $DB_PASSWORD $T $K $AWS_SECRET_ACCESS_KEY");
    assert_eq!(text(&ran.stdout), format!("hush! hush-hush-hush AKIAEXAMPLE {SECRET}\n"));
    // The command line overrides the file.
    let ran = exec(&world, &[&options[..], &["--env", "T=secret:empty"]].concat(), "echo .$T.");
    assert_eq!(text(&ran.stdout), "..\n");
    for (line, said) in [
        ("T=hunter2", ":2: T is not followed by a reference"),
        ("hunter2", ":2: the line is not followed"),
        ("=hunter2", ":2: the line is not followed"),
        ("T=\"hunter2\"", ":2: T is not followed"),
    ] {
        write(&format!("A=secret:token\n{line}\n"));
        let ran = exec(&world, &options, "touch ran");
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(125), "{line}");
        assert!(stderr.contains(said) && !stderr.contains("hunter2"), "{stderr}");
    }
    let piped = "echo T=secret:token | keyhatch exec --mask never --env-file - -- printenv T";
    assert_eq!(text(&world.run("sh", &["-c", piped]).stdout), "hush-hush-hush\n");
    let ran = exec(&world, &["--env-file", "/dev/zero"], "touch ran");
    assert!(text(&ran.stderr).contains("not a regular file"), "{}", text(&ran.stderr));
    assert!(!world.path("ran").exists());
}
