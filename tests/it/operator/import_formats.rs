//! `import` reads each format as its own readers do. It refuses lines that those readers read differently.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::operator::importing::World;

const KEY: &str = "aws_access_key_id = AKIAc4n4ry\naws_secret_access_key = c4n4ry";

fn docker_secret(name: &str, config: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData: {{.dockerconfigjson: '{config}'}}\n---\n"
    )
}

fn vault(data: &str) -> String {
    format!("{{\"data\": {{\"data\": {data}, \"metadata\": {{\"version\": 3}}}}}}")
}

#[test]
fn a_second_import_plans_removals_and_access() {
    let world = World::start();
    let first = format!("[p]\n{KEY}\naws_session_token = c4n4ry\nregion = eu-west-1\n");
    world.imported(&["aws-profile", &world.file("first", &first)]);
    let second = world.file("second", &format!("[p]\n{}\n", KEY.replace("AKIA", "AKIB")));
    let (_, plan) = world.imported_by(&["aws-profile", &second], &["--resolver", "workflow:other"]);
    for said in [
        "  - fields.session_token: (removed)",
        "    stays: region",
        "  - access.resolver: workflow:w",
        "  + access.resolver: workflow:other",
    ] {
        assert!(plan.contains(said), "{said}: {plan}");
    }
    let (_, plan) = world.imported(&["aws-profile", &second]);
    assert!(plan.contains("  - access.resolver: workflow:other"), "{plan}");
    let got = world.fields("aws/p");
    assert_eq!((&got["session_token"], &got["region"]), (&json!(null), &json!("eu-west-1")));
}

