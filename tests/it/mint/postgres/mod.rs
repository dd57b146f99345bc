//! Roles of a real PostgreSQL server, from their creation to their end.

mod endings;
mod listing;
mod login;
mod making;
mod relay;
mod restored;
mod steps;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use keyhatch::egress::Egress;
use keyhatch::identity::{Issuer, IssuerKeys};
use keyhatch::integration::Source;
use keyhatch::mint::{self, Ask, End, Failure, Minted, Upstreams};
use keyhatch::model::{
    Clock, FieldName, Fields, Id, RunName, StepName, TrustDomain, Value, WorkflowName,
};

use crate::harness::{Postgres, allowing, block_on, text};

/// Fields of a connection, by name.
type Pairs = Vec<(&'static str, String)>;

/// The server's fields, some of them replaced. An empty value removes a field.
fn with(postgres: &Postgres, changes: &[(&'static str, &str)]) -> Pairs {
    let mut fields = postgres.fields();
    for (name, value) in changes {
        fields.retain(|(field, _)| field != name);
        fields.push((name, (*value).to_owned()));
    }
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

fn to_fields(pairs: &Pairs) -> Fields {
    let named = pairs.iter().map(|(name, value)| {
        (FieldName::parse(name).unwrap(), Value::new(value.clone().into_bytes()))
    });
    named.collect()
}

/// A request of step NAME for the nth mint.
fn ask(step: &str, n: u8) -> Ask {
    let mut mint = [0; Id::BYTES];
    mint[0] = n;
    Ask {
        mint: Id::from_bytes(mint),
        workflow: WorkflowName::parse("deploy").unwrap(),
        run: Some(RunName::parse("42").unwrap()),
        step: Some(StepName::parse(step).unwrap()),
        subject: None,
        now: Clock::system().now(),
    }
}

fn egress(allow: &str) -> Egress {
    Egress::new(allowing(&[allow]))
}

fn try_make(fields: &Pairs, ask: &Ask) -> Result<Minted, Failure> {
    try_make_by("127.0.0.1", fields, ask)
}

/// Makes a role where this entry of `egress.allow` lets the broker connect.
fn try_make_by(allow: &str, fields: &Pairs, ask: &Ask) -> Result<Minted, Failure> {
    let keys = IssuerKeys::create(ask.now).unwrap();
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let issuer = Issuer::new(None, domain, keys).into();
    let upstreams = Upstreams { egress: egress(allow), issuer };
    block_on(mint::mint(&upstreams, Source::Postgres, &to_fields(fields), ask)).made
}

/// A role that was made, with what ends it.
struct Made {
    user: String,
    password: String,
    ending: Fields,
}

impl Made {
    fn of(fields: &Pairs, ask: &Ask) -> Self {
        let ending = mint::ending_ahead(Source::Postgres, &to_fields(fields), ask);
        let ending = ending.unwrap().unwrap();
        let made = try_make(fields, ask).unwrap_or_else(|failure| panic!("{failure:?}"));
        let get = |name: &str| {
            let (_, value) = made.fields.iter().find(|(field, _)| field.as_str() == name).unwrap();
            text(value.expose())
        };
        let user = get("user");
        assert_eq!(made.handle.as_ref(), Some(&user));
        Self { user, password: get("password"), ending }
    }

    fn try_end(&self) -> Result<End, Failure> {
        block_on(mint::end(&egress("127.0.0.1"), Source::Postgres, &self.ending))
    }

    fn end(&self) -> End {
        self.try_end().unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// psql with this login.
    fn psql(&self, postgres: &Postgres, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(postgres.psql_path());
        psql.args(["-X", "-w", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql.args(["-h", "127.0.0.1", "-p", &postgres.port.to_string(), "-d", "orders"]);
        psql.args(["-U", &self.user]).env("PGPASSWORD", &self.password);
        let ran = psql.env("PGSSLMODE", "require").output().unwrap();
        match ran.status.success() {
            true => Ok(text(&ran.stdout).trim().to_owned()),
            false => Err(text(&ran.stderr)),
        }
    }
}

/// Starts psql, which stays open, and waits until it has answered.
fn open(mut psql: Command, first: &str) -> Child {
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = psql.spawn().unwrap();
    writeln!(psql.stdin.as_mut().unwrap(), "{first}; SELECT 'ready';").unwrap();
    let mut lines = BufReader::new(psql.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "psql has not answered");
    psql
}

/// True if the session takes no statement any more.
fn is_dead(mut session: Child) -> bool {
    let _ = writeln!(session.stdin.as_mut().unwrap(), "INSERT INTO notes VALUES ('too late');");
    drop(session.stdin.take());
    let ended = session.wait_with_output().unwrap();
    !ended.status.success() && text(&ended.stderr).contains("terminating connection")
}
