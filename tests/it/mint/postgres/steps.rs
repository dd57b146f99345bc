//! Steps that use psql as they always do.

use std::process::Command;

use super::with;
use crate::harness::{
    Postgres, TestBroker, TestStep, allowing, keyhatch, path_with_binary, reason, succeeded,
};

/// A broker with the connection postgres/orders, which steps of workflow w may resolve.
struct World {
    broker: TestBroker,
    postgres: Postgres,
}

impl World {
    fn start() -> Option<Self> {
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
    fn psql(&self, step: &TestStep) -> Command {
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
