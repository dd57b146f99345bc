//! The formats of `keyhatch get`: exactly the document, or a refusal.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value as Json, json};

use crate::harness::{Steps, connection, keyhatch_in, secret, skipped, wait_until};

/// A text that every format must keep unchanged, or refuse.
const AWKWARD: &str = "sp ace'quote\"$HOME`id`\\back";

fn world() -> Steps {
    let key_file = r#"{"type": "service_account", "private_key": "not-a-key"}"#;
    let aws = [("access_key_id", "AKIAEXAMPLE"), ("secret_access_key", "not-a-real-secret")];
    let session = [("session_token", "not-a-real-session"), ("region", "eu-west-1")];
    let postgres = [("host", "db.example"), ("user", "a:b"), ("password", "c:d\\e")];
    let server = ("server", "https://k8s.example:6443");
    let kubernetes = [server, ("certificate_authority", "none"), ("token", "not-a-real-token")];
    let parts = [("service_account_email", "a@b.example"), ("private_key", "not-a-key")];
    let hub = [("server", "docker.io"), ("username", "u"), ("password", "not-a-real-password")];
    let basic =
        [("base_url", "https://api.example:8443/v1"), ("username", "u"), ("password", AWKWARD)];
    let documents = [
        connection("aws", "prod", &[aws, session].concat()),
        connection("aws", "static", &aws),
        connection("postgres", "main", &postgres),
        connection("kubernetes", "prod", &kubernetes),
        connection("gcp", "prod", &[("service_account_key", key_file)]),
        connection("gcp", "parts", &parts),
        connection("docker-registry", "hub", &hub),
        connection("github", "main", &[("access_token", "not-a-real-token")]),
        connection("http", "basic", &basic),
        connection("generic", "odd", &[("a_text", AWKWARD), ("b_lines", "one\ntwo\n")]),
        secret("token", "hush"),
    ];
    Steps::seeded(&documents.concat())
}

