//! Steps that use psql as they always do.

use std::process::Command;

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;

use super::{is_dead, open, with};
use crate::harness::{
    Postgres, TestBroker, TestStep, allowing, bytes, keyhatch, path_with_binary, reason, request,
    resolve_on, succeeded, wait_until,
};

/// A broker with the connection postgres/orders, which steps of workflow w may resolve.
pub struct World {
    pub broker: TestBroker,
    pub postgres: Postgres,
}

impl World {
    pub fn start() -> Option<Self> {
        let postgres = Postgres::start()?;
        let mut broker = TestBroker::start();
        broker.config.egress = allowing(&["127.0.0.1"]);
        broker.restart();
        let world = Self { broker, postgres };
        world.create("orders", &[]);
        Some(world)
    }

    fn create(&self, name: &str, changes: &[(&'static str, &str)]) {
        let fields = with(&self.postgres, changes);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reference = format!("postgres/{name}");
        self.broker.create_connection(&reference, &fields, &["workflow:w"]).unwrap();
    }

    /// psql in a step.
    pub fn psql(&self, step: &TestStep) -> Command {
        let mut exec = keyhatch(&["exec", "--env", "postgres/orders", "--"]);
        exec.arg(self.postgres.psql_path()).args(["-X", "-q", "-A", "-t"]);
        exec.envs(&step.opened.env).env("PATH", path_with_binary());
        exec
    }
}

#[test]
fn psql_works_in_a_step_as_a_role_of_its_own() {
    let Some(world) = World::start() else { return };
    let who = |step: &TestStep| {
        let asked = "INSERT INTO notes VALUES ('x') RETURNING session_user, current_database()";
        succeeded(&world.psql(step).args(["-c", asked]).output().unwrap()).trim().to_owned()
    };
    let (one, other) = (world.broker.open("w", "one"), world.broker.open("w", "other"));
    let first = who(&one);
    assert!(first.starts_with("kh_") && first.ends_with("_one|orders"), "{first}");
    assert_eq!(who(&one), first, "the step's processes share its role");
    assert!(who(&other).ends_with("_other|orders"));
    assert_eq!(world.postgres.roles().len(), 2);
    let minted = world.broker.journaled("minted");
    let handles: Vec<_> = minted.iter().map(|line| line["handle"].as_str().unwrap()).collect();
    assert!(handles.contains(&first.split('|').next().unwrap()), "{handles:?}");
    let got = world.broker.resolve(&one, "postgres/orders").unwrap();
    let names: Vec<_> = got.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["ca_certificate", "database", "host", "password", "port", "user"]);
    assert_eq!(
        reason(world.broker.resolve(&one, "postgres/orders#admin_password")),
        "FIELD_UNKNOWN"
    );
}

#[test]
fn a_step_is_told_the_reason_when_the_server_refuses() {
    let Some(world) = World::start() else { return };
    world.create("wrong", &[("admin_password", "not-the-password")]);
    let step = world.broker.open("w", "s");
    assert_eq!(reason(world.broker.resolve(&step, "postgres/wrong")), "UPSTREAM_REFUSED");
    let failed = world.broker.journaled("mint_failed").pop().unwrap().to_string();
    assert!(failed.contains("28P01") && failed.contains("write the valid password"), "{failed}");
    assert!(!failed.contains("not-the-password"));
}

#[test]
fn an_open_psql_is_dead_when_its_step_is_closed() {
    let Some(world) = World::start() else { return };
    let (step, other) = (world.broker.open("w", "s"), world.broker.open("w", "other"));
    let login = world.broker.resolve(&step, "postgres/orders").unwrap().fields;
    // In a transaction, and, before PostgreSQL 16, as another role.
    let sessions = ["BEGIN; INSERT INTO notes VALUES ('x')", "SET ROLE writers"];
    let sessions = sessions.map(|first| open(world.psql(&step), first));
    let neighbour = open(world.psql(&other), "SELECT");
    let closed = world.broker.close(&step);
    assert!(closed.pending_endings.is_empty(), "{closed:?}");
    assert_eq!(world.postgres.roles().len(), 1, "the neighbour's");
    assert!(sessions.into_iter().all(is_dead));
    assert_eq!(world.postgres.ask_in("orders", "SELECT count(*) FROM notes"), "0");
    let mut again = Command::new(world.postgres.psql_path());
    again.args(["-X", "-w", "-h", "127.0.0.1", "-d", "orders", "-c", "SELECT"]);
    again.args(["-p", &login["port"], "-U", &login["user"]]).env("PGPASSWORD", &login["password"]);
    assert!(!again.output().unwrap().status.success(), "no new login");
    assert!(!is_dead(neighbour), "no other step's session has ended");
    assert_eq!(world.broker.journaled("ended_upstream").len(), 1);
}

#[test]
fn a_step_that_leaves_objects_leaves_a_disabled_role() {
    let Some(world) = World::start() else { return };
    let step = world.broker.open("w", "s");
    succeeded(&world.psql(&step).args(["-c", "CREATE TABLE kept (x int)"]).output().unwrap());
    world.broker.close(&step);
    let left = world.broker.journaled("left_disabled").pop().unwrap().to_string();
    assert!(left.contains("has rights on: 1 in orders"), "{left}");
    let mut client = SystemServiceClient::new(world.broker.operator());
    let listed = client.list_endings(pb::ListEndingsRequest::default());
    let listed = world.broker.block_on(listed).unwrap().into_inner().endings;
    assert_eq!(vec![listed[0].handle.clone()], world.postgres.roles());
    let role = "SELECT rolcanlogin FROM pg_roles WHERE rolname LIKE 'kh%'";
    assert_eq!(world.postgres.ask(role), "f");
}

#[test]
fn roles_end_when_a_server_that_was_away_is_back() {
    let Some(mut world) = World::start() else { return };
    let step = world.broker.open("w", "s");
    world.broker.resolve(&step, "postgres/orders").unwrap();
    world.postgres.stop();
    let closed = world.broker.close(&step);
    assert_eq!(closed.pending_endings.len(), 1, "{closed:?}");
    world.broker.delete_connection("postgres/orders").unwrap();
    world.broker.restart();
    world.postgres.serve();
    wait_until("the role has ended", || {
        world.broker.advance(1);
        world.postgres.roles().is_empty()
    });
}

#[test]
fn a_role_ends_by_the_password_that_came_after_the_kept() {
    let Some(world) = World::start() else { return };
    let step = world.broker.open("w", "s");
    world.broker.resolve(&step, "postgres/orders").unwrap();
    world.postgres.ask("ALTER ROLE keyhatch PASSWORD 'another-password'");
    let closed = world.broker.close(&step);
    assert_eq!(closed.pending_endings.len(), 1, "{closed:?}");
    assert_eq!(closed.pending_endings[0].reason, "UPSTREAM_REFUSED");
    let fields = [("admin_password", "another-password")];
    let connection = pb::Connection {
        name: "connections/postgres/orders".to_owned(),
        fields: bytes(&fields),
        ..Default::default()
    };
    let paths = vec!["fields.admin_password".to_owned()];
    let request = pb::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    };
    let mut client = ConnectionServiceClient::new(world.broker.operator());
    world.broker.block_on(client.update_connection(request)).unwrap();
    wait_until("the role has ended", || {
        world.broker.advance(1);
        world.postgres.roles().is_empty()
    });
}

#[test]
fn a_daemon_that_is_gone_meanwhile_leaves_no_role() {
    let Some(mut world) = World::start() else { return };
    // The server holds the statement, so that the daemon stops while the role is made.
    let holding = "BEGIN; LOCK TABLE pg_authid IN SHARE MODE";
    let mut psql = Command::new(world.postgres.psql_path());
    psql.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-d", "orders", "-p"]);
    psql.arg(world.postgres.port.to_string()).arg("-h").arg(world.postgres.socket());
    let mut held = open(psql, holding);
    let step = world.broker.open("w", "s");
    let asked = resolve_on(step.channel, request("postgres/orders"));
    let pending = world.broker.spawn(asked);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'keyhatch' AND wait_event_type = 'Lock'";
    wait_until("the role is being made", || world.postgres.ask(waiting) == "1");
    world.broker.stop();
    assert!(world.broker.block_on(pending).unwrap().is_err());
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    world.broker.serve();
    wait_until("no role is left", || world.postgres.roles().is_empty());
}
