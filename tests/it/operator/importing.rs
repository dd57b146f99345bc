//! `import` takes over credentials from elsewhere, byte for byte, and shows them to nobody.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::harness::{ServeProcess, keyhatch_in, temp_dir};

/// A part of each imported value. No message may contain it.
const CANARY: &str = "c4n4ry";

/// A broker, and a directory for the files to import.
pub struct World {
    serving: ServeProcess,
    directory: TempDir,
}

impl World {
    pub fn start() -> Self {
        let directory = temp_dir();
        Self { serving: ServeProcess::start(directory.path()), directory }
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Imports. Returns the success, stdout and stderr, and checks that neither has a value.
    pub fn import(&self, arguments: &[&str]) -> (bool, String, String) {
        let ran = self.serving.run(&[&["import", "--from"], arguments].concat());
        heard(&ran)
    }

    /// Imports, which must succeed. Returns stdout and stderr.
    pub fn imported(&self, arguments: &[&str]) -> (String, String) {
        self.imported_by(arguments, &["--resolver", "workflow:w"])
    }

    /// Imports with these access options.
    pub fn imported_by(&self, arguments: &[&str], access: &[&str]) -> (String, String) {
        let arguments = [arguments, &["--yes"], access].concat();
        let (ended_well, answer, talk) = self.import(&arguments);
        assert!(ended_well, "{talk}");
        (answer, talk)
    }

    pub fn refused(&self, arguments: &[&str]) -> String {
        let (ended_well, _, talk) = self.import(&[arguments, &["--yes"]].concat());
        assert!(!ended_well, "{arguments:?}: {talk}");
        talk
    }

    /// The fields that a step of workflow w gets.
    pub fn fields(&self, reference: &str) -> Json {
        let step = ["step", "run", "--workflow", "w", "--run", "1", "--step", "s", "--"];
        let binary = env!("CARGO_BIN_EXE_keyhatch");
        let get = [binary, "get", reference, "--format", "json"];
        let ran = self.serving.run(&[&step[..], &get].concat());
        assert!(ran.status.success(), "{reference}: {}", String::from_utf8_lossy(&ran.stderr));
        let got: Json = serde_json::from_slice(&ran.stdout).unwrap();
        got["fields"].clone()
    }

    pub fn secret(&self, name: &str) -> Json {
        self.fields(&format!("secret:{name}"))["value"].clone()
    }
}

fn heard(ran: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (answer, talk) = (text(&ran.stdout), text(&ran.stderr));
    assert!(!answer.contains(CANARY) && !talk.contains(CANARY), "{answer}{talk}");
    (ran.status.success(), answer, talk)
}

#[test]
fn a_dotenv_file_is_imported_byte_for_byte() {
    let world = World::start();
    let file = world.file(
        "app.env",
        "# all of it\nexport AWS_ACCESS_KEY_ID=AKIAc4n4ry\nAWS_SECRET_ACCESS_KEY='c4n4ry#;$HOME \"x\"'\n\
         AWS_REGION=eu-west-1\nAWS_DEFAULT_REGION=eu-west-2\nPEM='c4n4ry\nline # 2 \"$x'\nPLAIN=\"c4n4ry#a;b\"\n\
         EMPTY=\n",
    );
    let (answer, talk) =
        world.imported(&["env", &file, "--name", "main", "--workflow", "w", "-o", "json"]);
    let expected = json!([
        { "name": "connections/aws/main", "action": "created" },
        { "name": "workflows/w/secrets/PEM", "action": "created" },
        { "name": "workflows/w/secrets/PLAIN", "action": "created" },
    ]);
    assert_eq!(serde_json::from_str::<Json>(&answer).unwrap(), expected);
    for said in [
        "connections/aws/main",
        "access_key_id, region, secret_access_key",
        "line 9: EMPTY: it is empty",
        "line 5: AWS_DEFAULT_REGION: aws/access_key takes AWS_REGION in its place",
    ] {
        assert!(talk.contains(said), "{said}: {talk}");
    }
    let got = world.fields("aws/main");
    assert_eq!(got["access_key_id"], "AKIAc4n4ry");
    assert_eq!(got["secret_access_key"], "c4n4ry#;$HOME \"x\"");
    assert_eq!(got["region"], "eu-west-1");
    assert_eq!(world.secret("PEM"), "c4n4ry\nline # 2 \"$x");
    assert_eq!(world.secret("PLAIN"), "c4n4ry#a;b");
}

#[test]
fn aws_profiles_become_connections_of_their_names() {
    let world = World::start();
    let credentials = world.file(
        "credentials",
        "[default]\naws_access_key_id = AKIAc4n4ry\naws_secret_access_key = c4n4ry/+=#x;y;z\n\
         [temporary]\naws_access_key_id=ASIAc4n4ry\naws_secret_access_key=c4n4ry\naws_session_token=c4n4ry==\n\
         [other]\naws_access_key_id = x\naws_secret_access_key = y\n",
    );
    let config = world.file(
        "config",
        "[default]\nregion = eu-west-1\n[profile admin]\nrole_arn = arn:aws:iam::1:role/x\n\
         source_profile = default\n[profile web]\nsso_session = main\n[sso-session main]\nsso_region = x\n",
    );
    let (answer, talk) = world.imported(&["aws-profile", &credentials, &config]);
    let expected = "connections/aws/default created\nconnections/aws/other created\n\
                    connections/aws/temporary created\n";
    assert_eq!(answer, expected);
    for said in
        ["profile admin: its credentials come from a role", "profile web", "[sso-session main]"]
    {
        assert!(talk.contains(said), "{said}: {talk}");
    }
    let expected = json!({ "access_key_id": "AKIAc4n4ry", "region": "eu-west-1",
                           "secret_access_key": "c4n4ry/+=#x;y;z" });
    assert_eq!(world.fields("aws/default"), expected);
    assert_eq!(world.fields("aws/temporary")["session_token"], "c4n4ry==");
    let (answer, _) = world.imported(&["aws-profile", &credentials, "--profile", "other"]);
    assert_eq!(answer, "connections/aws/other unchanged\n");
    let said = world.refused(&["aws-profile", &credentials, "--profile", "absent"]);
    assert!(said.contains("there is no profile absent"), "{said}");
}

#[test]
fn kubernetes_secrets_become_what_their_types_say() {
    let world = World::start();
    let docker = r#"{"auths":{"registry.example":{"auth":"dTpjNG40cnk="}}}"#;
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n\
         - {{apiVersion: v1, kind: Secret, metadata: {{name: deploy-key}}, type: kubernetes.io/ssh-auth,\n   \
         data: {{ssh-privatekey: {}}}}}\n\
         - {{apiVersion: v1, kind: Secret, metadata: {{name: pull}}, type: kubernetes.io/dockerconfigjson,\n   \
         data: {{.dockerconfigjson: {}}}}}\n\
         - {{apiVersion: v1, kind: Secret, metadata: {{name: login}}, type: kubernetes.io/basic-auth,\n   \
         stringData: {{username: u, password: c4n4ry}}}}\n\
         - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings}}, data: {{a: b}}}}\n",
        STANDARD.encode("-----BEGIN c4n4ry-----\nx\n"),
        STANDARD.encode(docker),
    );
    let file = world.file("secrets.yaml", &text);
    let (answer, talk) = world.imported(&["kubernetes-secret", &file]);
    let expected = "connections/ssh/deploy-key created\nconnections/docker-registry/pull created\n";
    assert_eq!(answer, expected);
    assert!(talk.contains("Secret login: all of it") && talk.contains("base_url"), "{talk}");
    assert!(talk.contains("ConfigMap settings: it is no Secret"), "{talk}");
    assert_eq!(world.fields("ssh/deploy-key")["private_key"], "-----BEGIN c4n4ry-----\nx\n");
    let expected = json!({ "server": "registry.example", "username": "u", "password": "c4n4ry" });
    assert_eq!(world.fields("docker-registry/pull"), expected);
}