fn json_of(text: &[u8]) -> Json {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn each_form_is_exactly_the_document_that_its_tool_reads() {
    let world = world();
    let get = |reference: &str, format: &str| world.text(&["get", reference, "--format", format]);
    assert_eq!(get("secret:token", "raw"), "hush");
    assert_eq!(world.text(&["get", "aws/prod", "--field", "accessKeyID"]), "AKIAEXAMPLE");
    assert_eq!(get("postgres/main", "pgpass"), "db.example:5432:*:a\\:b:c\\:d\\\\e\n");
    assert_eq!(
        get("github/main", "netrc"),
        "machine github.com login x-access-token password not-a-real-token\n"
    );
    assert_eq!(
        get("aws/static", "env"),
        "export AWS_ACCESS_KEY_ID='AKIAEXAMPLE'\nexport AWS_SECRET_ACCESS_KEY='not-a-real-secret'\n"
    );
    assert_eq!(
        get("aws/static", "dotenv"),
        "AWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_SECRET_ACCESS_KEY=not-a-real-secret\n"
    );
    let config = json!({ "auths": { "https://index.docker.io/v1/": { "auth": "dTpub3QtYS1yZWFsLXBhc3N3b3Jk" } } });
    assert_eq!(json_of(get("docker-registry/hub", "docker-config").as_bytes()), config);
    assert_eq!(json_of(get("gcp/prod", "gcp-key-file").as_bytes())["private_key"], "not-a-key");
    let made = json_of(get("gcp/parts", "gcp-key-file").as_bytes());
    assert_eq!(made["client_email"], "a@b.example");
    assert_eq!(made["type"], "service_account");
    let yaml = get("aws/static", "yaml");
    assert!(yaml.contains("secret_access_key: not-a-real-secret\n"), "{yaml}");
}

#[test]
fn an_expiring_credential_carries_its_end() {
    let world = world();
    // Both formats run in one step and show the same lease.
    let script =
        "keyhatch get aws/prod --out lease; keyhatch get aws/prod --format aws-credential-process";
    let process = json_of(&world.run("sh", &["-ec", script]).stdout);
    let lease =
        json_of(&std::fs::read(world.path("lease")).unwrap())["lease"]["expire_time"].clone();
    let second = format!("{}Z", lease.as_str().unwrap().split(['.', 'Z']).next().unwrap());
    let expected = json!({
        "Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "not-a-real-secret",
        "SessionToken": "not-a-real-session", "Expiration": second,
    });
    assert_eq!(process, expected);
    let process =
        json_of(&world.answer(&["get", "aws/static", "--format", "aws-credential-process"]));
    assert!(process.get("SessionToken").is_none());
    let kubectl = json_of(&world.answer(&["get", "kubernetes/prod", "--format", "kubectl"]));
    assert_eq!(kubectl["apiVersion"], "client.authentication.k8s.io/v1");
    assert_eq!(kubectl["status"]["token"], "not-a-real-token");
    assert_eq!(kubectl["status"]["expirationTimestamp"].as_str().map(str::len), Some(20));
}

#[test]
fn kubectl_gets_the_api_version_that_it_asks_for() {
    let world = world();
    let asked = |version: &str| {
        let info =
            json!({ "apiVersion": version, "kind": "ExecCredential", "spec": {} }).to_string();
        let get = ["get", "kubernetes/prod", "--format", "kubectl"];
        world.command("keyhatch", &get).env("KUBERNETES_EXEC_INFO", info).output().unwrap()
    };
    let beta = asked("client.authentication.k8s.io/v1beta1");
    assert_eq!(json_of(&beta.stdout)["apiVersion"], "client.authentication.k8s.io/v1beta1");
    let unknown = asked("client.authentication.k8s.io/v1alpha1");
    let stderr = String::from_utf8(unknown.stderr).unwrap();
    assert!(stderr.contains("API_VERSION_UNKNOWN") && unknown.stdout.is_empty(), "{stderr}");
    // An empty variable counts as unset.
    let get = ["get", "kubernetes/prod", "--format", "kubectl"];
    let empty = world.command("keyhatch", &get).env("KUBERNETES_EXEC_INFO", "").output().unwrap();
    assert_eq!(json_of(&empty.stdout)["apiVersion"], "client.authentication.k8s.io/v1");
}

/// A shell gets the stored value byte for byte.
#[test]
fn a_shell_reads_the_same_value_from_env_and_dotenv_lines() {
    let world = world();
    let expected = format!("{AWKWARD}|one\ntwo\n|");
    let script = "eval \"$(keyhatch get generic/odd --format env)\"; \
                  printf '%s|%s|' \"$GENERIC_A_TEXT\" \"$GENERIC_B_LINES\"";
    assert_eq!(world.run("sh", &["-ec", script]).stdout, expected.as_bytes());
    world.apply(&connection(
        "generic",
        "tame",
        &[("a", "it's"), ("b", "two\nlines $HOME"), ("c", "plain")],
    ));
    let script = "keyhatch get generic/tame --format dotenv --out e; . ./e; \
                  printf '%s|%s|%s' \"$GENERIC_A\" \"$GENERIC_B\" \"$GENERIC_C\"";
    assert_eq!(world.run("sh", &["-ec", script]).stdout, b"it's|two\nlines $HOME|plain");
}

/// A broker with a connection and a secret that are not UTF-8, and with values that have a zero byte.
fn world_of_bytes() -> Steps {
    let world = world();
    for (name, bytes) in [("latin", b"canary\xff".as_slice()), ("zero", b"canary\0zero")] {
        let path = world.path(name);
        std::fs::write(&path, bytes).unwrap();
        let (create, field) = (format!("generic/{name}"), format!("password=@{}", path.display()));
        let create =
            ["connection", "create", &create, "--field", &field, "--resolver", "workflow:w"];
        world.serving.must(&create);
        let put = ["secret", "put", "--workflow", "w", &format!("secret-{name}")];
        let mut put = keyhatch_in(world.directory.path(), &put);
        put.stdin(std::fs::File::open(&path).unwrap());
        assert!(put.output().unwrap().status.success());
    }
    world
}

#[test]
fn a_value_that_a_format_cannot_hold_is_refused() {
    let world = world_of_bytes();
    let lines = [("host", "h"), ("user", "u"), ("password", "canary-one\ntwo")];
    let empty = [("base_url", "https://a.example"), ("username", "u"), ("password", "")];
    let colon = [("server", "r"), ("username", "a:b"), ("password", "canary")];
    let documents = [
        connection("postgres", "lines", &lines),
        connection("http", "empty", &empty),
        connection("docker-registry", "colon", &colon),
    ];
    world.apply(&documents.concat());
    for (reference, format) in [
        ("postgres/lines", "pgpass"),
        ("http/basic", "netrc"),
        ("http/empty", "netrc"),
        ("docker-registry/colon", "docker-config"),
        ("generic/odd", "dotenv"),
        ("generic/latin", "env"),
        ("generic/latin", "dotenv"),
        ("generic/zero", "env"),
        ("generic/zero", "dotenv"),
        ("secret:secret-zero", "env"),
    ] {
        let (code, line) = world.refusal(&["get", reference, "--format", format]);
        assert_eq!(code, Some(1), "{reference} {format}: {line}");
        assert!(line.starts_with("error: VALUE_UNFIT: ") && !line.contains("canary"), "{line}");
    }
}

#[test]
fn binary_values_are_encoded_where_a_format_says_how() {
    let world = world_of_bytes();
    assert_eq!(world.answer(&["get", "generic/zero", "--field", "password"]), b"canary\0zero");
    assert_eq!(world.answer(&["get", "secret:secret-latin", "--format", "raw"]), b"canary\xff");
    let json = json_of(&world.answer(&["get", "generic/latin"]));
    assert_eq!(json["fields"]["password"], json!({ "$base64": "Y2FuYXJ5/w==" }));
    let json = json_of(&world.answer(&["get", "generic/zero"]));
    assert_eq!(json["fields"]["password"], "canary\0zero");
}

#[test]
fn a_connection_of_another_integration_is_refused_by_its_name() {
    let world = world();
    for (reference, format) in [
        ("postgres/main", "aws-credential-process"),
        ("aws/prod", "kubectl"),
        ("aws/prod", "gcp-key-file"),
        ("aws/prod", "pgpass"),
        ("aws/prod", "netrc"),
        ("kubernetes/prod", "docker-config"),
        ("secret:token", "aws-credential-process"),
        ("secret:token", "netrc"),
    ] {
        let (code, line) = world.refusal(&["get", reference, "--format", format]);
        assert_eq!(code, Some(1), "{line}");
        assert!(
            line.starts_with("error: INTEGRATION_UNFIT: ") && line.contains(reference),
            "{line}"
        );
    }
}

#[test]
fn an_unknown_form_is_answered_with_those_there_are() {
    let world = world();
    let (code, line) = world.refusal(&["get", "aws/prod", "--format", "toml"]);
    assert_eq!(code, Some(2));
    for format in
        ["json", "dotenv", "aws-credential-process", "kubectl", "gcp-key-file", "pgpass", "netrc"]
    {
        assert!(line.contains(format), "{line}");
    }
    let (code, line) = world.refusal(&["get", "aws/prod", "--format", "raw"]);
    assert!(code == Some(2) && line.contains("--field"), "{line}");
}

#[test]
fn a_file_is_private_replaced_whole_and_replaces_only_files() {
    let world = world();
    let out = world.path("key.json");
    std::fs::write(&out, "old").unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = out.to_str().unwrap();
    let ran =
        world.run("keyhatch", &["get", "gcp/prod", "--format", "gcp-key-file", "--out", path]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.stdout.is_empty() && said.contains("was 0644, and is 0600 now"), "{said}");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(json_of(&std::fs::read(&out).unwrap())["private_key"], "not-a-key");
    // A refusal leaves the file unchanged and no other file beside it.
    let (code, _) = world.refusal(&["get", "aws/nothere", "--out", path]);
    assert_eq!(code, Some(1));
    assert_eq!(json_of(&std::fs::read(&out).unwrap())["private_key"], "not-a-key");
    let target = world.path("target");
    std::fs::write(&target, "theirs").unwrap();
    std::os::unix::fs::symlink(&target, world.path("link")).unwrap();
    let link = world.path("link");
    let directory = world.directory.path().to_str().unwrap();
    for bad in [link.to_str().unwrap(), directory, "/dev/null", "no/such/directory/file"] {
        let (code, line) = world.refusal(&["get", "aws/prod", "--out", bad]);
        assert!(code == Some(1) && line.contains(bad), "{line}");
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    let names = std::fs::read_dir(world.directory.path()).unwrap();
    let left = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".keyhatch-")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_file_that_is_written_over_stays_its_owners_and_its_modes() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let world = world();
    let out = world.path("key.json");
    let path = out.to_str().unwrap();
    let write = || world.run("keyhatch", &["get", "aws/prod", "--out", path]);
    for mode in [0o640, 0o400, 0o660] {
        std::fs::write(&out, "old").unwrap();
        std::fs::set_permissions(&out, std::fs::Permissions::from_mode(mode)).unwrap();
        let ran = write();
        let found = std::fs::metadata(&out).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{mode:o}");
        assert!(ran.status.success() && ran.stderr.is_empty() && found.len() > 3, "{mode:o}");
        std::fs::remove_file(&out).unwrap();
    }
    // `-` is stdout, as in other commands.
    let answer = world.text(&["get", "aws/prod", "--field", "access_key_id", "--out", "-"]);
    assert_eq!(answer, "AKIAEXAMPLE");
    assert!(!world.path("-").exists());
    if !rustix::process::geteuid().is_root() {
        return skipped("owners of files", "this is not root");
    }
    std::fs::write(&out, "old").unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o640)).unwrap();
    chown(&out, Some(65_533), Some(65_532)).unwrap();
    assert!(write().status.success());
    let found = std::fs::metadata(&out).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65_533, 65_532, 0o640));
    // In a directory that everybody may write to, another user may have made this file.
    let shared = world.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::rename(&out, shared.join("key.json")).unwrap();
    let path = shared.join("key.json");
    let (code, line) = world.refusal(&["get", "aws/static", "--out", path.to_str().unwrap()]);
    assert!(code == Some(1) && line.contains("uid 65533's"), "{line}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("aws/static"));
}

