//! A journal, and a model of what it must know.

mod levers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::Value;

use crate::integration::Source;
use crate::journal::*;
use crate::lease::{Ask, LeaseTarget, MintedCredential, Terms, TtlLimit};
use crate::model::limits::MAX_STEP_ENDINGS;
use crate::model::{RunName, StepKey, StepOwner, TrustDomain, WorkflowName};
use crate::seal::{KeyStore, NewKek, RecordKey, RecordKind};
use crate::sys::{Directory, Trust};

pub(super) const STEPS: usize = 2;

fn start() -> Timestamp {
    Timestamp::from_seconds(1_795_298_123)
}

/// The mints whose last byte is even have something in the store that ends them.
fn is_kept(mint: Id) -> bool {
    mint.as_bytes()[Id::BYTES - 1].is_multiple_of(2)
}

static KEYS: LazyLock<(Arc<Keyring>, Arc<Authority>)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let home = Directory::open(directory.path(), &Trust::of_process(&[])).unwrap();
    let keys = KeyStore::new(Arc::new(home), None, Vec::new());
    let keyring = keys.create(&NewKek::File("kek".into()), start()).unwrap().0;
    let domain = TrustDomain::parse(TrustDomain::DEFAULT).unwrap();
    let serials = [1, 2, 3].map(|byte| Id::from_bytes([byte; Id::BYTES]));
    (Arc::new(keyring), Arc::new(Authority::create(domain, serials, start()).unwrap()))
});

/// How an ending comes to its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Ended,
    Left,
    Disabled,
}

/// A lease that awaits a credential.
#[derive(Clone)]
struct Awaited {
    opening: Arc<LiveOpening>,
    decision: DecisionId,
    lease: Id,
}

pub(super) struct World {
    directory: tempfile::TempDir,
    journal: Option<Journal>,
    pub(super) now: Timestamp,
    ids: u8,
    steps: [Option<Arc<LiveOpening>>; STEPS],
    awaited: Vec<Awaited>,
    /// The mints that are under way, with their steps.
    flying: Vec<(Id, Arc<LiveOpening>)>,
    /// The credentials that are in memory.
    made: Vec<(Arc<MintedCredential>, Arc<LiveOpening>)>,
    /// The model: what is owed an ending, and whether that has begun.
    owed: BTreeMap<Id, bool>,
    /// The model: the openings of the credentials that outlive them, and when these end.
    outliving: Vec<(Id, Timestamp)>,
    /// How many lines of endings were written.
    pub(super) lines: usize,
    /// The publication that decisions are made on.
    pub(super) epoch: Epoch,
    /// The model: what is blocked.
    blocked: BTreeSet<String>,
    /// The model: the openings that operators have closed.
    ended: BTreeSet<Id>,
}

fn picked<T>(from: &[T], nth: usize) -> Option<usize> {
    (!from.is_empty()).then(|| nth % from.len())
}

