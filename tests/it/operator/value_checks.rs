//! Values are stored byte for byte. Every change on the way in is reported, and so is a value that is probably a
//! mistake.

use std::io::Write as _;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::harness::{Steps, keyhatch_in};

/// A key in OpenSSH's format, as long as a real key, without a secret.
fn openssh_key() -> String {
    let mut bytes = b"openssh-key-v1\0".to_vec();
    for part in [b"none".as_slice(), b"none", b""] {
        bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part);
    }
    bytes.extend(1_u32.to_be_bytes());
    for length in [51_u8, 136] {
        bytes.extend(u32::from(length).to_be_bytes());
        bytes.extend(0..length);
    }
    let encoded = STANDARD.encode(bytes);
    let lines: Vec<_> = encoded.as_bytes().chunks(70).map(String::from_utf8_lossy).collect();
    let label = "OPENSSH PRIVATE KEY";
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

struct World(Steps);

impl World {
    fn start() -> Self {
        Self(Steps::seeded("connections: {}\nsecrets: {}\n"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The exit code and the messages of an operator's command.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        heard(&self.0.serving.run(arguments))
    }

    /// The messages of a command with this stdin.
    fn pipe(&self, content: &[u8], arguments: &[&str]) -> String {
        let mut command = keyhatch_in(self.0.directory.path(), arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let (code, said) = heard(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// Creates a connection from a file's content. Returns the messages.
    fn create(&self, reference: &str, field: &str, content: &str) -> String {
        let field = format!("{field}=@{}", self.file("given", content));
        let arguments = ["connection", "create", reference, "--field", &field];
        let (code, said) = self.run(&[&arguments[..], &["--resolver", "workflow:w"]].concat());
        assert_eq!(code, Some(0), "{said}");
        said
    }

    fn got(&self, reference: &str, field: &str) -> Vec<u8> {
        self.0.answer(&["get", reference, "--field", field])
    }
}

fn heard(ran: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code(), text(&ran.stdout) + &text(&ran.stderr))
}

#[test]
fn a_key_has_its_last_newline_whichever_way_it_comes() {
    let (world, key) = (World::start(), openssh_key());
    let bare = key.trim_end();
    let resolver = ["--resolver", "workflow:w"];
    let create = ["connection", "create", "ssh/piped", "--field", "private_key=-"];
    let said = world.pipe(key.as_bytes(), &[&create[..], &resolver].concat());
    assert!(!said.contains("newline"), "{said}");
    let put = |name: &'static str| ["secret", "put", "--workflow", "w", name];
    world.pipe(key.as_bytes(), &put("piped"));
    let added = "a newline was added";
    assert!(world.create("ssh/filed", "private_key", bare).contains(added));
    assert!(world.pipe(bare.as_bytes(), &put("bare")).contains(added));
    let env = world.file("x.env", format!("DEPLOY_KEY=\"{bare}\"\n"));
    let import = ["import", "--from", "env", &env, "--workflow", "w", "--yes"];
    assert!(world.run(&import).1.contains(added));
    world.file("bare-key", bare);
    let seed = "apiVersion: keyhatch/v1\nkind: Connection\nmetadata: {name: seeded}\nspec:\n  integration: ssh\n  \
                fields: {private_key: {fromFile: bare-key}}\n  access: {resolver: ['workflow:w']}\n";
    let seed = world.file("seed.yaml", seed);
    assert!(world.run(&["apply", "-f", &seed]).1.contains(added));
    for name in ["piped", "filed", "seeded"] {
        assert_eq!(world.got(&format!("ssh/{name}"), "private_key"), key.as_bytes(), "{name}");
    }
    for name in ["piped", "bare", "DEPLOY_KEY"] {
        let file = format!("key=secret:{name}");
        let ran = world
            .0
            .run("keyhatch", &["exec", "--mask", "never", "--file", &file, "--", "cat", "key"]);
        assert!(ran.stdout == key.as_bytes(), "{name}: {}", heard(&ran).1);
    }
    // The finding is reported as long as it holds, and a repaired value is not written again.
    let (code, said) = world.run(&["connection", "test", "ssh/filed"]);
    assert_eq!((code, said.contains("note: private_key: a newline was added")), (Some(0), true));
    let (_, said) = world.run(&["connection", "test", "ssh/piped"]);
    assert_eq!(said, "ssh/piped, version 1: nothing found\n");
    let (_, said) = world.run(&["apply", "-f", &seed]);
    assert!(said.contains("unchanged") && !said.contains("newline"), "{said}");
}

#[test]
fn a_newline_cut_from_stdin_is_reported_and_files_are_kept() {
    let world = World::start();
    let put = ["secret", "put", "--workflow", "w", "s"];
    for (given, stored) in [
        (b"token\n".as_slice(), b"token".as_slice()),
        (b"token\r\n", b"token"),
        (b"token", b"token"),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"\n\n", b"\n\n"),
        (b"\xff\n", b"\xff\n"),
    ] {
        let said = world.pipe(given, &put);
        assert_eq!(said.contains("newline at the end of stdin is left out"), given != stored);
        assert_eq!(world.0.answer(&["get", "secret:s", "--format", "raw"]), stored);
    }
    let file = world.file("token", "xoxb-not-real\n");
    let (_, said) = world.run(&[&put[..], &["--value", &format!("@{file}")]].concat());
    assert!(said.contains("secret s of w: value: the value ends in a newline"), "{said}");
    assert_eq!(world.0.answer(&["get", "secret:s", "--format", "raw"]), b"xoxb-not-real\n");
    let ends = "slack/a: api_token: the value ends in a newline";
    assert!(world.create("slack/a", "api_token", "xoxb-not-real\n").contains(ends));
    let field = format!("api_token=@{}", world.file("other", "xoxb-other\n"));
    assert!(world.run(&["connection", "update", "slack/a", "--field", &field]).1.contains(ends));
    assert_eq!(world.got("slack/a", "api_token"), b"xoxb-other\n");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\ndata: {{api_token: {}}}\n",
        STANDARD.encode("xoxb-1\n")
    );
    let secret = world.file("secret.yaml", secret);
    let import = ["import", "--from", "kubernetes-secret", &secret, "--integration", "slack"];
    let (_, said) = world.run(&[&import[..], &["--dry-run"]].concat());
    assert!(said.contains("warning: api_token: the value ends in a newline"), "{said}");
}

#[test]
fn a_damaged_key_is_reported_by_its_fault() {
    let (world, key) = (World::start(), openssh_key());
    for (at, (content, word)) in [
        (key.replace('\n', ""), "line breaks are gone"),
        (key.replace('\n', " "), "line breaks have become spaces"),
        (key.replace('\n', "\\n"), "line breaks are written as \\n"),
        (key.replace('\n', "\r\n"), "CR LF"),
        (key.lines().map(|line| format!("  {line}\n")).collect(), "indented"),
        (key.split_at(120).0.to_owned(), "cut off"),
        (format!("'{key}'"), "quotes"),
        (key.replacen("AAAA", "", 1), "missing or changed"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("ssh/k{at}");
        let said = world.create(&name, "private_key", &content);
        assert!(said.contains("warning: ") && said.contains(word), "{word}: {said}");
        // The value is stored unchanged.
        assert_eq!(world.got(&name, "private_key"), content.as_bytes());
        let tested = world.0.serving.run(&["connection", "test", &name, "-o", "json"]);
        assert_eq!(tested.status.code(), Some(1), "{word}");
        let found: Json = serde_json::from_slice(&tested.stdout).unwrap();
        assert_eq!(found["findings"][0]["severity"], "error");
        assert!(found["findings"][0]["description"].as_str().unwrap().contains(word));
        let last = String::from_utf8(tested.stderr).unwrap();
        assert!(last.lines().last().unwrap().starts_with("error: TEST_FAILED: "), "{last}");
    }
}

/// Texts that tools print in place of a secret.
const MASKS: [&str; 19] = [
    "****",
    "••••••••",
    "****************WXYZ",
    "((redacted))",
    "[MASKED]",
    "***REDACTED***",
    "(sensitive value)",
    "<concealed by 1Password>",
    "DATA+OMITTED",
    "__n8n_BLANK_VALUE_e5362baf",
    "REDACTED",
    "[value redacted]",
    "Sensitive [value redacted]",
    "--- sanitized ---",
    "(known after apply)",
    "*****abcd",
    "AKIA****************",
    "https://user:***@host/x",
    "{\"password\": \"***\"}",
];

#[test]
fn a_tools_error_text_in_place_of_a_secret_is_refused() {
    let world = World::start();
    for mask in MASKS {
        let value = format!("@{}", world.file("mask", mask));
        let (field, value) = (format!("api_token={value}"), format!("--value={value}"));
        for command in [
            ["connection", "create", "slack/x", "--field", &field],
            ["secret", "put", "x", "--workflow=w", &value],
        ] {
            let (code, said) = world.run(&command);
            assert_eq!(
                (code, said.contains("looks like a mask")),
                (Some(1), true),
                "{mask}: {said}"
            );
        }
    }
}

/// Texts that stand in place of a secret.
const PLACEHOLDERS: [&str; 21] = [
    "${SLACK_TOKEN}",
    "$SLACK_TOKEN",
    "{{ .Values.token }}",
    "((token))",
    "op://vault/item/field",
    "<path:secret/data/x#password>",
    "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]",
    "REPLACE_ME",
    "changeme",
    "<your-token>",
    "xxxxxxxx",
    "$ANSIBLE_VAULT;1.1;AES256",
    "sensitive",
    "masked",
    "hidden",
    "SENSITIVE_VALUE",
    "sk-...",
    "sk-xxxxxxxx\u{2026}",
    "__TOKEN__",
    "#{Token}#",
    "!vault |",
];

#[test]
fn a_placeholder_in_place_of_a_secret_is_reported() {
    let world = World::start();
    let put = ["secret", "put", "p", "--workflow=w"];
    for (at, placeholder) in PLACEHOLDERS.into_iter().enumerate() {
        let name = format!("slack/p{at}");
        let said = world.create(&name, "api_token", placeholder);
        assert!(said.contains("warning: ") && said.contains("looks like"), "{placeholder}: {said}");
        let (code, said) = world.run(&["connection", "test", &name]);
        assert_eq!((code, said.contains("looks like")), (Some(0), true), "{placeholder}: {said}");
        assert!(!said.contains(placeholder), "{said}");
        assert!(world.pipe(placeholder.as_bytes(), &put).contains("looks like"), "{placeholder}");
    }
}

#[test]
fn a_value_that_is_too_large_is_refused_as_such() {
    let world = World::start();
    let put = ["secret", "put", "large", "--workflow=w", "--value"];
    for bytes in [64 * 1024 + 1, 600_000] {
        let file = world.file("large", "x".repeat(bytes));
        let (code, said) = world.run(&[&put[..], &[&format!("@{file}")]].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("more than 65536 bytes") && !said.contains("UNREACHABLE"), "{said}");
    }
    let (code, said) = world.run(&[&put[..], &["@/dev/zero"]].concat());
    assert_eq!((code, said.contains("not a regular file")), (Some(2), true), "{said}");
    let file = world.file("fits", "x".repeat(60_000));
    assert_eq!(world.run(&[&put[..], &[&format!("@{file}")]].concat()).0, Some(0));
    // More arguments than any process can have.
    let names: Vec<_> =
        (0..120).flat_map(|at| ["--env".to_owned(), format!("B{at}=secret:large")]).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let exec = [&["exec", "--mask", "never"], &names[..], &["--", "true"]].concat();
    let (code, said) = world.0.refusal(&exec);
    assert_eq!((code, said.contains("--file")), (Some(126), true), "{said}");
}

/// A session token is valid only with its own key.
#[test]
fn a_session_token_goes_with_the_key_that_it_was_part_of() {
    let world = World::start();
    let create = ["connection", "create", "aws/a", "--resolver", "workflow:w", "--field"];
    let fields = |id: &str, secret: &str| {
        [
            format!("access_key_id={id}"),
            format!("secret_access_key=@{}", world.file("secret", secret)),
        ]
    };
    let token = format!("session_token=@{}", world.file("token", "of-the-first"));
    let [id, secret] = fields("ASIAFIRSTFIRSTFIRST1", &"1".repeat(40));
    let all =
        [&create[..], &[&id, "--field", &secret, "--field", &token, "--field", "region=eu-west-1"]];
    assert_eq!(world.run(&all.concat()).0, Some(0));
    let update = ["connection", "update", "aws/a", "--field"];
    // The key's own secret changes nothing.
    let (_, said) = world.run(&[&update[..], &[&secret]].concat());
    assert!(!said.contains("session_token"), "{said}");
    assert_eq!(world.got("aws/a", "session_token"), b"of-the-first");
    let [id, secret] = fields("AKIASECONDSECONDSECO", &"2".repeat(40));
    let with_token = [&update[..], &[&id, "--field", &secret, "--field", &token]].concat();
    assert_eq!(world.run(&with_token).0, Some(0));
    let (code, said) = world.run(&["connection", "test", "aws/a"]);
    assert_eq!(
        (code, said.contains("error: session_token: a key that begins with AKIA")),
        (Some(1), true)
    );
    let [id, secret] = fields("AKIATHIRDTHIRDTHIRDT", &"3".repeat(40));
    let (_, said) = world.run(&[&update[..], &[&id, "--field", &secret]].concat());
    assert!(said.contains("session_token is removed with the value that it was part of"), "{said}");
    let got: Json = serde_json::from_slice(&world.0.answer(&["get", "aws/a"])).unwrap();
    assert_eq!(
        (&got["fields"]["session_token"], &got["fields"]["region"]),
        (&Json::Null, &"eu-west-1".into())
    );
    assert_eq!(world.run(&["connection", "test", "aws/a"]).1, "aws/a, version 3: nothing found\n");
}

#[test]
fn an_id_and_its_secret_in_each_others_place_are_refused() {
    let world = World::start();
    let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let create = |name: &str, id: &str, secret: &str| {
        let fields = [
            format!("access_key_id={id}"),
            format!("secret_access_key=@{}", world.file("s", secret)),
        ];
        world.run(&["connection", "create", name, "--field", &fields[0], "--field", &fields[1]])
    };
    for (first, second) in [(secret, id), (secret, secret), (id, id)] {
        let (code, said) = create("aws/x", first, second);
        assert_eq!((code, said.contains("each in its own field")), (Some(1), true), "{said}");
        assert!(!said.contains(secret), "{said}");
    }
    assert_eq!(create("aws/a", id, secret).0, Some(0));
    // Other providers' key ids for S3 have one case.
    assert_eq!(create("aws/b", &"0f".repeat(20), &"1".repeat(64)).0, Some(0));
    let token = ["headers.Authorization=Bearer ghp_0123456789abcdefghij", "base_url=https://h"];
    let http = ["connection", "create", "http/x", "--kind", "none"];
    let (code, said) =
        world.run(&[&http[..], &["--field", token[0], "--field", token[1]]].concat());
    assert_eq!((code, said.contains("the value is a token")), (Some(1), true), "{said}");
}

#[test]
fn a_password_in_an_address_that_can_be_read_is_refused() {
    let world = World::start();
    let create = |name: &str, address: &str| {
        let field = format!("base_url={address}");
        world.run(&["connection", "create", name, "--kind", "none", "--field", &field])
    };
    for address in ["https://u:c4n4ry@h/", "http://:c4n4ry@h:1", "https://u:c4n4@ry@h?x"] {
        let (code, said) = create("http/x", address);
        let is_told = said.contains("holds a password") && said.contains("a sensitive field");
        assert_eq!((code, is_told), (Some(1), true), "{said}");
        assert!(!said.contains("c4n4"), "{said}");
    }
    let (code, said) = create("http/a", "https://u@h/");
    assert_eq!((code, said.contains("the address names a user")), (Some(0), true), "{said}");
    for (at, plain) in ["https://h/a:b@c", "https://h/?x=u:p@h"].into_iter().enumerate() {
        let (code, said) = create(&format!("http/b{at}"), plain);
        assert_eq!((code, said.contains("address")), (Some(0), false), "{said}");
    }
}

#[test]
fn a_credential_outside_its_dates_is_reported() {
    let world = World::start();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |from: i32, to: i32| {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let private_key = format!("private_key=@{}", world.file("key", key.serialize_pem()));
    for (name, from, to, word) in [
        ("http/old", 2020, 2021, "error: certificate: the certificate ended at 2021-01-01"),
        ("http/new", 2990, 2999, "error: certificate: the certificate is not valid before 2990"),
        ("http/now", 2020, 2999, "nothing found"),
    ] {
        let file = world.file("certificate", certificate(from, to));
        let certificate = format!("certificate=@{file}");
        let create = ["connection", "create", name, "--field", "base_url=https://h", "--field"];
        let rest = [&certificate, "--field", &private_key];
        let (code, said) = world.run(&[&create[..], &rest].concat());
        assert_eq!(
            (code, said.contains("the certificate ")),
            (Some(0), name != "http/now"),
            "{said}"
        );
        let (code, said) = world.run(&["connection", "test", name]);
        assert!(said.contains(word), "{word}: {said}");
        assert_eq!(code, Some(i32::from(name != "http/now")));
    }
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(r#"{"exp":1500000000}"#));
    assert!(
        world.create("slack/old", "api_token", &token).contains("the token ended at 2017-07-14")
    );
    let login = r#"{"type": "authorized_user", "refresh_token": "t"}"#;
    let said = world.create("gcp/person", "service_account_key", login);
    assert!(said.contains("the file is a person's login"), "{said}");
    assert_eq!(world.run(&["connection", "test", "gcp/person"]).0, Some(1));
}