#[test]
fn users_of_a_shared_directory_do_not_choose_its_readers() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    if !rustix::process::geteuid().is_root() {
        return skipped("a directory of a group's", "this is not root");
    }
    let world = world();
    let directory = world.path("shared");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("key.json");
    let share = |uid, mode| {
        chown(&directory, Some(uid), Some(65_532)).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let put = |uid, mode| {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(uid), Some(65_532)).unwrap();
    };
    let refused = |what: &str| {
        let (code, line) = world.refusal(&["get", "aws/prod", "--out", path.to_str().unwrap()]);
        assert!(code == Some(1) && line.contains("may have put it there"), "{what}: {line}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old", "{what}");
    };
    let written = |what: &str, expected: (u32, u32)| {
        let ran = world.run("keyhatch", &["get", "aws/prod", "--out", path.to_str().unwrap()]);
        let found = std::fs::metadata(&path).unwrap();
        assert!(ran.status.success() && found.len() > 3, "{what}");
        assert_eq!((found.uid(), found.mode() & 0o777), expected, "{what}");
    };
    for (uid, mode) in [(0, 0o2775), (65_533, 0o2775), (0, 0o1777), (65_531, 0o755)] {
        let what = format!("a directory of {uid} and of mode {mode:o}");
        share(uid, mode);
        put(65_533, 0o600);
        refused(&what);
        // A file of root that others can read is replaced, and a file with several links is refused.
        put(0, 0o660);
        written(&what, (0, 0o600));
        put(0, 0o660);
        std::fs::hard_link(&path, world.path("linked")).unwrap();
        refused(&what);
        std::fs::remove_file(world.path("linked")).unwrap();
    }
    // A file in a user's private directory goes to that user.
    share(65_533, 0o755);
    put(65_533, 0o640);
    written("a directory of one user's", (65_533, 0o640));
}