impl World {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Journal::create(&directory.path().join("journal"), &KEYS.0, start()).unwrap();
        let mut world = Self {
            directory,
            journal: None,
            now: start(),
            ids: 0,
            steps: [const { None }; STEPS],
            awaited: Vec::new(),
            flying: Vec::new(),
            made: Vec::new(),
            owed: BTreeMap::new(),
            outliving: Vec::new(),
            lines: 0,
            epoch: Epoch::default(),
            blocked: BTreeSet::new(),
            ended: BTreeSet::new(),
        };
        world.open_journal();
        world
    }

    fn open_journal(&mut self) {
        let (keyring, authority) = KEYS.clone();
        let path = self.directory.path().join("journal");
        let options = Options { file_bytes: 1 };
        self.journal = Some(Journal::open(&path, keyring, authority, options, self.now).unwrap().0);
    }

    pub(super) fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    /// Everything that is live, in an order.
    fn state(&self) -> Value {
        // No line says that a lease has expired.
        self.journal().expire(self.now);
        let checkpoint = self.journal().with_live(|live| live.checkpoint(1)).unwrap();
        let mut state = serde_json::to_value(checkpoint).unwrap();
        for list in state.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
            list.sort_by_key(ToString::to_string);
        }
        state
    }

    pub(super) fn open(&mut self, nth: usize) {
        if self.steps[nth].is_some() {
            return;
        }
        self.ids += 1;
        let opening = opening(nth, self.ids, self.now);
        let opened = self.journal().open_step::<Unavailable>(self.now, opening, |_| Ok(()));
        self.steps[nth] = Some(opened.unwrap());
    }

    fn decide(
        &self,
        opening: &Arc<LiveOpening>,
        made: Option<Arc<MintedCredential>>,
    ) -> Result<Committed, CommitError> {
        let expire_time = self.now.after(Duration::from_secs(900));
        let target = LeaseTarget::Connection("aws/a".parse().unwrap());
        let allowed = Allowed {
            by: "resolver workflow:w".to_owned(),
            record: root(),
            resource: None,
            version: 1,
            fields: Vec::new(),
            terms: Terms { expire_time, limited_by: TtlLimit::None },
            max_leases: 100,
            upstream: Some(Upstream { source: Source::AwsSts, credential: made }),
        };
        let resolution = Resolution {
            epoch: self.epoch,
            time: self.now,
            opening: Arc::clone(opening),
            ask: Ask { target, fields: Vec::new(), ttl_millis: None, action: None },
            watch: None,
            outcome: Ok(allowed),
        };
        self.journal().commit(self.now, resolution)
    }

    /// Publishes a batch. Returns the error of a decision of step 0 on a snapshot before all batches.
    pub(super) fn publish(&self, number: u64, is_apart: bool) -> Option<CommitError> {
        let batch = StoredBatch { number, recovered: false, is_apart };
        self.journal().publish(self.now, batch, None, |_| Vec::new(), |_| {}).unwrap();
        let heads = self.journal().with_live(Live::heads).unwrap();
        assert_eq!(heads.head, number);
        self.decide(self.steps[0].as_ref().unwrap(), None).err()
    }

    pub(super) fn step(&self, nth: usize) -> Arc<LiveOpening> {
        Arc::clone(self.steps[nth].as_ref().unwrap())
    }

    pub(super) fn ask(&mut self, nth: usize) {
        let Some(opening) = self.steps[nth].clone() else { return };
        let committed = self.decide(&opening, None).unwrap();
        let lease = committed.granted.unwrap().lease.id;
        self.awaited.push(Awaited { opening, decision: committed.decision_id, lease });
    }

    pub(super) fn mint(&mut self, nth: usize) {
        let Some(nth) = picked(&self.awaited, nth) else { return };
        let Awaited { opening, decision, lease } = self.awaited[nth].clone();
        let request = MintRequest {
            epoch: self.epoch,
            opening: &opening,
            decision,
            lease,
            source: Source::AwsSts,
            resource: "connections/aws/a".to_owned(),
            record: root(),
            version: 1,
        };
        match self.journal().begin_mint(self.now, request) {
            Ok((mint, _permit)) => self.flying.push((mint, opening)),
            Err(CommitError::TooManyEndings(_)) => assert!(self.owed.len() >= MAX_STEP_ENDINGS),
            Err(error) => assert_eq!(error, CommitError::LeaseEnded),
        }
    }

    pub(super) fn make(&mut self, nth: usize, is_own: bool, life: u16) {
        let Some(nth) = picked(&self.flying, nth) else { return };
        let (mint, opening) = self.flying.remove(nth);
        let made = Made {
            handle: Some("h".to_owned()),
            credential_expire_time: self.now.after(Duration::from_secs(life.into())),
            is_end_told: life.is_multiple_of(2),
            upstream_request: None,
            is_owed: is_kept(mint),
            is_own,
        };
        let end = made.credential_expire_time;
        let made = self.journal().minted(self.now, mint, made).unwrap();
        if made.outlives && !opening.is_closed() {
            self.outliving.push((opening.record().id, end));
        }
        self.made.push((made, opening));
        self.owe(mint);
    }

    pub(super) fn fail(&mut self, nth: usize) {
        let Some(nth) = picked(&self.flying, nth) else { return };
        let (mint, _) = self.flying.remove(nth);
        let fault = MintFault::interrupted();
        self.journal().mint_failed(self.now, mint, fault, is_kept(mint)).unwrap();
        self.owe(mint);
    }

    fn owe(&mut self, mint: Id) {
        if is_kept(mint) {
            self.owed.insert(mint, false);
        }
    }

    /// Whether a credential may be handed out. Its ending may be over.
    fn may_use(&self, made: &MintedCredential) -> bool {
        !made.owed || self.owed.get(&made.mint) == Some(&false)
    }

    fn is_ending(&self, mint: Id) -> bool {
        self.owed.get(&mint) == Some(&true)
    }

    pub(super) fn hand_out(&mut self, lease: usize, credential: usize) {
        let (Some(lease), Some(nth)) =
            (picked(&self.awaited, lease), picked(&self.made, credential))
        else {
            return;
        };
        let Awaited { opening, decision, lease } = self.awaited.remove(lease);
        let (made, _) = &self.made[nth];
        let waiter = Waiter {
            epoch: self.epoch,
            opening: &opening,
            decision,
            lease,
            source: Source::AwsSts,
            resource: "connections/aws/a".to_owned(),
        };
        match self.journal().hand_out(self.now, waiter, made) {
            Ok((_permit, lease)) => {
                assert!(self.may_use(made), "nobody gets it any more");
                assert!(lease.expire_time <= made.credential_expire_time);
            }
            Err(CommitError::CredentialEnding) => assert!(!self.may_use(made)),
            Err(CommitError::Closed) => assert!(opening.is_closed()),
            Err(error) => assert_eq!(error, CommitError::LeaseEnded),
        }
    }

    pub(super) fn reuse(&mut self, nth: usize) {
        let Some(nth) = picked(&self.made, nth) else { return };
        let (made, opening) = self.made[nth].clone();
        match self.decide(&opening, Some(Arc::clone(&made))) {
            Ok(_) => assert!(self.may_use(&made), "nobody gets it any more"),
            Err(CommitError::Closed) => assert!(opening.is_closed()),
            Err(error) => {
                assert_eq!(error, CommitError::CredentialEnding);
                assert!(!self.may_use(&made));
            }
        }
    }

    pub(super) fn revoke(&mut self, nth: usize) {
        let Some(nth) = picked(&self.awaited, nth) else { return };
        let Awaited { opening, lease, .. } = self.awaited.remove(nth);
        self.journal().revoke(self.now, opening.record().id, lease).unwrap();
    }

    fn nth_owed(&self, nth: usize) -> Option<Id> {
        let owed: Vec<Id> = self.owed.keys().copied().collect();
        picked(&owed, nth).map(|nth| owed[nth])
    }

    pub(super) fn begin(&mut self, nth: usize, standing: Standing) {
        let Some(mint) = self.nth_owed(nth) else { return };
        let request = EndingRequest { epoch: self.epoch, mint, standing };
        let begun = self.journal().begin_ending(self.now, &request).unwrap();
        let is_new = !self.is_ending(mint);
        if begun.is_some() {
            assert!(is_new, "an ending begins once");
            self.owed.insert(mint, true);
            self.lines += 1;
        } else if is_new {
            assert_eq!(standing, Standing::Same);
            let is_in_use = self.journal().with_live(|live| {
                let owed = live.mints().owed().find(mint).unwrap();
                !live.leases().of_opening(owed.minting.opening).is_empty()
            });
            assert!(is_in_use.unwrap(), "only what is in use is not ended");
        }
    }

    pub(super) fn end(&mut self, nth: usize, end: End) {
        let Some(mint) = self.nth_owed(nth) else { return };
        let ended = self.journal().end(self.now, mint, |line| match end {
            End::Ended => Event::EndedUpstream(line),
            End::Left => Event::LeftToExpire(line),
            End::Disabled => Event::LeftDisabled(line),
        });
        assert_eq!(ended.unwrap().is_some(), self.is_ending(mint), "what has not begun ends not");
        if self.is_ending(mint) {
            self.lines += 1;
            if !matches!(end, End::Disabled) {
                self.owed.remove(&mint);
            }
        }
    }

    pub(super) fn restart(&mut self) {
        let before = self.state();
        self.journal = None;
        self.open_journal();
        assert_eq!(self.state(), before);
        self.epoch = self.journal().with_live(Live::epoch).unwrap();
        self.journal().interrupt_mints(self.now, is_kept).unwrap();
        let interrupted: Vec<Id> = self.flying.drain(..).map(|(mint, _)| mint).collect();
        interrupted.into_iter().for_each(|mint| self.owe(mint));
        self.awaited.clear();
        self.made.clear();
        let open = |one: &Arc<LiveOpening>| {
            let found = |live: &Live| live.opening(one.record().id).cloned();
            self.journal().with_live(found).unwrap().unwrap()
        };
        let steps = self.steps.each_ref().map(|step| step.as_ref().map(open));
        self.steps = steps;
    }

    pub(super) fn restore(&mut self, restored_as: RestoredAs) {
        let event = Event::Restored { backup_time: self.now };
        self.journal().append(self.now, &event).unwrap();
        self.steps = [const { None }; STEPS];
        self.awaited.clear();
        self.outliving.clear();
        let (now, by) = (self.now, || "operator:admin".to_owned());
        for mint in self.owed.keys() {
            let request =
                EndingRequest { epoch: self.epoch, mint: *mint, standing: Standing::Same };
            let refused = self.journal().begin_ending(now, &request).unwrap_err();
            assert_eq!(refused, CommitError::Quarantined);
            let permit = self.journal().permit_ending(*mint);
            assert_eq!(permit.err(), Some(CommitError::Quarantined));
        }
        if !self.owed.is_empty() {
            let undecided = QuarantineEnd::Undecided(self.owed.len());
            assert_eq!(self.journal().end_quarantine(now, by(), None), Ok(undecided));
        }
        let ended = self.journal().end_quarantine(now, by(), Some(restored_as)).unwrap();
        assert!(matches!(ended, QuarantineEnd::Ended(_)));
        assert_eq!(self.journal().end_quarantine(now, by(), None), Ok(QuarantineEnd::None));
        if restored_as == RestoredAs::Copy {
            self.owed.clear();
        }
    }

    pub(super) fn check(&self) {
        let owed = self.journal().with_live(|live| {
            let owed = live.mints().owed().iter();
            owed.map(|one| (one.mint(), one.begun.is_some())).collect::<BTreeMap<_, _>>()
        });
        assert_eq!(owed.unwrap(), self.owed);
        let known = self.journal().with_live(|live| {
            let blocks = live.blocks().iter().map(|block| block.target.to_string());
            let is_ended = |id: &&Id| live.ended_by_operators().has_opening(EXECUTOR, **id);
            (blocks.collect::<BTreeSet<_>>(), self.ended.iter().filter(is_ended).count())
        });
        assert_eq!(known.unwrap(), (self.blocked.clone(), self.ended.len()));
        assert_eq!(self.journal().with_live(|live| live.mints().owed().are_counted()), Ok(true));
        self.check_due();
        for (mint, is_begun) in &self.owed {
            let permit = self.journal().permit_ending(*mint).unwrap();
            assert_eq!(permit.is_some(), *is_begun);
            assert_eq!(self.journal().unneeded([*mint].into_iter()), Ok(Vec::new()));
        }
    }

    /// The lines of endings that the run's own lines contain.
    pub(super) fn told(&self) -> usize {
        let (run, workflow) = (RunName::parse("1").unwrap(), WorkflowName::parse("w").unwrap());
        let which = WhichRuns { run: &run, workflow: Some(&workflow), executor: None };
        let mut told = 0;
        let told_of = self.journal().run_lines::<ReadError>(which, &|| false, |body| {
            let is_one = matches!(
                body.event,
                Event::Ending(_)
                    | Event::EndedUpstream(_)
                    | Event::LeftDisabled(_)
                    | Event::LeftToExpire(_)
            );
            told += usize::from(is_one);
            Ok(())
        });
        told_of.unwrap();
        told
    }
}

/// The registration of the executor.
const EXECUTOR: Id = Id::from_bytes([201; Id::BYTES]);

/// The record that every credential is made from.
pub(super) fn root() -> RecordKey {
    RecordKey { kind: RecordKind::ConnectionValues, uid: Id::from_bytes([200; Id::BYTES]) }
}

fn opening(step: usize, id: u8, now: Timestamp) -> Opening {
    let key = StepKey {
        executor: "local".parse().unwrap(),
        executor_uid: EXECUTOR,
        workflow: "w".parse().unwrap(),
        run: "1".parse().unwrap(),
        step: format!("s{step}").parse().unwrap(),
    };
    let owner = StepOwner { uid: 1, gid: None, is_uid_checked: true, is_for_anybody: false };
    Opening {
        id: Id::from_bytes([id; Id::BYTES]),
        key,
        attempt: 1,
        run_as: [].into(),
        owner,
        heartbeat_seconds: None,
        allowed_targets: Vec::new(),
        request: None,
        open_time: now,
        expire_time: now.after(Duration::from_secs(1_000_000)),
        public_key: Vec::new(),
        certificates: Vec::new(),
        mount_path: "host".to_owned(),
    }
}
