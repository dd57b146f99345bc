//! Steps, their executor, an operator and the clock act in any order, and a small model predicts each outcome.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use keyhatch::egress::EgressTable;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use keyhatch::grpc::pb::step_service_client::StepServiceClient;
use keyhatch::grpc::pb::system_service_client::SystemServiceClient;
use keyhatch::model::Limits;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    TestBroker, TestStep, bound, bytes, connection_document, open_request, request, resolver,
};
use crate::mint::upstream::{Scripted, token};

const ROUNDS: u64 = 20;
const OPERATIONS: u64 = 5_000;
const STEPS: usize = 6;
const MOST_LEASES: usize = 5;
const DEFAULT_TTL: i64 = 3_600_000;
const SERVER_MAXIMUM: i64 = 7_200_000;
/// The maximum of each connection. The second has no maximum. The last is minted.
const MAXIMA: [Option<i64>; 4] = [Some(1_800_000), None, Some(5_400_000), None];
const MINTED: usize = 3;
/// How long what is minted lasts, in seconds: longer than the clock moves while the upstream answers.
const MINTED_LIFE: i64 = 40_000;
/// The requested lengths, in seconds.
const TTLS: [Option<i64>; 4] = [None, Some(60), Some(2_000), Some(100_000)];
const STEP_TTLS: [i64; 3] = [600, 3_600, 21_600];

/// xorshift64*: the same seed gives the same story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())]
    }
}

#[derive(Clone, Debug, PartialEq)]
struct ModelLease {
    connection: usize,
    ttl: Option<i64>,
    version: i64,
    issued: i64,
    until: i64,
    limit: pb::TtlLimit,
    /// The number of the minted credential, and its end.
    minted: Option<(usize, i64)>,
}

struct ModelStep {
    step: TestStep,
    until: i64,
    leases: BTreeMap<String, ModelLease>,
    /// The newest lease of each request.
    latest: HashMap<(usize, Option<i64>), String>,
}

#[derive(Clone, Copy)]
struct ModelConnection {
    version: i64,
    is_allowed: bool,
}

/// The broker and its model.
struct World {
    broker: TestBroker,
    executor: Channel,
    operator: Channel,
    now: i64,
    connections: [ModelConnection; MAXIMA.len()],
    steps: [Option<ModelStep>; STEPS],
    attempts: [i32; STEPS],
    dice: Dice,
    upstream: Scripted,
    /// The ends of the minted credentials that were seen.
    ends: HashMap<usize, i64>,
    /// What was minted up to here is forgotten: the broker was restarted, or the root changed.
    forgotten: usize,
}

impl ModelLease {
    fn told(
        (connection, ttl): (usize, Option<i64>),
        version: i64,
        lease: &pb::Lease,
        minted: Option<(usize, i64)>,
    ) -> Self {
        let [issued, until] = [lease.issue_time, lease.expire_time].map(millis);
        Self { connection, ttl, version, issued, until, limit: lease.ttl_limited_by(), minted }
    }
}

impl ModelStep {
    /// The last lease of an ask, within two thirds of its life.
    fn fresh(&self, ask: (usize, Option<i64>), now: i64) -> Option<(String, ModelLease)> {
        let name = self.latest.get(&ask)?;
        let lease = &self.leases[name];
        let is_fresh = now < lease.issued + (lease.until - lease.issued) * 2 / 3;
        is_fresh.then(|| (name.clone(), lease.clone()))
    }

    fn remove(&mut self, name: &str) -> Option<ModelLease> {
        let lease = self.leases.remove(name)?;
        let ask = (lease.connection, lease.ttl);
        if self.latest.get(&ask).is_some_and(|latest| latest == name) {
            self.latest.remove(&ask);
        }
        Some(lease)
    }

    fn remove_where(&mut self, is_over: impl Fn(&ModelLease) -> bool) {
        let all = self.leases.iter().filter(|(_, lease)| is_over(lease));
        let over: Vec<String> = all.map(|(name, _)| name.clone()).collect();
        for name in over {
            self.remove(&name);
        }
    }
}

/// The earliest end and its reason. The first of equals counts.
fn least(ends: &[(i64, pb::TtlLimit)]) -> (i64, pb::TtlLimit) {
    *ends.iter().min_by_key(|(end, _)| *end).unwrap()
}