#[test]
fn a_repeated_key_in_aws_files_is_refused_with_its_line() {
    let world = World::start();
    for (text, said) in [
        (
            format!("[p]\n{KEY}\naws_access_key_id = AKIAOTHER\n"),
            "line 4: this setting is on line 2",
        ),
        (
            format!("[p]\n{KEY}\nAWS_ACCESS_KEY_ID = AKIAOTHER\n"),
            "line 4: this setting is on line 2",
        ),
        (format!("[p]\n{KEY}\n[x]\n[p]\nregion = y\n"), "line 5: [p] is on line 1"),
        (
            format!("[default]\n{KEY}\n[profile default]\nregion = y\n"),
            "line 4: profile default is on line 1",
        ),
    ] {
        let file = world.file("twice", &text);
        let refused = world.refused(&["aws-profile", &file]);
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let one = world.file("one", &format!("[p]\n{KEY}\n"));
    let other = world.file("other", &format!("[profile p]\n{KEY}x\n"));
    assert!(world.refused(&["aws-profile", &one, &other]).contains("two keys"));
    // The same key in both files is one key.
    let (answer, _) = world.imported(&[
        "aws-profile",
        &one,
        &world.file("same", &format!("[profile p]\n{KEY}\n")),
    ]);
    assert_eq!(answer, "connections/aws/p created\n");
}

#[test]
fn aws_names_are_read_as_aws_tools_read_them() {
    let world = World::start();
    let text = format!(
        "\u{feff}# mine\r\n[profile 'My Tenant.Admin'] ; one\r\n{0}\r\n[profile \"Two Words\"]\r\n\
         Aws_Access_Key_Id: AKIAc4n4ry\r\n  ; a comment\r\nAWS_SECRET_ACCESS_KEY=c4n4ry=\r\n[profile My:Account/x]\r\n{0}\r\n",
        KEY.replace('\n', "\r\n")
    );
    let file = world.file("config", &text);
    let (_, answer, talk) = world.import(&["aws-profile", &file, "--dry-run", "-o", "name"]);
    assert_eq!(answer, "connections/aws/My Tenant.Admin\nconnections/aws/Two Words\n", "{talk}");
    assert!(talk.contains("--name 'My:Account/x=NEW'"), "{talk}");
    let only = ["aws-profile", &file, "--profile", "My:Account/x"];
    let (answer, _) = world.imported(&[&only[..], &["--name", "one"]].concat());
    assert_eq!(answer, "connections/aws/one created\n");
    let names = ["--name", "My:Account/x=two", "--name", "Two Words=three"];
    let (answer, _) = world.imported(&[&["aws-profile", &file], &names[..]].concat());
    let expected = "connections/aws/My Tenant.Admin created\nconnections/aws/two created\nconnections/aws/three created\n";
    assert_eq!(answer, expected);
    assert_eq!(world.fields("aws/three")["secret_access_key"], "c4n4ry=");
    let refused = world.refused(&["aws-profile", &file, "--name", "all"]);
    assert!(refused.contains("--name all would name 3 connections"), "{refused}");
    let refused = world.refused(&["aws-profile", &file, "--name", "absent=x"]);
    assert!(refused.contains("nothing is called absent"), "{refused}");
}

#[test]
fn a_dotenv_file_of_another_system_is_read_or_refused_by_line() {
    let world = World::start();
    let of_windows =
        world.file("w.env", "\u{feff}MULTI=\"c4n4ry\r\nl2\"\r\nSINGLE='a\r\nb'\r\nX=c4n4ry\r\n");
    world.imported(&["env", &of_windows, "--workflow", "w"]);
    assert_eq!(world.secret("MULTI"), "c4n4ry\nl2");
    assert_eq!((world.secret("SINGLE"), world.secret("X")), (json!("a\nb"), json!("c4n4ry")));
    for (text, said) in [
        ("A=c4n4ry\rB=c4n4ry\r", "line 1: there is a carriage return"),
        ("A=1\nB=c4n4ry\0x\n", "line 2: there is a zero byte"),
        ("A=`c4n4ry`\n", "line 1: the value is in backticks"),
        ("A=\"\"\"\nc4n4ry\n\"\"\"\nB=`x`\n", "line 1: the value is in three quotes"),
        ("A=\"c4n4ry\\tx\"\n", "line 1: there is a backslash in double quotes"),
        ("A-B=c4n4ry\n", "line 1: the name before ="),
    ] {
        let file = world.file("odd.env", text);
        let refused = world.refused(&["env", &file, "--workflow", "w"]);
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let wide = world.file("wide.env", "");
    std::fs::write(&wide, [0xff, 0xfe, b'A', 0, b'=', 0, b'1', 0]).unwrap();
    assert!(world.refused(&["env", &wide, "--workflow", "w"]).contains("this is UTF-16"));
}

#[test]
fn a_dotenv_value_that_readers_disagree_on_is_refused() {
    let world = World::start();
    for value in ["c4n4ry#b", "~/c4n4ry", "c4n4ry;b", "  c4n4ry", "\"c4n4ry\\\"\"", "\"c4n4ry\\$\""]
    {
        let file = world.file("differs.env", &format!("A=1\nB={value}\n"));
        let refused = world.refused(&["env", &file, "--workflow", "w"]);
        assert!(refused.contains("line 2: "), "{value}: {refused}");
    }
}

#[test]
fn a_repeated_key_in_json_is_refused_with_its_line() {
    let world = World::start();
    let login = r#"{"username":"u","password":"c4n4ry"}"#;
    let auths = format!("{{\"auths\": {{\"r.example\": {login},\n\"r.example\": {login}}}}}");
    let file = world.file("config.json", &auths);
    let refused = world.refused(&["docker-config", &file]);
    assert!(refused.contains("line 2: r.example is there twice"), "{refused}");
    let twice = "{\"a\": \"c4n4ry\",\n \"a\": \"c4n4ry-2\"}";
    for answer in [format!("\n{}", vault(twice)), format!("{{\n\"data\": {twice}}}")] {
        let file = world.file("answer", &answer);
        let refused = world.refused(&["vault-kv-json", &file, "--workflow", "w"]);
        assert!(refused.contains("line 3: a is there twice"), "{refused}");
    }
}

#[test]
fn a_registrys_login_is_the_one_that_docker_takes() {
    let world = World::start();
    let auth = STANDARD.encode("new:c4n4ry-new");
    let both = format!(
        r#"{{"auths":{{"r.example":{{"username":"old","password":"c4n4ry-old","auth":"{auth}"}}}}}}"#
    );
    let helpers = docker_secret("q", r#"{"credHelpers":{"x.example":"ecr-login"}}"#);
    let broken = docker_secret(
        "b",
        r#"{"auths":{"r.example":{"username":"u","password":"c4n4ry","auth":"!"}}}"#,
    );
    let file = world.file("secrets", &(helpers + &broken + &docker_secret("r", &both)));
    let (answer, talk) = world.imported(&["kubernetes-secret", &file]);
    assert_eq!(answer, "connections/docker-registry/r created\n");
    assert!(talk.contains("it has no auths") && talk.contains("its auth is not"), "{talk}");
    let got = world.fields("docker-registry/r");
    assert_eq!((&got["username"], &got["password"]), (&json!("new"), &json!("c4n4ry-new")));
    let own = world.file("config.json", &both);
    let (answer, _) = world.imported(&["docker-config", &own]);
    assert_eq!(answer, "connections/docker-registry/r.example created\n");
    let (answer, _) = world.imported(&["docker-config", &own, "--name", "hub"]);
    assert_eq!(answer, "connections/docker-registry/hub created\n");
}

#[test]
fn each_login_of_a_registry_is_a_connection_of_its_own() {
    let world = World::start();
    let login = r#"{"username":"u","password":"c4n4ry"}"#;
    let auths =
        ["r.example/team-a", "r.example/team-b", "https://index.docker.io/v1/", "*.example.com"];
    let auths: Vec<_> = auths.iter().map(|server| format!("\"{server}\":{login}")).collect();
    let config = format!("{{\"auths\":{{{}}}}}", auths.join(","));
    let file = world.file("s", &docker_secret("r", &config));
    let (answer, talk) = world.imported(&["kubernetes-secret", &file]);
    let of = |name: &str| format!("connections/docker-registry/{name} created\n");
    assert_eq!(
        answer,
        of("r-index.docker.io") + &of("r-r.example-team-a") + &of("r-r.example-team-b")
    );
    assert!(talk.contains("*.example.com: it is a pattern"), "{talk}");
    let own = world.file("config.json", &config);
    let name = ["--only", "r.example/team-b", "--name", "r.example/team-b=b"];
    let (answer, _) = world.imported(&[&["docker-config", &own], &name[..]].concat());
    assert_eq!(answer, of("b"));
    assert_eq!(world.fields("docker-registry/b")["server"], "r.example/team-b");
}

#[test]
fn the_same_key_of_two_secrets_gets_two_names() {
    let world = World::start();
    let secret = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{same: c4n4ry-{name}}}\n---\n"
        )
    };
    let file = world.file("dump", &(secret("a") + &secret("b")));
    let from = ["kubernetes-secret", &file, "--workflow", "w"];
    let refused = world.refused(&from);
    assert!(refused.contains("--name 'b/same=NEW'") && refused.contains("--only"), "{refused}");
    let (answer, _) = world.imported(&[&from[..], &["--name", "b/same=other"]].concat());
    assert_eq!(answer, "workflows/w/secrets/same created\nworkflows/w/secrets/other created\n");
    assert_eq!(
        (world.secret("same"), world.secret("other")),
        (json!("c4n4ry-a"), json!("c4n4ry-b"))
    );
    world.imported(&[&from[..], &["--only", "b"]].concat());
    assert_eq!(world.secret("same"), "c4n4ry-b");
    let refused = world.refused(&[&from[..], &["--only", "c"]].concat());
    assert!(refused.contains("there is no Secret c"), "{refused}");
}

