//! The login of the admin role: what a server gets that asks for too much, and who may answer in a server's place.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyhatch::mint::FailureReason;

use super::relay::Relay;
use super::{Made, Pairs, ask, try_make_by, with};
use crate::harness::{ADMIN_PASSWORD, Postgres};

/// Makes a role over a relay that sees all that the broker sends.
fn make_over(
    relay: &Relay,
    postgres: &Postgres,
    changes: &[(&'static str, &str)],
) -> Result<(), String> {
    let port = relay.port.to_string();
    let (mode, allow) = match relay.ca_pem.as_str() {
        "" => ("disable", format!("http://127.0.0.1:{port}")),
        _ => ("verify-full", "127.0.0.1".to_owned()),
    };
    let usual = [("port", port.as_str()), ("ca_certificate", &relay.ca_pem), ("sslmode", mode)];
    let fields: Pairs = with(postgres, &[&usual, changes].concat());
    let made = try_make_by(&allow, &fields, &ask("build", 1));
    made.map(drop).map_err(|failure| {
        assert_eq!(failure.reason, FailureReason::Refused, "{failure:?}");
        assert!(!failure.is_uncertain, "{failure:?}");
        failure.detail
    })
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The part of these messages that comes after the startup message.
fn answers(sent: &[u8]) -> &[u8] {
    let length = u32::from_be_bytes(sent[..4].try_into().unwrap());
    &sent[length as usize..]
}

#[test]
fn no_byte_of_the_password_goes_to_who_asks_for_it() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.ask(&format!(
        "SET password_encryption = md5; ALTER ROLE keyhatch PASSWORD '{ADMIN_PASSWORD}'"
    ));
    let methods = [("password", "in clear text"), ("md5", "an MD5 hash")];
    for (method, words) in methods {
        postgres.asks_for(&format!("host all all all {method}"));
        for hosts in [&[][..], &["127.0.0.1"]] {
            let relay = Relay::start(hosts, &postgres);
            let said = make_over(&relay, &postgres, &[]).unwrap_err();
            assert!(said.contains(words) && said.contains("scram-sha-256"), "{said}");
            assert_eq!(answers(&relay.sent()), b"", "{method}");
        }
    }
    // With a verifier in place of the hash, the method md5 means SCRAM.
    postgres.ask(&format!("ALTER ROLE keyhatch PASSWORD '{ADMIN_PASSWORD}'"));
    let relay = Relay::start(&[], &postgres);
    make_over(&relay, &postgres, &[]).unwrap();
    assert!(has(&relay.sent(), b"SCRAM-SHA-256") && !has(&relay.sent(), ADMIN_PASSWORD.as_bytes()));
}

/// What the server stores in place of the admin password.
fn verifier(postgres: &Postgres) -> String {
    postgres.ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'keyhatch'")
}

#[test]
fn a_server_says_neither_too_few_nor_too_many_rounds() {
    let Some(postgres) = Postgres::start() else { return };
    let stored = verifier(&postgres);
    for rounds in ["1", "4095", "100001", "2147483647"] {
        let odd = stored.replace("$4096:", &format!("${rounds}:"));
        // ALTER ROLE would hash the empty password in as many rounds.
        let replaced =
            format!("UPDATE pg_authid SET rolpassword = '{odd}' WHERE rolname = 'keyhatch'");
        postgres.ask(&replaced);
        let relay = Relay::start(&["127.0.0.1"], &postgres);
        let said = make_over(&relay, &postgres, &[]).unwrap_err();
        assert!(said.contains("scram_iterations"), "{rounds}: {said}");
        assert!(!has(&relay.sent(), b",p="), "no proof is sent");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_makes_no_role() {
    let Some(postgres) = Postgres::start() else { return };
    let stored = verifier(&postgres);
    let (rest, _) = stored.rsplit_once(':').unwrap();
    postgres.ask(&format!("ALTER ROLE keyhatch PASSWORD '{rest}:{}'", STANDARD.encode([7; 32])));
    let relay = Relay::start(&["127.0.0.1"], &postgres);
    let said = make_over(&relay, &postgres, &[]).unwrap_err();
    assert!(said.contains("does not prove that it knows"), "{said}");
    assert!(!has(&relay.sent(), b"CREATE ROLE"));
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_pooler_that_ends_tls_needs_a_verified_name() {
    let Some(postgres) = Postgres::start() else { return };
    let relay = Relay::start(&["127.0.0.1"], &postgres);
    make_over(&relay, &postgres, &[]).unwrap();
    // The broker says that it could have bound the login: a server that had offered it would notice.
    assert!(has(&relay.sent(), b"SCRAM-SHA-256\0") && has(&relay.sent(), b"y,,n=,r="));
    // Another machine with a certificate of the same authority.
    let relay = Relay::start(&["other.example"], &postgres);
    let said = make_over(&relay, &postgres, &[("sslmode", "verify-ca")]).unwrap_err();
    assert!(said.contains("SCRAM-SHA-256-PLUS"), "{said}");
    assert_eq!(answers(&relay.sent()), b"");
    postgres.asks_for("host all all all trust");
    let said = make_over(&relay, &postgres, &[("sslmode", "verify-ca")]).unwrap_err();
    assert!(said.contains("SCRAM-SHA-256-PLUS"), "a server that asks for nothing: {said}");
    assert_eq!(postgres.roles().len(), 1);
}

#[test]
fn a_server_that_asks_for_no_password_is_used() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.asks_for("host all keyhatch all trust\nhost all all all scram-sha-256");
    let made = Made::of(&with(&postgres, &[("admin_password", "another")]), &ask("build", 1));
    assert_eq!(made.psql(&postgres, "SELECT 1").unwrap(), "1");
}

#[test]
fn a_server_without_tls_must_ask_for_the_password() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.asks_for("host all keyhatch all trust");
    let relay = Relay::start(&[], &postgres);
    let said = make_over(&relay, &postgres, &[]).unwrap_err();
    assert!(said.contains("scram-sha-256") && said.contains("proves nothing"), "{said}");
    assert_eq!(answers(&relay.sent()), b"");
    assert_eq!(postgres.roles(), [""; 0]);
    let relay = Relay::start(&["127.0.0.1"], &postgres);
    make_over(&relay, &postgres, &[]).unwrap();
}

#[test]
fn a_login_that_a_machine_passes_on_is_refused_by_the_server() {
    let Some(postgres) = Postgres::start() else { return };
    // It has the server's own certificate, and so all that verify-ca checks: only the binding fails.
    let relay = Relay::start_to_tls(&["127.0.0.1"], &postgres);
    let said = make_over(&relay, &postgres, &[("sslmode", "verify-ca")]).unwrap_err();
    assert!(said.contains("28000"), "{said}");
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_password_of_any_language_logs_in() {
    let Some(postgres) = Postgres::start() else { return };
    // PostgreSQL hashes it with another form of the sign, and without the soft hyphen.
    let password = "\u{2168} p\u{e4}ss\u{ad}w\u{f6}rd";
    postgres.ask(&format!("ALTER ROLE keyhatch PASSWORD '{password}'"));
    Made::of(&with(&postgres, &[("admin_password", password)]), &ask("build", 1));
}
