//! A broker in this process, without sockets: for promises that no client can see, such as the work of one call.

use std::sync::Arc;

use keyhatch::access::{Principal, Role};
use keyhatch::broker::{
    Broker, BrokerParts, ConnectionDocument, Patch, Room, RuntimeDir, StepRequest, StepSession,
    WriteOptions,
};
use keyhatch::catalog::Registered;
use keyhatch::config::Config;
use keyhatch::daemon::init;
use keyhatch::egress::Egress;
use keyhatch::identity::{Issuer, IssuerKeys};
use keyhatch::metrics::Metrics;
use keyhatch::mint::Upstreams;
use keyhatch::model::{
    Clock, ExecutorName, Id, Limits, OperatorName, RunName, StepName, Timestamp, Value,
    WorkflowName,
};
use keyhatch::sys::Trust;

use super::{START, init_options, open_state, temp_dir};

/// The registration of an operator or executor.
fn uid_of(broker: &Broker, who: &Registered) -> Id {
    let anybody = OperatorName::parse("admin").unwrap();
    let anybody = Principal::Operator(anybody, Role::Viewer, Id::from_bytes([0; 16]));
    broker.registration(&anybody, who).unwrap().uid
}

/// Room for any reply.
pub struct EndlessRoom;

impl Room for EndlessRoom {
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
pub struct BareBroker {
    pub broker: Broker,
    pub session: Arc<StepSession>,
    directory: tempfile::TempDir,
}

impl BareBroker {
    /// `broker` runs for as long as the runtime that this is called on.
    pub async fn start() -> Self {
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
        let issuer_keys = IssuerKeys::create(clock.now()).unwrap();
        let issuer = Issuer::new(None, authority.domain().clone(), issuer_keys);
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
            upstreams: Upstreams { egress: Egress::new(config.egress), issuer: issuer.into() },
            mints: tokio::runtime::Handle::current(),
            mint_metrics: Metrics::new(vec![], vec![], []).mints,
            sends: (tokio::runtime::Handle::current(), Metrics::new(vec![], vec![], []).sends),
            tcp_door: None,
        };
        let (broker, writer) = Broker::start(parts).await.unwrap();
        tokio::spawn(writer);
        let name = ExecutorName::parse("local").unwrap();
        let executor = Registered::Executor(name.clone());
        let executor = Principal::Executor(name, uid_of(&broker, &executor));
        broker.open_step(&executor, 0, step_request()).await.unwrap();
        Self { broker, session: opened.recv().await.unwrap().session, directory }
    }

    /// Creates a connection that this principal may resolve.
    pub async fn create(&self, name: &str, resolver: &str) {
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

    /// The lines of the journal's only file.
    pub fn journal_lines(&self) -> usize {
        let files = std::fs::read_dir(self.directory.path().join("state/journal")).unwrap();
        let journal = files
            .map(|file| file.unwrap().path())
            .find(|path| path.extension().is_some_and(|end| end == "jsonl"));
        std::fs::read_to_string(journal.unwrap()).unwrap().lines().count()
    }
}
