//! Roles that are made, and servers that refuse.

use keyhatch::mint::FailureReason;

use super::{Made, Pairs, ask, try_make, try_make_by, with};
use crate::harness::{ADMIN_PASSWORD, HttpServer, Postgres};

/// The failure of a mint, for operators.
#[track_caller]
fn refused(fields: &Pairs, reason: FailureReason, words: &[&str]) {
    let failure = try_make(fields, &ask("build", 1)).err().unwrap();
    assert_eq!(failure.reason, reason, "{failure:?}");
    for word in words {
        assert!(failure.detail.contains(word), "{word}: {}", failure.detail);
    }
    assert!(!failure.is_uncertain && !failure.detail.contains(ADMIN_PASSWORD), "{failure:?}");
}

#[test]
fn a_role_logs_in_and_may_do_what_its_roles_may() {
    let Some(postgres) = Postgres::start() else { return };
    let fields = with(&postgres, &[("connection_limit", "2"), ("mint_seconds", "600")]);
    let (one, other) = (Made::of(&fields, &ask("build", 1)), Made::of(&fields, &ask("test", 2)));
    assert_eq!(postgres.roles(), ["kh_010000000000_build", "kh_020000000000_test"]);
    for made in [&one, &other] {
        let inserted = "INSERT INTO notes VALUES ('x'); SELECT count(*) > 0 FROM notes";
        assert_eq!(made.psql(&postgres, inserted).unwrap(), "t");
        let refused = made.psql(&postgres, "DELETE FROM notes").unwrap_err();
        assert!(refused.contains("permission denied"), "{refused}");
    }
    let wrong = Made { password: other.password.clone(), ..one };
    assert!(
        wrong.psql(&postgres, "SELECT").unwrap_err().contains("password authentication failed")
    );
    let told = postgres.ask(
        "SELECT rolconnlimit, extract(epoch FROM rolvaliduntil - now()) BETWEEN 500 AND 610, \
         shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname LIKE 'kh%build'",
    );
    assert_eq!(
        told,
        "2|t|keyhatch: step build of run 42 of workflow deploy; mint 01000000000000000000000000000000"
    );
    let log = postgres.log();
    assert!(log.contains("CREATE ROLE \"kh_010000000000_build\""), "statements are logged");
    for canary in [ADMIN_PASSWORD, &wrong.password, &other.password] {
        assert!(!log.contains(canary), "{canary}");
    }
}

#[test]
fn a_name_full_of_quotes_is_only_a_name() {
    let Some(postgres) = Postgres::start() else { return };
    let (role, quoted) = ("a\"; DROP TABLE notes; --'\\", "\"a\"\"; DROP TABLE notes; --'\\\"");
    let database = "it's \"mine\"";
    postgres.ask(&format!("CREATE ROLE {quoted}; GRANT {quoted} TO keyhatch WITH ADMIN OPTION"));
    postgres.ask(&format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\"")));
    let roles = format!("{role},writers");
    let fields = with(&postgres, &[("roles", &roles), ("database", database)]);
    let made = Made::of(&fields, &ask("build", 1));
    let member = postgres.ask("SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = member WHERE rolname LIKE 'kh%'");
    assert_eq!(member, "2");
    assert!(matches!(made.end(), keyhatch::mint::End::Ended));
    assert_eq!(postgres.ask_in("orders", "SELECT count(*) FROM notes"), "0");
}

#[test]
fn a_server_that_refuses_is_told_by_reason_and_next_step() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.ask("CREATE ROLE plain LOGIN PASSWORD 'plain-password'");
    let plain = [("admin_user", "plain"), ("admin_password", "plain-password")];
    for (changes, word) in [
        (&[("admin_password", "not-the-password")][..], "28P01"),
        (&[("admin_user", "nobody-knows")], "28P01"),
        (&plain, "has no CREATEROLE"),
        (&[("database", "nothing")], "3D000"),
        (&[("roles", "writers,no_such_role")], "42704"),
    ] {
        refused(&with(&postgres, changes), FailureReason::Refused, &[word, "127.0.0.1"]);
    }
    assert_eq!(postgres.roles(), [""; 0], "nothing stays of a role that was refused");
}

#[test]
fn no_password_is_sent_to_a_server_that_is_not_proven() {
    let Some(postgres) = Postgres::start_with(&["db.example"]) else { return };
    let fields = with(&postgres, &[]);
    refused(&fields, FailureReason::Unavailable, &["for another host"]);
    refused(
        &with(&postgres, &[("ca_certificate", "")]),
        FailureReason::Unavailable,
        &["no trusted issuer", "ca_certificate"],
    );
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = other.cert.pem();
    for sslmode in ["verify-full", "verify-ca"] {
        let changes = [("ca_certificate", other.as_str()), ("sslmode", sslmode)];
        refused(&with(&postgres, &changes), FailureReason::Unavailable, &["no trusted issuer"]);
    }
    let log = postgres.log();
    assert!(!log.contains("user=keyhatch"), "{log}");
    let made = Made::of(&with(&postgres, &[("sslmode", "verify-ca")]), &ask("build", 1));
    assert_eq!(made.psql(&postgres, "SELECT 1").unwrap(), "1");
}

#[test]
fn a_server_without_tls_is_used_only_where_a_rule_names_it() {
    let Some(postgres) = Postgres::start_with(&[]) else { return };
    let fields = with(&postgres, &[]);
    refused(&fields, FailureReason::Refused, &["has no TLS", "sslmode disable", "egress.allow"]);
    let fields = with(&postgres, &[("sslmode", "disable"), ("ca_certificate", "")]);
    refused(&fields, FailureReason::EgressDenied, &["http://HOST:PORT"]);
    let rule = format!("http://127.0.0.1:{}", postgres.port);
    assert!(try_make_by(&rule, &fields, &ask("build", 1)).is_ok());
    assert_eq!(postgres.roles().len(), 1);
}

#[test]
fn a_server_that_is_no_server_makes_nothing() {
    let Some(mut postgres) = Postgres::start() else { return };
    let fields = with(&postgres, &[]);
    postgres.stop();
    refused(&fields, FailureReason::Unavailable, &["127.0.0.1"]);
    let web = HttpServer::start(|_| (200, Vec::new(), b"canary".to_vec()));
    let port = web.port.to_string();
    let failure = try_make(&with(&postgres, &[("port", &port)]), &ask("build", 1)).err().unwrap();
    assert!(!failure.detail.contains("canary") && !failure.is_uncertain, "{failure:?}");
}
