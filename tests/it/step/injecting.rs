//! `keyhatch inject`: a template of references becomes a file with their values.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::Output;

use crate::harness::{Steps, connection, secret, text};

const SECRET: &str = "not-a-real/secret+value";

fn world() -> Steps {
    let aws =
        [("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", SECRET), ("region", "eu-west-1")];
    let large = ("private_key", "x".repeat(60_000));
    Steps::seeded(
        &[
            connection("aws", "prod", &aws),
            connection("ssh", "large", &[(large.0, &large.1)]),
            secret("token", "{{ hush }}\n"),
        ]
        .concat(),
    )
}

/// Runs a script as a step with the template as file `t`.
fn inject(world: &Steps, template: &str, script: &str) -> Output {
    std::fs::write(world.path("t"), template).unwrap();
    world.run("sh", &["-c", script])
}

fn stderr(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn a_template_of_references_is_filled_with_values() {
    let world = world();
    let template = "id={{ aws/prod:access_key_id }} {{aws/prod:secret_access_key}}\n\
                    {{ default:aws:region }}{{\n  secret:token\n}}{{ \"{{\" }} .Other }}";
    world.serving.run(&["connection", "update", "aws/prod", "--default"]);
    let filled = format!("id=AKIAEXAMPLE {SECRET}\neu-west-1{{{{ hush }}}}\n{{{{ .Other }}}}");
    let ran = inject(&world, template, "umask 0; keyhatch inject -i t -o f");
    assert!(ran.status.success() && ran.stdout.is_empty(), "{}", stderr(&ran));
    assert_eq!(std::fs::read_to_string(world.path("f")).unwrap(), filled);
    assert_eq!(std::fs::metadata(world.path("f")).unwrap().mode() & 0o7777, 0o600);
    for script in [
        "keyhatch inject -i t",
        "keyhatch inject -i - -o - < t",
        "keyhatch -o json inject --in t --out -",
        "keyhatch inject -i t -o json && cat json",
    ] {
        let ran = inject(&world, template, script);
        assert_eq!(text(&ran.stdout), filled, "{script}: {}", stderr(&ran));
    }
}

#[test]
fn a_reference_that_fails_leaves_the_old_file() {
    let world = world();
    std::fs::write(world.path("f"), "old").unwrap();
    for (wrong, code, said) in [
        ("{{ aws/nothere:region }}", 1, "error: RESOLVE_DENIED"),
        ("{{ secret:nothere }}", 1, "error: SECRET_NOT_FOUND"),
        ("{{ aws/prod:nothere }}", 1, "error: FIELD_UNKNOWN"),
        ("\n{{ hunter2 }}", 2, "t:2: between {{ and }} stands REF:FIELD"),
        ("{{ aws/prod }}", 2, "t:1: between {{ and }} stands REF:FIELD"),
        ("\n\n{{ hunter2", 2, "t:3: a {{ has no }}"),
    ] {
        let template = format!("{{{{ aws/prod:region }}}}{wrong}");
        let ran = inject(&world, &template, "keyhatch inject -i t -o f");
        let stderr = stderr(&ran);
        assert_eq!(ran.status.code(), Some(code), "{wrong}: {stderr}");
        assert!(stderr.contains(said) && !stderr.contains("hunter2"), "{stderr}");
        assert_eq!(std::fs::read(world.path("f")).unwrap(), b"old");
    }
}

#[test]
fn templates_and_what_is_made_of_them_are_bounded() {
    let world = world();
    std::fs::write(world.path("f"), "old").unwrap();
    symlink("f", world.path("link")).unwrap();
    let many = "{{ ssh/large:private_key }}".repeat(300);
    for (template, script, said) in [
        ("", "keyhatch inject -i /dev/zero -o f", "not a regular file"),
        ("", "head -c 1048577 /dev/zero | keyhatch inject -i - -o f", "more than 1048576 bytes"),
        (&many, "keyhatch inject -i t -o f", "error: TOO_LARGE"),
        ("x", "keyhatch inject -i t -o link", "is a link or no regular file"),
    ] {
        let ran = inject(&world, template, script);
        assert!(!ran.status.success() && stderr(&ran).contains(said), "{}", stderr(&ran));
        assert_eq!(std::fs::read(world.path("f")).unwrap(), b"old");
    }
}

#[test]
fn a_template_is_not_replaced_by_its_values() {
    let world = world();
    let template = "{{ aws/prod:region }}";
    for script in [
        "keyhatch inject -i t -o t",
        "keyhatch inject -i t -o ./t",
        "keyhatch inject -i - -o t < t",
        "ln -f t u; keyhatch inject -i t -o u",
    ] {
        let ran = inject(&world, template, script);
        assert_eq!(ran.status.code(), Some(2), "{script}");
        assert!(stderr(&ran).contains("is the template itself"), "{}", stderr(&ran));
        assert_eq!(std::fs::read_to_string(world.path("t")).unwrap(), template);
    }
}
