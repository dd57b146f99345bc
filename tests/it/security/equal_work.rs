//! The amount of work reveals no more than the answer does.

use std::sync::Arc;

use allocation_counter::measure;
use keyhatch::access::{Principal, Role};
use keyhatch::broker::{
    Broker, BrokerParts, ConnectionDocument, Error, Patch, ResolveRequest, Room, RuntimeDir,
    StepRequest, StepSession, WriteOptions,
};
use keyhatch::catalog::Registered;
use keyhatch::config::Config;
use keyhatch::daemon::init;
use keyhatch::model::{
    Clock, ExecutorName, Id, Limits, OperatorName, RunName, StepName, Timestamp, Value,
    WorkflowName,
};
use keyhatch::sys::Trust;

use crate::harness::{START, init_options, open_state, temp_dir};

/// The registration of an operator or executor.
fn uid_of(broker: &Broker, who: &Registered) -> Id {
    let anybody = OperatorName::parse("admin").unwrap();
    let anybody = Principal::Operator(anybody, Role::Viewer, Id::from_bytes([0; 16]));
    broker.registration(&anybody, who).unwrap().uid
}

struct Endless;

impl Room for Endless {
    fn take(&mut self, _bytes: usize) -> bool {
        true
    }
}

fn step_request() -> StepRequest {
    StepRequest {
        workflow: WorkflowName::parse("deploy").unwrap(),
        run: RunName::parse("1").unwrap(),
        step: StepName::parse("build").unwrap(),
        attempt: None,
        run_as: [].into(),
        uid: None,
        gid: None,
        any_uid: false,
        ttl: None,
        heartbeat: None,
        allowed_targets: vec![],
        named: None,
        mount_path: "host".to_owned(),
    }
}

/// A broker without its sockets, and an open step.
struct Bare {
    broker: Broker,
    session: Arc<StepSession>,
    _directory: tempfile::TempDir,
}

impl Bare {
    /// `broker` runs for as long as the runtime that this is called on.
    async fn start() -> Self {
        let directory = temp_dir();
        let limits = Limits { step_refusal_burst: 1000, ..Limits::default() };
        let state = directory.path().join("state");
        let run = directory.path().join("run");
        let config = Config { limits, ..Config::in_directories(state, run) };
        let clock = Clock::hand_set(Timestamp::from_millis(*START));
        let made = init_options(&config, &clock);
        // init makes its own runtime.
        tokio::task::spawn_blocking(move || init(&made).unwrap()).await.unwrap();
        let state = open_state(&config.state);
        let keys = state.keys(None);
        let keyring = keys.unlock(None).unwrap().keyring().unwrap();
        let authority = state.authority(&keyring).unwrap();
        let (listeners, mut opened) = tokio::sync::mpsc::unbounded_channel();
        let parts = BrokerParts {
            journal: &config.state.join("journal"),
            store: &config.state.join("store"),
            keyring,
            keys,
            authority: authority.into(),
            certificate_end: tokio::sync::watch::channel(clock.now()).1,
            clock,
            limits: config.limits,
            journal_mode: config.journal,
            expect_head: None,
            sealed_files: vec![],
            runtime: RuntimeDir::open(&config.runtime, &Trust::of_process(&[])).unwrap(),
            listeners,
        };
        let (broker, writer) = Broker::start(parts).await.unwrap();
        tokio::spawn(writer);
        let name = ExecutorName::parse("local").unwrap();
        let executor = Registered::Executor(name.clone());
        let executor = Principal::Executor(name, uid_of(&broker, &executor));
        broker.open_step(&executor, 0, step_request()).await.unwrap();
        Self { broker, session: opened.recv().await.unwrap().session, _directory: directory }
    }

    async fn create(&self, name: &str, resolver: &str) {
        let operator = OperatorName::parse("admin").unwrap();
        let fields = [("api_token".to_owned(), Value::new(b"t".to_vec()))];
        let resolvers = [resolver.parse().unwrap()].into();
        let document = ConnectionDocument {
            fields: Patch::Merge(fields.into()),
            access: Patch::Merge([(keyhatch::access::Relation::Resolver, resolvers)].into()),
            ..ConnectionDocument::new(name.parse().unwrap())
        };
        let uid = uid_of(&self.broker, &Registered::Operator(operator.clone()));
        let caller = Principal::Operator(operator, Role::Administrator, uid);
        let made = self.broker.create_connection(caller, document, WriteOptions::default()).await;
        made.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The heap blocks and bytes of a resolve on this thread.
    fn cost(&self, reference: &str) -> (u64, u64) {
        let request = ResolveRequest {
            target: reference.parse().unwrap(),
            fields: vec!["api_token".to_owned()],
            ttl: None,
        };
        let mut outcome = None;
        let used = measure(|| {
            outcome = Some(self.broker.resolve(&self.session, &request, &mut Endless));
        });
        match outcome.unwrap() {
            Ok(_) | Err(Error::Denied { .. }) => (used.count_total, used.bytes_total),
            Err(error) => panic!("{reference}: {error}"),
        }
    }
}

/// A missing connection and a forbidden one get the same message (see `resolve`) and cost the same work. A clock is too
/// coarse to show this. The number of heap blocks is exact.
#[test]
fn a_missing_connection_costs_the_same_as_a_forbidden_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bare = Bare::start().await;
        bare.create("slack/mine", "workflow:deploy").await;
        bare.create("slack/hers", "workflow:other").await;
        // The first requests grow the buffers and the line numbers.
        for _ in 0..100 {
            bare.cost("slack/hers");
            bare.cost("slack/none");
        }
        let costs = |reference: &str| (0..50).map(|_| bare.cost(reference)).collect::<Vec<_>>();
        let forbidden = costs("slack/hers");
        assert_eq!(costs("slack/none"), forbidden);
        // The control: a permitted resolve costs more.
        assert!(bare.cost("slack/mine").0 > forbidden[0].0);
    });
}
