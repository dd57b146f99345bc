//! The output that `exec` masks, the output that it leaves alone, and its reports about both.

use std::io::Read as _;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Steps, secret, skipped, succeeded, text};

const TOKEN: &str = "hunter2-hunter2";
/// A text in the form of a key. Its first bytes are those of every RSA key, and the rest is invented.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7x0d1Yq9sUuN4\n\
    Zk3vQ8rT5bWmL2cHjP6gXyE1oVaK9fRiDnSt7wGzJeMuB0lCqA4hXpOvT3kYs8Fb\n\
    Qw==\n\
    -----END PRIVATE KEY-----\n";

fn world(secrets: &[(&str, &str)]) -> Steps {
    let documents: Vec<_> = secrets.iter().map(|(name, value)| secret(name, value)).collect();
    Steps::seeded(&documents.concat())
}

/// Runs a script with the secret `s` in S.
fn exec(world: &Steps, script: &str) -> Output {
    world.run("keyhatch", &["exec", "--env", "S=secret:s", "--", "bash", "-c", script])
}

fn printed(world: &Steps, script: &str) -> String {
    text(&exec(world, script).stdout)
}

#[test]
fn a_file_of_data_is_left_alone_and_a_log_is_masked() {
    let world = world(&[("s", TOKEN)]);
    let print = "keyhatch exec MASK --env S=secret:s -- sh -c 'echo $S; echo $S >&2'";
    for (mask, redirected, out, err) in [
        ("", "> out 2> err", TOKEN, "***"),
        ("--mask=auto", ">> out 2> err", TOKEN, "***"),
        ("", "> out 2>&1", "***\n***", ""),
        ("--mask", "> out 2> err", "***", "***"),
        ("--mask always", "> out 2> err", "***", "***"),
        ("--mask never", "> out 2>&1", "hunter2-hunter2\nhunter2-hunter2", ""),
        ("--no-mask", "> out 2> err", TOKEN, TOKEN),
    ] {
        for name in ["out", "err"] {
            std::fs::write(world.path(name), "").unwrap();
        }
        let line = format!("{} {redirected}", print.replace("MASK", mask));
        world.run("sh", &["-c", &line]);
        let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
        assert_eq!(read("out").trim_end(), out, "{line}");
        let said = "stdout is a file, and nothing that is written to it is masked; --mask always masks that, too\n";
        let is_said = read("err").contains(said);
        assert_eq!(is_said, out == TOKEN && !mask.starts_with("--no"), "{line}");
        assert_eq!(read("err").replace(said, "").trim_end(), err, "{line}");
    }
}

#[test]
fn the_terminal_of_a_ci_is_a_log_and_a_persons_is_not() {
    let world = world(&[("s", TOKEN)]);
    let line = "keyhatch exec --env S=secret:s -- sh -c 'test -t 0 && echo it is $S'";
    for (set, expected) in [
        (&[][..], "it is hunter2-hunter2"),
        (&[("CI", "true")], "it is ***"),
        (&[("BUILDKITE", "true")], "it is ***"),
        (&[("JENKINS_URL", "https://ci.example")], "it is ***"),
        (&[("CI", "false")], "it is hunter2-hunter2"),
    ] {
        let mut command = world.command("script", &["-qec", line, "/dev/null"]);
        for name in ["CI", "BUILDKITE", "JENKINS_URL"] {
            command.env_remove(name);
        }
        let ran = command.envs(set.iter().copied()).output();
        let Some(ran) = ran.ok().filter(|ran| ran.status.code() != Some(127)) else {
            return skipped("on a terminal", "there is no script(1)");
        };
        assert_eq!(text(&ran.stdout).trim_end(), expected, "{set:?}");
    }
}

#[test]
fn unmasked_words_and_short_numbers_are_reported() {
    for (value, line) in [
        ("postgres", "ALTER TABLE x OWNER TO postgres;"),
        ("Production", "environment: Production"),
        ("123456", "ts=1712345678"),
        ("======", "=========="),
    ] {
        let world = world(&[("s", value)]);
        let ran = exec(&world, &format!("echo '{line}'"));
        assert_eq!(text(&ran.stdout), format!("{line}\n"));
        let said = text(&ran.stderr);
        assert!(said.contains("of secret:s is a word") && said.contains("not masked"), "{said}");
    }
}