#[test]
fn opaque_kubernetes_secrets_are_imported_with_binary_values() {
    let world = World::start();
    let odd = [b"c4n4ry".as_slice(), &[0xff, 0, b'\n']].concat();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": { "name": "bot" },
        "data": { "api_token": STANDARD.encode("c4n4ry\n"), "odd": STANDARD.encode(&odd) },
    });
    let file = world.file("opaque.json", &object.to_string());
    let refused = world.refused(&["kubernetes-secret", &file]);
    assert!(
        refused.contains("Secret bot: odd") && refused.contains("nothing to import"),
        "{refused}"
    );
    let (answer, _) = world.imported(&["kubernetes-secret", &file, "--workflow", "w"]);
    assert_eq!(answer, "workflows/w/secrets/api_token created\nworkflows/w/secrets/odd created\n");
    assert_eq!(world.secret("odd"), json!({ "$base64": STANDARD.encode(&odd) }));
    let (answer, talk) = world.imported(&["kubernetes-secret", &file, "--integration", "slack"]);
    assert_eq!(answer, "connections/slack/bot created\n");
    assert!(talk.contains("Secret bot: odd: "), "{talk}");
    assert_eq!(world.fields("slack/bot")["api_token"], "c4n4ry\n");
}

#[test]
fn an_answer_of_vault_becomes_a_connection_or_secrets() {
    let world = World::start();
    let data =
        json!({ "HOST": "db.example", "port": 5432, "user": "u", "password": "c4n4ry'\"\\\n€" });
    let second =
        json!({ "request_id": "x", "data": { "data": data, "metadata": { "version": 3 } } });
    let second = world.file("v2.json", &second.to_string());
    let said = world.refused(&["vault-kv-json", &second, "--integration", "postgres"]);
    assert!(said.contains("--name NAME"), "{said}");
    let into = ["--integration", "postgres", "--name", "main"];
    let (answer, _) = world.imported(&[&["vault-kv-json", &second], &into[..]].concat());
    assert_eq!(answer, "connections/postgres/main created\n");
    let got = world.fields("postgres/main");
    assert_eq!((&got["host"], &got["port"]), (&json!("db.example"), &json!("5432")));
    assert_eq!(got["password"], "c4n4ry'\"\\\n€");
    let first = world.file("v1.json", r#"{"data": {"token": "c4n4ry", "flag": true}}"#);
    world.imported(&["vault-kv-json", &first, "--workflow", "w"]);
    assert_eq!((world.secret("token"), world.secret("flag")), (json!("c4n4ry"), json!("true")));
}

#[test]
fn relays_file_is_taken_with_its_names() {
    let world = World::start();
    let text = "connections:\n  aws/test:\n    accessKeyID: AKIA\n    secretAccessKey: c4n4ry\n\
                secrets:\n  token: 'c4n4ry: #'\n";
    let file = world.file("metadata.yaml", text);
    let (answer, talk) = world.imported(&["relay", &file, "--workflow", "w"]);
    assert_eq!(answer, "connections/aws/test created\nworkflows/w/secrets/token created\n");
    assert!(talk.contains("accessKeyID, secretAccessKey"), "{talk}");
    assert_eq!(world.fields("aws/test")["secret_access_key"], "c4n4ry");
    assert_eq!(world.secret("token"), "c4n4ry: #");
}

#[test]
fn nothing_is_written_by_a_dry_run_nor_before_a_yes() {
    let world = World::start();
    let file = world.file("app.env", "GITHUB_TOKEN=c4n4ry\nOTHER=c4n4ry\n");
    let arguments = ["env", &file, "--name", "main"];
    let dry = [&arguments[..], &["--dry-run", "-o", "json"]].concat();
    let (ended_well, answer, _) = world.import(&dry);
    assert!(ended_well);
    let plan: Json = serde_json::from_str(&answer).unwrap();
    assert_eq!(plan["documents"][0]["name"], "connections/github/main");
    assert_eq!(plan["documents"][0]["fields"], json!(["access_token"]));
    assert!(plan["documents"][0]["from"].as_str().unwrap().ends_with("app.env: GITHUB_TOKEN"));
    assert!(plan["skipped"][0]["what"].as_str().unwrap().ends_with("line 2: OTHER"));
    let (ended_well, _, talk) = world.import(&arguments);
    assert!(!ended_well && talk.contains("give --yes"), "{talk}");
    let list = world.serving.run(&["connection", "list", "-o", "name"]);
    assert_eq!(String::from_utf8(list.stdout).unwrap().trim(), "");
    // Without an access option nobody may resolve the imported connections.
    assert!(world.import(&[&arguments[..], &["--yes"]].concat()).0);
    let shown = world.serving.run(&["access", "list", "github/main", "-o", "json"]);
    assert!(!String::from_utf8(shown.stdout).unwrap().contains("resolver"));
}

#[test]
fn a_file_comes_from_stdin_too() {
    let world = World::start();
    let arguments = ["import", "--from", "env", "-", "--workflow", "w", "--yes"];
    let mut command = keyhatch_in(world.directory.path(), &arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"A='c4n4ry'\n").unwrap();
    let (ended_well, answer, talk) = heard(&child.wait_with_output().unwrap());
    assert!(ended_well, "{talk}");
    assert_eq!(answer, "workflows/w/secrets/A created\n");
    assert_eq!(world.secret("A"), "c4n4ry");
}

#[test]
fn all_import_faults_are_reported_by_line_at_once() {
    let world = World::start();
    let env = world.file("bad.env", "A=1\nB=c4n4ry x\nC=\"$HOME c4n4ry\"\nA=c4n4ry\n");
    let said = world.refused(&["env", &env, "--workflow", "w"]);
    for problem in ["line 2: ", "line 3: C has a $", "line 4: A is on line 1", "3 problems"] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    let ini = world.file("bad.ini", "[a\naws_access_key_id = c4n4ry\n");
    assert!(world.refused(&["aws-profile", &ini]).contains("bad.ini: line 1: "));
    let yaml = world.file("bad.yaml", "apiVersion: v1\nkind: Secret\ndata:\n  a: c4n4ry!\n");
    assert!(world.refused(&["kubernetes-secret", &yaml]).contains("line 4: a is not Base64"));
    let cut = world.file("bad.json", "{\"data\": {\"a\": \"c4n4ry\",\n");
    assert!(world.refused(&["vault-kv-json", &cut, "--workflow", "w"]).contains("line "));
    let relay = world.file("relay.yaml", "connections:\n  aws/a:\n    key: [c4n4ry]\n");
    assert!(world.refused(&["relay", &relay]).contains(":3:"));
    let listed = world.serving.run(&["secret", "list", "--workflow", "w", "-o", "name"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), "");
}

#[test]
fn an_unclear_import_asks_and_never_guesses() {
    let world = World::start();
    let unknown = world.refused(&["nonsense", "x"]);
    for format in
        ["relay", "env", "aws-profile", "docker-config", "kubernetes-secret", "vault-kv-json"]
    {
        assert!(unknown.contains(format), "{format}: {unknown}");
    }
    let both = world.file(
        "both.env",
        "CLOUDFLARE_API_TOKEN=c4n4ry\nCLOUDFLARE_EMAIL=a@b.example\nCLOUDFLARE_API_KEY=c4n4ry\n",
    );
    let said = world.refused(&["env", &both, "--name", "main"]);
    assert!(said.contains("cloudflare/api_token, cloudflare/global_api_key"), "{said}");
    let chosen = ["--integration", "cloudflare", "--kind", "api_token"];
    let (answer, talk) = world.imported(&[&["env", &both, "--name", "main"], &chosen[..]].concat());
    assert_eq!(answer, "connections/cloudflare/main created\n");
    assert!(talk.contains("CLOUDFLARE_EMAIL"), "{talk}");
    let said = world.refused(&["env", &both, "--integration", "cloudflare", "--kind", "api_token"]);
    assert!(said.contains("--name NAME"), "{said}");
    let two = world.file("two.env", "CLOUDFLARE_API_TOKEN=c4n4ry\n");
    let said = world.refused(&[
        "env", &both, &two, "--name", "main", chosen[0], chosen[1], chosen[2], chosen[3],
    ]);
    assert!(said.contains("connections/cloudflare/main would come from"), "{said}");
    assert!(world.refused(&["relay", &both, "--only", "x"]).contains("--only is for --from"));
}

#[test]
fn a_prefix_chooses_the_variables_of_one_connection() {
    let world = World::start();
    let file = world.file("app.env", "DB_HOST=db.example\nDB_USER=u\nDB_PASSWORD=c4n4ry\nX=1\n");
    let into = ["--prefix", "DB_", "--integration", "mysql", "--name", "main"];
    let (answer, talk) = world.imported(&[&["env", &file], &into[..]].concat());
    assert_eq!(answer, "connections/mysql/main created\n");
    assert!(talk.contains("1 variable(s): not named DB_"), "{talk}");
    assert_eq!(world.fields("mysql/main")["password"], "c4n4ry");
}

#[test]
fn a_file_of_more_than_64_mib_is_refused() {
    let world = World::start();
    let path = world.directory.path().join("large");
    std::fs::File::create(&path).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    let said = world.refused(&["env", path.to_str().unwrap()]);
    assert!(said.contains("more than 64 MiB"), "{said}");
}