#[test]
fn an_answer_of_vault_is_taken_by_what_people_call_a_key() {
    let world = World::start();
    let into = ["--integration", "aws", "--name"];
    let import = |text: String, name: &str| {
        let file = world.file("answer", &text);
        world.imported(&[&["vault-kv-json", &file], &into[..], &[name]].concat())
    };
    let named = r#"{"aws_access_key_id": "AKIAc4n4ry", "Secret-Access-Key": "c4n4ry", "session_token": null}"#;
    let (answer, talk) = import(vault(named), "a");
    assert_eq!(answer, "connections/aws/a created\n");
    assert!(talk.contains("skipped") && talk.contains("session_token: it is null"), "{talk}");
    assert_eq!(world.fields("aws/a")["secret_access_key"], "c4n4ry");
    let alike = r#"{"AccessKeyId": "AKIAc4n4ry", "ACCESS-KEY-ID": "c4n4ry", "secret_access_key": "c4n4ry"}"#;
    let file = world.file("alike", &vault(alike));
    let refused = world.refused(&[&["vault-kv-json", &file], &into[..], &["b"]].concat());
    assert!(refused.contains("are both access_key_id"), "{refused}");
    let numbers = vault(
        r#"{"huge": 12345678901234567890123, "half": 1.50, "meta": {"owner": "x"}, "z": "c4n4ry"}"#,
    );
    let file = world.file("numbers", &format!("\u{feff}{numbers}"));
    let (answer, talk) = world.imported(&["vault-kv-json", &file, "--workflow", "w"]);
    assert_eq!(answer, "workflows/w/secrets/huge created\nworkflows/w/secrets/z created\n");
    assert!(
        talk.contains("meta: it is an object") && talk.contains("half: it is a number with"),
        "{talk}"
    );
    assert_eq!(world.secret("huge"), "12345678901234567890123");
}