/// The end of a lease from now, and its reason. A later bound counts only if it is earlier.
fn terms(
    now: i64,
    connection: usize,
    ttl: Option<i64>,
    end: i64,
    minted: Option<(usize, i64)>,
) -> (i64, pb::TtlLimit) {
    least(&[
        (now + ttl.map_or(DEFAULT_TTL, |ttl| ttl * 1000), pb::TtlLimit::None),
        (now + MAXIMA[connection].unwrap_or(i64::MAX / 2), pb::TtlLimit::Connection),
        (now + SERVER_MAXIMUM, pb::TtlLimit::Server),
        (end, pb::TtlLimit::Step),
        (minted.map_or(i64::MAX, |(_, end)| end), pb::TtlLimit::Upstream),
    ])
}

fn name(connection: usize) -> String {
    let integration = if connection == MINTED { "oauth2" } else { "aws" };
    format!("{integration}/c{connection}")
}

fn field(connection: usize) -> &'static str {
    if connection == MINTED { "access_token" } else { "secret_access_key" }
}

/// The number of the minted credential in an answer, and its end.
fn minted_in(answer: &pb::ResolveResponse, connection: usize) -> Option<(usize, i64)> {
    let end = answer.lease.as_ref().unwrap().credential_expire_time;
    assert_eq!(end.is_some(), connection == MINTED);
    let token = std::str::from_utf8(&answer.fields[field(connection)]).unwrap();
    let number = token.strip_prefix("minted-").and_then(|number| number.parse().ok());
    Some((number?, millis(end)))
}

fn millis(time: Option<prost_types::Timestamp>) -> i64 {
    let time = time.unwrap();
    time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
}

fn seconds(ttl: Option<i64>) -> Option<prost_types::Duration> {
    ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 })
}

/// The reason of a refusal. Empty if the call succeeded.
fn word<T>(outcome: &Result<T, Status>) -> String {
    match outcome {
        Ok(_) => String::new(),
        Err(status) => match status.get_error_details().error_info() {
            Some(info) => info.reason.clone(),
            None => format!("{:?}: {}", status.code(), status.message()),
        },
    }
}