#[test]
fn a_list_of_a_file_that_is_written_over_stays() {
    let world = world();
    let out = world.path("key.json");
    std::fs::write(&out, "old").unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = out.to_str().unwrap();
    let set = std::process::Command::new("setfacl").args(["-m", "u:65533:r", path]).status();
    if !set.is_ok_and(|set| set.success()) {
        return skipped("lists of files", "there is no setfacl, or the file system has no lists");
    }
    assert!(world.answer(&["get", "aws/prod", "--out", path]).is_empty());
    let list = std::process::Command::new("getfacl").args(["-n", path]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    for entry in ["user:65533:r--", "group::---", "other::---"] {
        assert!(list.contains(entry), "{list}");
    }
}

#[test]
fn a_password_file_says_hosts_as_libpq_looks_for_them() {
    let world = world();
    let pgpass = |host: &str, user: &str, port: Option<&str>| {
        let mut fields = vec![("host", host), ("user", user), ("password", "c:d")];
        fields.extend(port.map(|port| ("port", port)));
        world.apply(&connection("postgres", "h", &fields));
        world.text(&["get", "postgres/h", "--format", "pgpass"])
    };
    assert_eq!(pgpass("h1,h2", "u", None), "h1:5432:*:u:c\\:d\nh2:5432:*:u:c\\:d\n");
    assert_eq!(pgpass("h1,::1", "u", Some("1")), "h1:1:*:u:c\\:d\n\\:\\:1:1:*:u:c\\:d\n");
    assert_eq!(pgpass("h1,h2", "u", Some("1,2")), "h1:1:*:u:c\\:d\nh2:2:*:u:c\\:d\n");
    // Builds of libpq use one of these socket directories as the default host, and then look for localhost.
    for directory in ["/var/run/postgresql", "/tmp"] {
        let lines = format!("localhost:1:*:u:c\\:d\n{directory}:1:*:u:c\\:d\n");
        assert_eq!(pgpass(directory, "u", Some("1")), lines);
    }
    assert_eq!(pgpass("/srv/pg", "u", Some("1")), "/srv/pg:1:*:u:c\\:d\n");
    // A wildcard or a comment sign is escaped.
    assert_eq!(pgpass("#h", "*", Some("1")), "\\#h:1:*:\\*:c\\:d\n");
    world.apply(&connection(
        "postgres",
        "odd",
        &[("host", "h1,h2"), ("user", "u"), ("password", "p"), ("port", "1,2,3")],
    ));
    let (code, line) = world.refusal(&["get", "postgres/odd", "--format", "pgpass"]);
    assert!(code == Some(1) && line.starts_with("error: VALUE_UNFIT: port "), "{line}");
}

#[test]
fn an_address_holds_every_character_of_a_login() {
    let world = world();
    let uri = |integration: &str, fields: &[(&str, &str)]| {
        world.apply(&connection(integration, "u", fields));
        world.text(&["get", &format!("{integration}/u"), "--format", "uri"])
    };
    let login = [("user", "a:b"), ("password", "p@ss/w:rd?#% é+")];
    let written = "a%3Ab:p%40ss%2Fw%3Ard%3F%23%25%20%C3%A9%2B";
    let at = |fields: &[(&'static str, &'static str)]| [&login[..], fields].concat();
    for (fields, rest) in [
        (at(&[("host", "db.example"), ("database", "my/db")]), "db.example/my%2Fdb"),
        (at(&[("host", "h"), ("port", "1"), ("sslmode", "require")]), "h:1/?sslmode=require"),
        (at(&[("host", "/var/run/postgresql")]), "%2Fvar%2Frun%2Fpostgresql/"),
        (at(&[("host", "fe80::1%eth0,h2"), ("port", "1")]), "[fe80::1%25eth0]:1,h2:1/"),
        (at(&[("host", "h1,h2"), ("port", "1,2")]), "h1:1,h2:2/"),
    ] {
        // A document would keep the fields that it does not name.
        world.serving.run(&["connection", "delete", "postgres/u", "--yes", "--force"]);
        assert_eq!(uri("postgres", &fields), format!("postgresql://{written}@{rest}\n"));
    }
    let mysql = at(&[("host", "h"), ("sslmode", "VERIFY_CA")]);
    assert_eq!(uri("mysql", &mysql), format!("mysql://{written}@h/?ssl-mode=VERIFY_CA\n"));
    let fields = [("base_url", "https://h:1/a?b"), ("username", "a:b"), ("password", "p@")];
    assert_eq!(uri("http", &fields), "https://a%3Ab:p%40@h:1/a?b\n");
    let (code, line) = world.refusal(&["get", "aws/prod", "--format", "uri"]);
    assert!(code == Some(1) && line.starts_with("error: INTEGRATION_UNFIT: "), "{line}");
}

#[test]
fn docker_reads_variables_without_quotes_and_in_one_line() {
    let world = world();
    let value = "  pa$s 'wo#rd\" \\ ";
    world.apply(&connection("generic", "fit", &[("a", value), ("b", "")]));
    let lines = world.text(&["get", "generic/fit", "--format", "docker-env"]);
    assert_eq!(lines, format!("GENERIC_A={value}\nGENERIC_B=\n"));
    for unfit in ["canary\ntwo", "canary\r", &"canary".repeat(10_921)] {
        world.apply(&connection("generic", "unfit", &[("a", unfit)]));
        let (code, line) = world.refusal(&["get", "generic/unfit", "--format", "docker-env"]);
        assert!(code == Some(1) && line.starts_with("error: VALUE_UNFIT: "), "{line}");
        assert!(!line.contains("canary"), "{line}");
    }
}

#[test]
fn a_header_takes_only_values_fit_for_it() {
    let world = world();
    let kubernetes = |token: &str| {
        let server = ("server", "https://k8s.example:6443");
        let fields = [server, ("certificate_authority", "none"), ("token", token)];
        connection("kubernetes", "odd", &fields)
    };
    let aws = |id: &str, session: &str| {
        let key = [("access_key_id", id), ("secret_access_key", "hush-hush")];
        connection("aws", "odd", &[&key[..], &[("session_token", session)]].concat())
    };
    for (document, get) in [
        (kubernetes("canary\n"), ["kubernetes/odd", "kubectl"]),
        (kubernetes(" canary"), ["kubernetes/odd", "kubectl"]),
        (kubernetes("canaré"), ["kubernetes/odd", "kubectl"]),
        (aws("canary\n", "x"), ["aws/odd", "aws-credential-process"]),
        (aws("AKIA", "canary\r\nX: y"), ["aws/odd", "aws-credential-process"]),
    ] {
        world.apply(&document);
        let (code, line) = world.refusal(&["get", get[0], "--format", get[1]]);
        assert!(code == Some(1) && line.starts_with("error: VALUE_UNFIT: "), "{line}");
        assert!(!line.contains("canar"), "{line}");
    }
}

/// A stopped daemon accepts connections and never answers, which is the longest wait of a helper.
#[test]
fn a_helper_reports_a_missing_daemon_in_time() {
    use rustix::process::{Signal, kill_process};
    let world = world();
    // The step opens before the stop, and its end needs the daemon again.
    let script = "touch ready; until [ -e stopped ]; do sleep 0.05; done; \
                  timeout 10 keyhatch get aws/prod --format kubectl --timeout 900ms; echo $?; touch answered";
    let mut command = world.command("sh", &["-c", script]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("the step runs", || world.path("ready").exists());
    kill_process(world.serving.pid(), Signal::STOP).unwrap();
    std::fs::write(world.path("stopped"), "").unwrap();
    wait_until("it has given up", || world.path("answered").exists());
    kill_process(world.serving.pid(), Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    // `timeout` would end a hanging helper with 124.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("error: UNREACHABLE: the broker has not answered within 900 ms"),
        "{stderr}"
    );
}
