//! The two stages of an end: access, then the role.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use keyhatch::mint::{End, FailureReason};

use super::{Made, ask, is_dead, open, with};
use crate::harness::{Postgres, wait_until};

/// A psql of the role that stays open, and has answered once.
fn session(postgres: &Postgres, made: &Made, first: &str) -> Child {
    let mut psql = Command::new(postgres.psql_path());
    psql.args(["-X", "-w", "-q", "-A", "-t", "-h", "127.0.0.1", "-d", "orders", "-p"]);
    psql.arg(postgres.port.to_string()).args(["-U", &made.user]);
    psql.env("PGPASSWORD", &made.password).env("PGSSLMODE", "require");
    open(psql, first)
}

#[test]
fn sessions_end_with_the_role_even_after_set_role() {
    let Some(postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    // From PostgreSQL 16 on, SET ROLE is refused.
    let sessions =
        [session(&postgres, &made, "SELECT"), session(&postgres, &made, "SET ROLE writers")];
    assert!(matches!(made.end(), End::Ended));
    assert_eq!(postgres.roles(), [""; 0]);
    assert!(sessions.into_iter().all(is_dead));
    assert!(made.psql(&postgres, "SELECT").is_err());
    assert_eq!(postgres.ask_in("orders", "SELECT count(*) FROM notes"), "0");
}

#[test]
fn an_ending_may_be_repeated_and_begun_anywhere() {
    let Some(postgres) = Postgres::start() else { return };
    let fields = with(&postgres, &[]);
    let (half, whole) = (Made::of(&fields, &ask("half", 1)), Made::of(&fields, &ask("whole", 2)));
    // As if an earlier try had stopped there.
    postgres.ask(&format!("ALTER ROLE {0} NOLOGIN; GRANT {0} TO keyhatch", half.user));
    postgres.ask(&format!("REVOKE writers FROM {}", half.user));
    for made in [&half, &whole] {
        assert!(matches!(made.end(), End::Ended));
        assert!(matches!(made.end(), End::Ended), "a role that is not there has ended");
    }
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_role_ends_whatever_its_admin_is_granted_with_it() {
    let Some(postgres) = Postgres::start_16() else { return };
    for (n, granted) in [(1, ""), (2, "set"), (3, "inherit"), (4, "set, inherit")] {
        postgres.ask(&format!("ALTER ROLE keyhatch SET createrole_self_grant = '{granted}'"));
        let made = Made::of(&with(&postgres, &[("drop_objects", "true")]), &ask("build", n));
        made.psql(&postgres, "CREATE TABLE kept (x int)").unwrap();
        let open = session(&postgres, &made, "SELECT");
        assert!(matches!(made.end(), End::Ended), "{granted}");
        assert!(is_dead(open));
    }
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_role_that_owns_objects_stays_disabled() {
    let Some(postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    made.psql(&postgres, "CREATE TABLE kept (x int); CREATE TABLE too (x int)").unwrap();
    let open = session(&postgres, &made, "SELECT");
    for _ in 0..2 {
        let End::Disabled(why) = made.end() else { panic!("the role was dropped") };
        assert!(
            why.contains("has rights on: 2 in orders; write reassign_to or drop_objects"),
            "{why}"
        );
    }
    assert!(is_dead(open));
    assert!(made.psql(&postgres, "SELECT").unwrap_err().contains("not permitted to log in"));
    let groups = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = member WHERE rolname LIKE 'kh%'";
    assert_eq!(postgres.ask(groups), "0");
    assert_eq!(postgres.ask_in("orders", "SELECT count(*) FROM kept"), "0");
    // An operator cleans up, and the next try drops the role.
    postgres.ask_in("orders", &format!("DROP OWNED BY {}", made.user));
    assert!(matches!(made.end(), End::Ended));
}

#[test]
fn what_a_role_owns_is_handed_on_or_dropped_if_allowed() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.ask("CREATE ROLE leavings; GRANT leavings TO keyhatch WITH ADMIN OPTION");
    postgres.ask("CREATE DATABASE other");
    for database in ["orders", "other"] {
        postgres.ask_in(database, "GRANT CREATE ON SCHEMA public TO leavings, writers");
    }
    let create = |made: &Made, postgres: &Postgres| {
        made.psql(postgres, &format!("CREATE TABLE of_{} (x int)", made.user)).unwrap();
    };
    let fields = with(&postgres, &[("reassign_to", "leavings")]);
    let handed = Made::of(&fields, &ask("handed", 1));
    create(&handed, &postgres);
    postgres.ask_in(
        "other",
        &format!("CREATE TABLE there (x int); ALTER TABLE there OWNER TO {}", handed.user),
    );
    assert!(matches!(handed.end(), End::Ended));
    let owners =
        "SELECT tableowner FROM pg_tables WHERE tablename = 'there' OR tablename LIKE 'of%'";
    for database in ["orders", "other"] {
        assert_eq!(postgres.ask_in(database, owners), "leavings", "{database}");
    }
    let dropped = Made::of(&with(&postgres, &[("drop_objects", "true")]), &ask("dropped", 2));
    create(&dropped, &postgres);
    assert!(matches!(dropped.end(), End::Ended));
    assert_eq!(
        postgres
            .ask_in("orders", "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'of_kh_02%'"),
        "0"
    );
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_step_cannot_hold_up_its_own_end() {
    let Some(postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    let log = postgres.log();
    let lock = log.split("pg_advisory_xact_lock(").nth(1).unwrap().split(')').next().unwrap();
    let lock = format!("SELECT pg_advisory_lock({lock})");
    let holding = [
        lock.as_str(),
        "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'another'",
        "BEGIN; CREATE TABLE t (x int)",
    ];
    let sessions: Vec<_> = holding.iter().map(|first| session(&postgres, &made, first)).collect();
    assert!(matches!(made.end(), End::Ended));
    assert!(sessions.into_iter().all(is_dead));
    assert_eq!(postgres.roles(), [""; 0]);
}

#[test]
fn a_login_that_the_client_holds_up_ends_with_the_role() {
    let Some(postgres) = Postgres::start() else { return };
    let fields = with(&postgres, &[]);
    let (made, other) = (Made::of(&fields, &ask("build", 1)), Made::of(&fields, &ask("test", 2)));
    let begun = |made: &Made| {
        let mut psql = Command::new(postgres.psql_path());
        psql.args(["-X", "-w", "-h", "127.0.0.1", "-d", "orders", "-c", "TABLE notes", "-p"]);
        psql.arg(postgres.port.to_string()).args(["-U", &made.user]);
        psql.env("PGPASSWORD", &made.password).env("PGOPTIONS", "-c post_auth_delay=600");
        psql.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (ends, mut stays) = (begun(&made), begun(&other));
    // From PostgreSQL 18 on they are listed, but without a role.
    let hidden = "SELECT count(DISTINCT pid) FROM pg_locks WHERE pid NOT IN \
                  (SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL)";
    wait_until("both logins are held up", || {
        postgres.log().matches("connection authorized: user=kh_").count() == 2
            && postgres.ask(hidden) == "2"
    });
    assert!(matches!(made.end(), End::Ended));
    let ended = ends.wait_with_output().unwrap();
    assert!(!ended.status.success(), "{ended:?}");
    assert_eq!(stays.try_wait().unwrap(), None, "the login of another role goes on");
    assert_eq!(postgres.ask(hidden), "1");
    assert!(matches!(other.end(), End::Ended));
    assert!(!stays.wait().unwrap().success());
}

#[test]
fn an_end_that_a_prepared_transaction_holds_says_so() {
    let Some(postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    let prepared = "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; PREPARE TRANSACTION 'held'";
    made.psql(&postgres, prepared).unwrap();
    let failure = made.try_end().err().unwrap();
    assert_eq!(failure.reason, FailureReason::Unavailable);
    assert!(failure.detail.contains("1 prepared transactions of the role"), "{failure:?}");
    postgres.ask_in("orders", "ROLLBACK PREPARED 'held'");
    assert!(matches!(made.end(), End::Ended));
}

#[test]
fn a_role_with_a_membership_is_not_taken_for_disabled() {
    let Some(postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    made.psql(&postgres, "CREATE TABLE kept (x int)").unwrap();
    // A membership that the admin role may not revoke.
    postgres.ask(&format!("CREATE ROLE root SUPERUSER; GRANT root TO {}", made.user));
    let failure = made.try_end().err().unwrap();
    assert!(failure.detail.contains("still a member of 1 roles"), "{failure:?}");
    assert!(failure.detail.contains("42501"), "{failure:?}");
    postgres.ask(&format!("REVOKE root FROM {}", made.user));
    assert!(matches!(made.end(), End::Disabled(_)));
}

#[test]
fn no_role_with_more_rights_gets_what_a_step_has_made() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.ask("CREATE ROLE maker CREATEDB; CREATE ROLE member IN ROLE writers");
    for (n, owner) in [(1, "postgres"), (2, "keyhatch"), (3, "maker"), (4, "member")] {
        let made = Made::of(&with(&postgres, &[("reassign_to", owner)]), &ask("build", n));
        made.psql(&postgres, &format!("CREATE TABLE of_{n} (x int)")).unwrap();
        let End::Disabled(why) = made.end() else { panic!("{owner} owns it") };
        assert!(why.contains("reassign_to must be a role without rights"), "{why}");
    }
    let made = Made::of(&with(&postgres, &[("reassign_to", "no_such_role")]), &ask("build", 9));
    made.psql(&postgres, "CREATE TABLE of_9 (x int)").unwrap();
    let End::Disabled(why) = made.end() else { panic!("the role was dropped") };
    assert!(why.contains("42704"), "{why}");
}

#[test]
fn an_ending_waits_for_a_transaction_that_may_still_make_it() {
    let Some(postgres) = Postgres::start() else { return };
    let fields = with(&postgres, &[]);
    let made = Made::of(&fields, &ask("build", 1));
    assert!(matches!(made.end(), End::Ended));
    // The transaction of a broker that died, as the server sees it: it has the lock, and has not taken effect.
    let log = postgres.log();
    let lock = log.split("pg_advisory_xact_lock(").nth(1).unwrap().split(')').next().unwrap();
    let mut held = Command::new(postgres.psql_path());
    held.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-d", "orders", "-U", "keyhatch", "-p"]);
    held.arg(postgres.port.to_string()).env("PGPASSWORD", crate::harness::ADMIN_PASSWORD);
    let mut held = held.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = held.stdin.take().unwrap();
    writeln!(
        stdin,
        "BEGIN; SELECT pg_advisory_xact_lock({lock}); CREATE ROLE {} LOGIN; SELECT 'held';",
        made.user
    )
    .unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let ended = std::thread::scope(|scope| {
        let ending = scope.spawn(|| made.try_end());
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        wait_until("the ending waits", || postgres.ask_in("orders", waiting) == "1");
        writeln!(stdin, "COMMIT;").unwrap();
        ending.join().unwrap()
    });
    assert!(matches!(ended.unwrap(), End::Ended));
    assert_eq!(postgres.roles(), [""; 0], "the role that came last is gone, too");
    drop(stdin);
    held.wait().unwrap();
}

#[test]
fn an_ending_goes_on_when_the_server_is_back() {
    let Some(mut postgres) = Postgres::start() else { return };
    let made = Made::of(&with(&postgres, &[]), &ask("build", 1));
    postgres.stop();
    let failure = made.try_end().err().unwrap();
    assert_eq!(failure.reason, FailureReason::Unavailable);
    postgres.serve();
    assert!(matches!(made.end(), End::Ended));
    postgres.ask("ALTER ROLE keyhatch PASSWORD 'another-password'");
    let made = made.try_end().err().unwrap();
    assert!(made.detail.contains("28P01"), "{made:?}");
}