#[test]
fn a_manifests_token_is_masked_and_others_are_whole() {
    let manifest = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    server: https://k.example\n  name: c\n\
                    users:\n- name: u\n  user:\n    token: abcdef123456\n";
    let world = world(&[("s", manifest)]);
    let other = "apiVersion: v1\nkind: ConfigMap\nusers: []\n- name: u";
    assert_eq!(printed(&world, &format!("printf '{other}'")), other);
    let encoded = STANDARD.encode(other);
    assert_eq!(printed(&world, &format!("printf {encoded}")), encoded);
    assert_eq!(printed(&world, "printf 'bearer abcdef123456.'"), "bearer ***.");
    let whole = printed(&world, "printf %s \"$S\"");
    assert_eq!(whole, manifest.trim_end().replace("abcdef123456", "***") + "\n");
    let in_base64 =
        STANDARD.decode(printed(&world, "printf %s \"$S\" | base64 -w0").replace("***", ""));
    assert!(!in_base64.is_ok_and(|text| text.windows(6).any(|part| part == b"abcdef")));
}

#[test]
fn members_of_documents_are_masked_by_themselves() {
    let documents = [
        (r#"{"user": "bob", "password": "foobar99"}"#, "foobar99"),
        ("user: bob\npassword: foobar99\n", "foobar99"),
        ("users:\n- user:\n    token: 'abcdef123456'\n", "abcdef123456"),
        ("[default]\naws_secret_access_key = sEcr3tValue1\n", "sEcr3tValue1"),
        ("A=1\nexport DB_PASSWORD=\"hunter22x\"\n", "hunter22x"),
        (r#"{"pem": "-----BEGIN X-----\nMIIEvQIBADAN\n"}"#, "MIIEvQIBADAN"),
        (r#"{"dsn": "postgres://u:hunter22x@h/d"}"#, "hunter22x"),
        ("postgres://u:hunter%2022x@h/d", "hunter 22x"),
        ("Server=h;User=u;Password=hunter22x;", "hunter22x"),
        (
            "name: tls\nbody: |\n  -----BEGIN X-----\n  MIIEvQIBADAN\n  -----END X-----\n",
            "MIIEvQIBADAN",
        ),
        (r#"{"auths": {"r.example": {"auth": "dTpodW50ZXIyMng="}}}"#, "hunter22x"),
        ("name: main\npassword:\n  old: [hunter22x]\n", "hunter22x"),
        ("name: main\npassword: >\n  first-line\n  second-line\n", "second-line"),
        ("name: main\ncard: {pin: 123456}\n", "123456"),
        ("[a]\npassword = first-line\n  second-line\n[secrets]\na = b\n", "second-line"),
        ("user = \"bob:hunter22x\"\n", "hunter22x"),
    ];
    let names: Vec<String> = (0..documents.len()).map(|number| format!("s{number}")).collect();
    let secrets: Vec<_> =
        names.iter().zip(&documents).map(|(name, (value, _))| (name.as_str(), *value)).collect();
    let world = world(&secrets);
    for (name, (document, member)) in names.iter().zip(documents) {
        let wanted = format!("S=secret:{name}");
        let ran = world.run("keyhatch", &["exec", "--env", &wanted, "--", "echo", member, "bob"]);
        assert_eq!(text(&ran.stdout), "*** bob\n", "{document}");
    }
}

#[test]
fn logins_and_signatures_inside_other_values_are_masked() {
    let texts = [
        ("h.example:5432:d:bob:hunter22x\n", "hunter22x"),
        ("# of d\n*:*:*:bob:hunter\\:22x\nh:5432:e:bob:other-22x\n", "hunter:22x"),
        ("bob:hunter22x", "hunter22x"),
        ("name = 'main'\n\"api key\" = 'hunter22x'\n", "hunter22x"),
        ("name:main\ndb.password:hunter22x\n", "hunter22x"),
        (r#"{"url": "https://a.example/c?sv=2024&sig=hunter%2F22x"}"#, "hunter/22x"),
    ];
    for (value, member) in texts {
        let world = world(&[("s", value)]);
        let echo = ["exec", "--env", "S=secret:s", "--", "echo", member, "bob"];
        assert_eq!(text(&world.run("keyhatch", &echo).stdout), "*** bob\n", "{value}");
    }
}

#[test]
fn a_common_password_in_an_address_is_reported() {
    let world = world(&[("s", "postgres://admin:correct@h/d")]);
    let ran = exec(&world, "echo correct; echo $S");
    assert_eq!(text(&ran.stdout), "correct\n***\n");
    assert!(text(&ran.stderr).contains("parts that are short or common"), "{ran:?}");
}

#[test]
fn random_values_are_masked_from_the_stated_length() {
    let world = world(&[("s", "name: main\na: aZ9xK3mQ7pL2vB\nb: bZ9xK3mQ7pL2vB4c\n")]);
    let ran = exec(&world, "echo aZ9xK3mQ7pL2vB bZ9xK3mQ7pL2vB4c");
    assert_eq!(text(&ran.stdout), "aZ9xK3mQ7pL2vB ***\n");
    let help = world.run("keyhatch", &["exec", "--help"]);
    let help = text(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("looks random and has 16 characters or more"), "{help}");
}

#[test]
fn lines_are_masked_together_and_short_ones_reported() {
    let world = world(&[("s", "12345\n67890\n11111\n24680\n")]);
    let ran = exec(&world, "echo $S; printf %s \"$S\"; printf %s \"$S\" | tr -d '\\n'");
    assert_eq!(text(&ran.stdout), "***\n******");
    assert!(text(&ran.stderr).contains("not masked"), "{}", text(&ran.stderr));
    world.apply(&secret("s", KEY));
    let ran = exec(&world, "echo $S; printf %s \"$S\" | head -n 3 | cat -n");
    assert_eq!(text(&ran.stdout), "***\n     1\t***\n     2\t***\n     3\t***\n");
    assert_eq!(text(&ran.stderr), "");
}

#[test]
fn a_certificate_is_whole_beside_the_masks_of_a_key() {
    let world = world(&[("s", KEY)]);
    let certificate = "-----BEGIN CERTIFICATE-----\n\
        MIIDCTCCAfGgAwIBAgIUS1XaxLDgkcjTIgg/vw5l/RDraa4wDQYJKoZIhvcNAQEL\n\
        BQAwFDESMBAGA1UEAwwJdW5yZWxhdGVkMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n\
        -----END CERTIFICATE-----\n";
    std::fs::write(world.path("c.pem"), certificate).unwrap();
    assert_eq!(printed(&world, "cat c.pem"), certificate);
    for before in ["", "a", "ab"] {
        let encoded = STANDARD.encode(format!("{before}{certificate}"));
        std::fs::write(world.path("c.b64"), &encoded).unwrap();
        assert_eq!(printed(&world, "cat c.b64"), encoded);
    }
}

#[test]
fn a_value_in_a_literal_of_any_language_is_masked() {
    let world = world(&[("s", r#"Xy"7\kQ-9'z!pT"#)]);
    for literal in [
        r#"{'password': 'Xy"7\\kQ-9\'z!pT'}"#,
        r#"{"password": "Xy\"7\\kQ-9'z!pT"}"#,
        r#"{ password: `Xy"7\\kQ-9'z!pT` }"#,
        r#"{"error": "invalid literal: 'Xy\"7\\\\kQ-9\\'z!pT'"}"#,
    ] {
        let arguments = ["exec", "--env", "S=secret:s", "--", "echo", literal];
        let ran = world.run("keyhatch", &arguments);
        let shown = text(&ran.stdout);
        assert!(shown.contains("***") && !shown.contains("kQ-9"), "{shown}");
    }
}

#[test]
fn colours_within_a_value_do_not_hide_it() {
    let world = world(&[("s", "hunter2hunter9")]);
    let script = "echo \"$S\" | grep --color=always ter9; printf '\\033[31m%s\\033[0m\\n' \"$S\"";
    let printed = printed(&world, script);
    assert!(!printed.contains("hun") && !printed.contains("ter9"), "{printed:?}");
    assert!(printed.ends_with("\u{1b}[31m***\u{1b}[0m\n"), "{printed:?}");
}

#[test]
fn every_line_of_a_large_file_in_base64_is_masked() {
    let world = world(&[("other", TOKEN)]);
    // A value of the largest size, without repetitions.
    let words = (0u32..16 * 1024).map(|number| number.wrapping_mul(0x9E37_79B1) ^ 0x5bd1_e995);
    let value: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    std::fs::write(world.path("value"), &value[..64 * 1024]).unwrap();
    let path = format!("@{}", world.path("value").display());
    succeeded(&world.serving.run(&["secret", "put", "--workflow", "w", "s", "--value", &path]));
    let ran = world.run("keyhatch", &["exec", "--file", "f=secret:s", "--", "base64", "f"]);
    let lines = text(&ran.stdout);
    assert!(lines.lines().count() > 1000, "{}", text(&ran.stderr));
    let shown = lines.lines().map(|line| line.replace("***", ""));
    let shown: Vec<String> = shown.filter(|line| !line.is_empty()).collect();
    // The end of the last line is less than two groups.
    assert!(shown.len() <= 1 && shown.iter().all(|line| line.len() < 12), "{shown:?}");
}

#[test]
fn output_is_not_held_back_while_the_command_waits() {
    // The value begins with the last characters of the prompt.
    let world = world(&[("s", "K-and-more-than-that-of-it")]);
    let script = "printf OK; until [ -e go ]; do sleep 0.02; done; echo; echo \"$S\"";
    let arguments = ["exec", "--env", "S=secret:s", "--", "sh", "-c", script];
    let mut child = world.command("keyhatch", &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = [0; 2];
    stdout.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"OK");
    std::fs::write(world.path("go"), "").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\n***\n");
    assert!(child.wait().unwrap().success());
}