fn limits() -> Limits {
    let many = 1_000_000;
    Limits {
        step_requests_per_second: many,
        step_request_burst: many,
        step_refusals_per_second: many,
        step_refusal_burst: many,
        executor_refusal_burst: many,
        executor_open_burst: many,
        executor_decision_burst: many,
        admin_request_burst: many,
        step_live_leases: u32::try_from(MOST_LEASES).unwrap(),
        max_lease_seconds: 7_200,
        ..Limits::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let upstream = Scripted::start();
        upstream.answers(|n| token(n, MINTED_LIFE.unsigned_abs()));
        let mut broker = TestBroker::start_with(limits());
        let egress = EgressTable { allow: vec![upstream.url("")], ..EgressTable::default() };
        broker.config.egress = egress.rules().unwrap_or_else(|error| panic!("{error}"));
        broker.restart();
        let operator = broker.operator();
        let url = upstream.url("/token");
        for (number, most) in MAXIMA.iter().enumerate() {
            let fields: &[_] = match number {
                MINTED => &[("token_url", &*url), ("client_id", "me"), ("client_secret", "v1")],
                _ => &[("access_key_id", "A"), ("secret_access_key", "v1")],
            };
            let connection = pb::Connection {
                name: format!("connections/{}", name(number)),
                fields: bytes(fields),
                access: resolver(&["workflow:w"]),
                max_ttl: seconds(most.map(|millis| millis / 1000)),
                ..Default::default()
            };
            let connection = Some(connection);
            let request = pb::CreateConnectionRequest { connection, ..Default::default() };
            let mut client = ConnectionServiceClient::new(operator.clone());
            broker.block_on(client.create_connection(request)).unwrap();
        }
        Self {
            executor: broker.executor(),
            operator,
            now: broker.clock.now().millis(),
            connections: [ModelConnection { version: 1, is_allowed: true }; MAXIMA.len()],
            steps: std::array::from_fn(|_| None),
            attempts: [0; STEPS],
            upstream,
            ends: HashMap::new(),
            forgotten: 0,
            // Small seeds would give similar first numbers.
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            broker,
        }
    }

    fn act(&mut self) {
        match self.dice.roll(1000) {
            0..420 => self.resolve(),
            420..600 => self.renew(),
            600..700 => self.revoke(),
            700..820 => self.advance(),
            820..880 => self.open(),
            880..920 => self.close(),
            920..925 => self.close_run(),
            925..945 => self.rotate(),
            945..965 => self.change_access(),
            965..985 => self.reach_for_anothers_lease(),
            985..998 => self.look(),
            _ => self.restart(),
        }
    }

    /// Calls as a step. It connects again if the old connection has just ended, as clients do.
    fn as_step<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &self,
        number: usize,
        call: impl Fn(StepServiceClient<Channel>) -> F,
    ) -> Result<T, Status> {
        let step = self.steps[number].as_ref().unwrap();
        let mut outcome = Err(Status::new(Code::Unavailable, "not called"));
        for _ in 0..3 {
            let client = StepServiceClient::new(step.step.channel.clone());
            outcome = self.broker.block_on(call(client)).map(tonic::Response::into_inner);
            if outcome
                .as_ref()
                .err()
                .is_none_or(|status| status.get_error_details().error_info().is_some())
            {
                break;
            }
        }
        outcome
    }

    fn open_step(&mut self) -> Option<usize> {
        let number = self.dice.roll(STEPS);
        self.steps[number].is_some().then_some(number)
    }

    fn resolve(&mut self) {
        let Some(number) = self.open_step() else { return };
        let connection = self.dice.roll(MAXIMA.len());
        let ttl = self.dice.one_of(&TTLS);
        let asked = request(&format!("{}#{}", name(connection), field(connection)));
        let asked = pb::ResolveRequest { ttl: seconds(ttl), ..asked };
        let outcome = self.as_step(number, |mut client| {
            let asked = asked.clone();
            async move { client.resolve(asked).await }
        });
        let now = self.now;
        let ModelConnection { version, is_allowed } = self.connections[connection];
        let step = self.steps[number].as_mut().unwrap();
        if !is_allowed {
            return assert_eq!(word(&outcome), "RESOLVE_DENIED");
        }
        let told = outcome.as_ref().ok().and_then(|answer| minted_in(answer, connection));
        let (until, limit) = terms(now, connection, ttl, step.until, told);
        let again = step.fresh((connection, ttl), now).filter(|(_, lease)| {
            // A refusal does not tell which credential there is.
            let is_on = outcome.is_err() || lease.minted == told;
            lease.version == version && lease.until <= until && is_on
        });
        let is_refused = again.is_none() || (connection == MINTED && outcome.is_err());
        if step.leases.len() >= MOST_LEASES && is_refused {
            return assert_eq!(word(&outcome), "TOO_MANY_LEASES");
        }
        let answer = outcome.unwrap();
        assert_eq!(answer.version, version);
        let lease = answer.lease.unwrap();
        match told {
            None => assert_eq!(answer.fields[field(connection)], format!("v{version}").as_bytes()),
            Some((number, end)) => {
                assert!(self.forgotten < number && now < end && end <= now + MINTED_LIFE * 1000);
                assert_eq!(*self.ends.entry(number).or_insert(end), end);
            }
        }
        let told = ModelLease::told((connection, ttl), version, &lease, told);
        match again {
            Some((name, expected)) => assert_eq!((lease.name, told), (name, expected)),
            None => {
                assert_eq!((told.issued, told.until, told.limit), (now, until, limit));
                step.latest.insert((connection, ttl), lease.name.clone());
                assert_eq!(step.leases.insert(lease.name, told), None);
            }
        }
    }

    /// A lease of this step, or of another.
    fn lease_of(&mut self, number: usize) -> String {
        let names: Vec<&String> = self.steps[number].as_ref().unwrap().leases.keys().collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        match self.dice.roll(names.len() + 1) {
            0 => format!("leases/{}", "0".repeat(32)),
            found => names[found - 1].clone(),
        }
    }

    fn renew(&mut self) {
        let Some(number) = self.open_step() else { return };
        let (name, ttl) = (self.lease_of(number), self.dice.one_of(&TTLS));
        let asked = pb::RenewLeaseRequest { name: name.clone(), ttl: seconds(ttl) };
        let outcome = self.as_step(number, |mut client| {
            let asked = asked.clone();
            async move { client.renew_lease(asked).await }
        });
        let now = self.now;
        let step = self.steps[number].as_mut().unwrap();
        let Some(lease) = step.leases.get_mut(&name) else {
            return assert_eq!(word(&outcome), "LEASE_NOT_FOUND");
        };
        let connection = self.connections[lease.connection];
        if lease.version != connection.version {
            return assert_eq!(word(&outcome), "VERSION_SUPERSEDED");
        }
        let most = MAXIMA[lease.connection].unwrap_or(i64::MAX / 2);
        let (until, limit) = least(&[
            (now + ttl.map_or(DEFAULT_TTL, |ttl| ttl * 1000), pb::TtlLimit::None),
            (lease.issued + SERVER_MAXIMUM, pb::TtlLimit::Server),
            (step.until, pb::TtlLimit::Step),
            (lease.issued + most, pb::TtlLimit::Connection),
            (lease.minted.map_or(i64::MAX, |(_, end)| end), pb::TtlLimit::Upstream),
        ]);
        if until > lease.until {
            (lease.until, lease.limit) = (until, limit);
        }
        let renewed = outcome.unwrap();
        assert_eq!(
            (millis(renewed.expire_time), renewed.ttl_limited_by()),
            (lease.until, lease.limit)
        );
        let end = (lease.issued + most.min(SERVER_MAXIMUM)).min(step.until);
        let end = lease.minted.map_or(end, |(_, of_credential)| end.min(of_credential));
        assert_eq!(renewed.renewable, lease.until < end);
    }

    fn revoke(&mut self) {
        let Some(number) = self.open_step() else { return };
        let name = self.lease_of(number);
        let outcome = self.give_back(number, &name);
        let is_held = self.steps[number].as_mut().unwrap().remove(&name).is_some();
        assert_eq!(word(&outcome), if is_held { "" } else { "LEASE_NOT_FOUND" });
    }

    fn give_back(&self, number: usize, name: &str) -> Result<(), Status> {
        self.as_step(number, |mut client| {
            let request = pb::RevokeLeaseRequest { name: name.to_owned() };
            async move { client.revoke_lease(request).await }
        })
    }

    fn reach_for_anothers_lease(&mut self) {
        let Some(number) = self.open_step() else { return };
        let Some(other) = self.open_step().filter(|other| *other != number) else { return };
        let name = self.lease_of(other);
        assert_eq!(word(&self.give_back(number, &name)), "LEASE_NOT_FOUND");
    }

    fn advance(&mut self) {
        let by = self.dice.one_of(&[1, 999, 40_000, 600_000, 1_200_000]);
        // Some steps go to the exact moment of an end.
        let ends = self
            .steps
            .iter()
            .flatten()
            .flat_map(|step| step.leases.values().map(|lease| lease.until).chain([step.until]));
        let next = ends.min().map(|end| end - self.now).filter(|left| *left > 0);
        let by = next.filter(|_| self.dice.roll(3) == 0).unwrap_or(by);
        self.broker.clock.advance(Duration::from_millis(by.unsigned_abs()));
        self.now += by;
        for slot in &mut self.steps {
            if slot.as_ref().is_some_and(|step| self.now >= step.until) {
                *slot = None;
            }
            if let Some(step) = slot {
                let now = self.now;
                step.remove_where(|lease| now >= lease.until);
            }
        }
    }

    fn open(&mut self) {
        let number = self.dice.roll(STEPS);
        let ttl = self.dice.one_of(&STEP_TTLS);
        let mut request = open_request("w", &format!("s{number}"));
        request.run = (number % 2).to_string();
        request.ttl = seconds(Some(ttl));
        let mut client = ExecutorServiceClient::new(self.executor.clone());
        let opened = self.broker.block_on(client.open_step(request)).unwrap().into_inner();
        self.attempts[number] += 1;
        assert_eq!(opened.attempt, self.attempts[number]);
        let until = self.now + ttl * 1000;
        assert_eq!(millis(opened.expire_time), until);
        if let Some(older) = self.steps[number].take() {
            self.is_turned_away(&older.step);
        }
        let step = self.broker.become_step(opened);
        let (leases, latest) = (BTreeMap::new(), HashMap::new());
        self.steps[number] = Some(ModelStep { step, until, leases, latest });
    }

    fn is_turned_away(&self, step: &TestStep) {
        let mut client = StepServiceClient::new(step.channel.clone());
        assert!(self.broker.block_on(client.resolve(request("aws/c0"))).is_err());
    }

    fn close(&mut self) {
        let Some(number) = self.open_step() else { return };
        let older = self.steps[number].take().unwrap();
        let name = older.step.opened.name.clone();
        let close = || {
            let request = pb::CloseStepRequest { name: name.clone(), ..Default::default() };
            let mut client = ExecutorServiceClient::new(self.executor.clone());
            self.broker.block_on(client.close_step(request)).unwrap().into_inner()
        };
        let closed = close();
        assert!(closed.closed);
        assert_eq!(closed.revoked_leases, i32::try_from(older.leases.len()).unwrap());
        assert!(!std::path::Path::new(&older.step.opened.directory).exists());
        assert!(!close().closed);
        self.is_turned_away(&older.step);
    }

    fn close_run(&mut self) {
        let run = self.dice.roll(2);
        let request = pb::CloseRunRequest {
            workflow: "w".to_owned(),
            run: run.to_string(),
            ..Default::default()
        };
        let mut client = ExecutorServiceClient::new(self.executor.clone());
        let closed = self.broker.block_on(client.close_run(request)).unwrap().into_inner();
        let mut leases = 0;
        for slot in self.steps.iter_mut().skip(run).step_by(2) {
            leases += slot.take().map_or(0, |step| step.leases.len());
        }
        assert_eq!(closed.revoked_leases, i32::try_from(leases).unwrap());
    }

    fn rotate(&mut self) {
        let connection = self.dice.roll(MAXIMA.len());
        self.connections[connection].version += 1;
        let value = format!("v{}", self.connections[connection].version);
        let field = if connection == MINTED { "client_secret" } else { "secret_access_key" };
        let document = connection_document(&name(connection), &[(field, &*value)], vec![]);
        self.broker.apply(vec![document]).unwrap();
        if connection == MINTED {
            self.forgotten = self.upstream.calls();
        }
    }

    fn change_access(&mut self) {
        let connection = self.dice.roll(MAXIMA.len());
        let is_allowed = !self.connections[connection].is_allowed;
        self.connections[connection].is_allowed = is_allowed;
        let mut access = resolver(&[if is_allowed { "workflow:w" } else { "workflow:other" }]);
        // A user gets no value, and a resolver stays one.
        let users = self.dice.one_of(&[&["workflow:w"][..], &[]]);
        access.push(bound(pb::Relation::User, users));
        let document = connection_document(&name(connection), &[], access);
        self.broker.apply(vec![document]).unwrap();
        for step in self.steps.iter_mut().flatten() {
            step.remove_where(|lease| !is_allowed && lease.connection == connection);
        }
    }

    /// The executor's view of a run equals the leases of its steps.
    fn look(&mut self) {
        let run = self.dice.roll(2);
        let request = pb::GetRunRequest { workflow: "w".to_owned(), run: run.to_string() };
        let mut client = ExecutorServiceClient::new(self.executor.clone());
        let told = self.broker.block_on(client.get_run(request));
        let told = told.map_or_else(|_| Vec::new(), |told| told.into_inner().steps);
        let mut live: Vec<&str> = told
            .iter()
            .flat_map(|step| &step.received)
            .filter(|received| received.state() == pb::LeaseState::Live)
            .map(|received| received.lease.as_str())
            .collect();
        live.sort_unstable();
        let steps = self.steps.iter().skip(run).step_by(2).flatten();
        let mut expected: Vec<&str> =
            steps.flat_map(|step| step.leases.keys()).map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(live, expected);
    }

    /// A restart loses nothing, and no ended lease comes back.
    fn restart(&mut self) {
        self.broker.restart();
        self.forgotten = self.upstream.calls();
        let open = self.steps.iter().flatten();
        let (steps, leases) =
            open.fold((0, 0), |(steps, leases), step| (steps + 1, leases + step.leases.len()));
        let leases = i64::try_from(leases).unwrap();
        let mut client = SystemServiceClient::new(self.operator.clone());
        // The first call finds that the old connection has ended.
        let asked = self.broker.block_on(client.get_status(pb::GetStatusRequest {}));
        let asked =
            asked.or_else(|_| self.broker.block_on(client.get_status(pb::GetStatusRequest {})));
        let status = asked.unwrap().into_inner();
        assert_eq!((status.open_steps, status.live_leases), (steps, leases));
        let mut client = ExecutorServiceClient::new(self.executor.clone());
        let _ = self.broker.block_on(client.list_steps(pb::ListStepsRequest::default()));
        let directories = std::fs::read_dir(self.broker.config.runtime.join("steps")).unwrap();
        assert_eq!(directories.count(), usize::try_from(steps).unwrap());
    }
}

/// The message of a failure has the seed. Set `KEYHATCH_SEED` to repeat the story.
#[test]
fn steps_leases_and_restarts_follow_a_small_model() {
    let given = std::env::var("KEYHATCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = given.unwrap_or_else(|| u64::from(std::process::id()));
    for round in 0..ROUNDS {
        let seed = first + round;
        let mut world = World::new(seed);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..OPERATIONS {
                world.act();
                if number % 1000 == 999 {
                    world.restart();
                }
            }
        }));
        assert!(told.is_ok(), "KEYHATCH_SEED={seed}");
    }
    println!("{} operations, from seed {first}", ROUNDS * OPERATIONS);
}
