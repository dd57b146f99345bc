//! One flight: a line, the root, the upstream, a line, a sealed credential.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::back_off::fault_of;
use super::book::Outcome;
use super::credential::{Credential, refresh_time};
use super::failures::{self, uncertain, without_panic};
use super::keeper::Keeper;
use super::key::MintKey;
use super::mint_ends::{MintEnd, MintEnds};
use super::refresh::{RefreshToken, Refresher, open_roots};
use super::turns::Turn;
use crate::access::Purpose;
use crate::broker::changes::writer::WriterParts;
use crate::broker::resolve::authorize::{Grant, Material, authorize_step, is_executors};
use crate::catalog::{Catalog, ConnectionMetadata, InForce, Snapshot, Snapshots, Values};
use crate::integration::{CredentialKind, Source, handed_out, kept};
use crate::journal::{
    CommitError, DecisionId, Journal, LiveOpening, Made, MintFault, MintRequest, TooManyEndings,
};
use crate::metrics::MintMetrics;
use crate::mint::{
    self, Answer, Ask, CredentialEnd, Failure, FailureReason, Minted, TokenSubject, Upstreams,
};
use crate::model::{Clock, FieldName, Fields, Id, Reference, ResourceName, Timestamp};
use crate::seal::{Keyring, RecordKey, RecordKind};

/// What flights work with.
pub(crate) struct FlightParts {
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) journal: Arc<Journal>,
    keyring: Arc<Keyring>,
    keeper: Keeper,
    pub(super) refresher: Refresher,
    pub(super) upstreams: Upstreams,
    pub(super) metrics: Arc<MintMetrics>,
    pub(super) clock: Clock,
    pub(super) ends: MintEnds,
}

/// The decision of a live opening, for which a flight begins.
pub(crate) struct Order {
    pub(crate) key: MintKey,
    /// The connection.
    pub(crate) name: ResourceName,
    pub(crate) source: Source,
    pub(crate) opening: Arc<LiveOpening>,
    /// The target that the step asked for.
    pub(crate) target: Reference,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The line of the decision.
    pub(crate) decision: DecisionId,
    /// The lease of the decision.
    pub(crate) lease: Id,
}

/// Why a flight has no line.
enum NotBegun {
    /// The decision no longer holds: its lease has ended, or the step may no longer have the credential.
    Outdated,
    /// No decision would begin it.
    Ended(Outcome),
}

/// A flight that has its line.
struct Begun {
    mint: Id,
    roots: Fields,
    /// The refresh token among them, if using it may replace it.
    refresh_token: Option<RefreshToken>,
    /// The snapshot that it was decided on last.
    snapshot: Arc<Snapshot>,
    grant: Grant,
}

impl FlightParts {
    pub(crate) fn new(
        parts: &WriterParts,
        keeper: Keeper,
        refresher: Refresher,
        upstreams: Upstreams,
        metrics: Arc<MintMetrics>,
    ) -> Self {
        let WriterParts { snapshots, journal, keyring, clock, .. } = parts.clone();
        let ends = MintEnds::default();
        Self { snapshots, journal, keyring, keeper, refresher, upstreams, metrics, clock, ends }
    }

    /// Flies with the first order whose decision still holds. `stop` ends the flight early.
    pub(super) async fn run(
        &self,
        mut orders: impl Iterator<Item = Order> + Send,
        stop: &CancellationToken,
    ) -> Outcome {
        let (order, begun, _turn) = loop {
            let Some(order) = orders.next() else { return Outcome::GivenUp };
            let Some(turn) = self.turn(&order, stop).await else { return Outcome::GivenUp };
            match self.begin(&order) {
                Ok(begun) => break (order, begun, turn),
                Err(NotBegun::Outdated) => {}
                Err(NotBegun::Ended(outcome)) => return outcome,
            }
        };
        drop(orders);
        let order = &order;
        let ask = ask(order, begun.mint, self.clock.now());
        let is_kept = match self.keep_ahead(order.source, &begun, &ask).await {
            Ok(is_kept) => is_kept,
            Err(failure) => return self.fail(begun.mint, failure, false),
        };
        match self.ask_upstream(order, &begun, &ask, stop).await {
            Ok(made) => self.land(order, begun, made, &ask, is_kept).await,
            // If nothing was made, nothing needs what is kept any more.
            Err(failure) => {
                let is_owed = is_kept && failure.is_uncertain;
                self.fail(begun.mint, failure, is_owed)
            }
        }
    }

    /// Waits for the turn of a connection whose root may be replaced; `None` if the broker stops before.
    async fn turn(&self, order: &Order, stop: &CancellationToken) -> Option<Option<Turn>> {
        if !order.source.rotates() {
            return Some(None);
        }
        let turn = self.refresher.turn(order.key.connection);
        stop.run_until_cancelled(turn).await.map(Some)
    }

    async fn ask_upstream(
        &self,
        order: &Order,
        begun: &Begun,
        ask: &Ask,
        stop: &CancellationToken,
    ) -> Result<Minted, Failure> {
        if let Some(token) = &begun.refresh_token {
            self.refresher.prepare(token).await?;
        }
        let start = Instant::now();
        let asked = without_panic(mint::mint(&self.upstreams, order.source, &begun.roots, ask));
        let answer = match begun.refresh_token {
            // The answer may have the only copy of the next refresh token.
            Some(_) => Some(asked.await),
            None => stop.run_until_cancelled(asked).await,
        };
        let answer = answer.unwrap_or_else(|| Err(uncertain("the broker stopped meanwhile")));
        let answer = answer.unwrap_or_else(Answer::from);
        let failed = answer.made.as_ref().err().map(|failure| failure.reason.as_str());
        self.metrics.end(order.source.name(), failed, start.elapsed());
        match &begun.refresh_token {
            Some(token) => self.refresher.settle(token, begun.mint, answer, stop).await,
            None => answer.made,
        }
    }

    /// Takes in what was made. `is_kept` if the store keeps what ends it already.
    async fn land(
        &self,
        order: &Order,
        begun: Begun,
        mut made: Minted,
        ask: &Ask,
        is_kept: bool,
    ) -> Outcome {
        let mint = begun.mint;
        let is_owed = match made.ending.take() {
            None => is_kept,
            Some(ending) => {
                let ending = Arc::new(ending);
                if let Err(failure) = self.keep(&begun, Arc::clone(&ending)).await {
                    self.end_unkept(order.source, mint, &ending).await;
                    return self.fail(mint, failure, false);
                }
                true
            }
        };
        let of = (is_owed, order.key.opening.is_some());
        let sealed = without_panic(async { self.seal(begun, made, ask, of) }).await;
        match sealed.flatten() {
            Ok(sealed) => self.take(mint, sealed),
            Err(failure) => self.fail(mint, failure, is_owed),
        }
    }

    /// Ends a credential at once that nobody could end later. It is not handed out.
    async fn end_unkept(&self, source: Source, mint: Id, ending: &Fields) {
        if let Err(failure) = mint::end(&self.upstreams.egress, source, ending).await {
            let reason = failure.reason.as_str();
            tracing::warn!(mint.id = %mint, reason, "a credential that cannot be kept was not ended: it expires by itself");
        }
    }

    /// Keeps what ends the credential that is about to be made, if its name ends it. Returns whether there is such.
    async fn keep_ahead(&self, source: Source, begun: &Begun, ask: &Ask) -> Result<bool, Failure> {
        let Some(ending) = mint::ending_ahead(source, &begun.roots, ask)? else {
            return Ok(false);
        };
        self.keep(begun, Arc::new(ending)).await.map(|()| true)
    }

    /// Keeps what ends a credential, sealed in the store. The lines before are on disk then, too.
    async fn keep(&self, begun: &Begun, ending: Arc<Fields>) -> Result<(), Failure> {
        let Begun { mint, grant, .. } = begun;
        let key = RecordKey { kind: RecordKind::Ending, uid: *mint };
        let (resource, record) = (grant.name.to_text(), (key, grant.version));
        let kept = self.keeper.keep("ending.keep", resource, record, ending).await;
        kept.map_err(|error| {
            let detail = format!("what would end the credential cannot be kept: {error}");
            Failure::new(FailureReason::Unavailable, detail)
        })
    }

    /// Decides again on the newest snapshot, writes the line, and opens the root.
    fn begin(&self, order: &Order) -> Result<Begun, NotBegun> {
        // The loop ends: each turn needs another published change.
        loop {
            let snapshot = self.snapshots.load();
            let grant = regrant(snapshot.in_force(), order).ok_or(NotBegun::Outdated)?;
            let request = MintRequest {
                epoch: snapshot.epoch,
                opening: &order.opening,
                decision: order.decision,
                lease: order.lease,
                source: order.source,
                resource: grant.name.to_text(),
                record: grant.values.key,
                version: grant.version,
            };
            let (mint, permit) = match self.journal.begin_mint(self.clock.now(), request) {
                Ok(begun) => begun,
                Err(CommitError::Stale) => continue,
                Err(CommitError::LeaseEnded | CommitError::Closed) => {
                    return Err(NotBegun::Outdated);
                }
                Err(CommitError::TooManyEndings(why)) => {
                    return Err(NotBegun::Ended(self.refuse(order.source, why)));
                }
                Err(_) => return Err(NotBegun::Ended(Outcome::GivenUp)),
            };
            let metadata = metadata_of(&snapshot.catalog, &grant);
            let newest = metadata.and_then(|one| snapshot.catalog.newest_refresh_token(one));
            let rotating = metadata.filter(|_| order.source.rotates());
            let refresh_token = rotating.and_then(RefreshToken::of);
            return match open_roots(&self.keyring, permit, &grant.values, newest) {
                Ok(roots) => Ok(Begun { mint, roots, refresh_token, snapshot, grant }),
                Err(error) => {
                    tracing::error!(resource.name = %grant.name, %error, "a stored credential cannot be opened");
                    self.note(mint, MintFault::new("RECORD_CORRUPT", ""), false);
                    Err(NotBegun::Ended(Outcome::Corrupt))
                }
            };
        }
    }

    /// Does not begin, because what was made before has not ended.
    fn refuse(&self, source: Source, why: TooManyEndings) -> Outcome {
        let failure = failures::too_many_endings(why);
        self.metrics.refuse(source.name(), failure.reason.as_str());
        Outcome::Failed(None, failure)
    }

    /// Seals what a step may get of what was made. `is_owed` and `is_own` as in [`Made`].
    fn seal(
        &self,
        begun: Begun,
        made: Minted,
        ask: &Ask,
        (is_owed, is_own): (bool, bool),
    ) -> Result<Sealed, Failure> {
        let Begun { mint, roots, snapshot, grant, .. } = begun;
        let end = made.end.unwrap_or_else(|| CredentialEnd::untold(ask.now));
        let kind = kind_of(&snapshot.catalog, &grant);
        let invalid = |text: &str| Failure::new(FailureReason::Invalid, text);
        let kind = kind.ok_or_else(|| invalid("its integration has no such kind any more"))?;
        if end.time <= self.clock.now() {
            return Err(invalid("the upstream's credential has ended already"));
        }
        let fields = kept(kind, roots, made.fields);
        let key = RecordKey { kind: RecordKind::MintedValues, uid: mint };
        let sealed = self.keyring.seal_values(key, grant.version, &fields);
        let sealed =
            sealed.map_err(|error| Failure::new(FailureReason::Unavailable, error.to_string()))?;
        Ok(Sealed {
            values: Values { key, sealed },
            names: handed_out(kind, fields),
            refresh: refresh_time(ask.now, end.time, mint),
            made: Made {
                handle: made.handle,
                credential_expire_time: end.time,
                is_end_told: end.is_told,
                upstream_request: made.upstream_request,
                is_owed,
                is_own,
            },
        })
    }

    /// Writes the line of a credential. Without the line, the credential is not used, and ended if it is owed that.
    fn take(&self, mint: Id, sealed: Sealed) -> Outcome {
        let Sealed { values, names, refresh, made } = sealed;
        let is_owed = made.is_owed;
        match self.journal.minted(self.clock.now(), mint, made) {
            Ok(minted) => Outcome::Minted(Arc::new(Credential { minted, values, names, refresh })),
            Err(_) => {
                self.note(mint, MintFault::new("JOURNAL_UNAVAILABLE", ""), is_owed);
                Outcome::GivenUp
            }
        }
    }

    fn fail(&self, mint: Id, failure: Failure, is_owed: bool) -> Outcome {
        self.note(mint, fault_of(&failure), is_owed);
        Outcome::Failed(Some(mint), failure)
    }

    /// Writes the line of a mint that has made nothing. A line that cannot be written is written later, by this daemon or at
    /// the start of the next.
    fn note(&self, mint: Id, fault: MintFault, is_owed: bool) {
        self.ends.write(MintEnd { mint, fault, is_owed }, &self.journal, self.clock.now());
    }
}

/// A credential whose line is not written yet.
struct Sealed {
    values: Values,
    names: BTreeSet<FieldName>,
    refresh: Timestamp,
    made: Made,
}

fn ask(order: &Order, mint: Id, now: Timestamp) -> Ask {
    let key = &order.opening.record().key;
    let is_of_one = order.key.opening.is_some();
    let subject = || TokenSubject {
        id: key.spiffe_id(),
        attempt: Some(order.opening.record().attempt),
        executor: Some(key.executor.clone()),
    };
    Ask {
        mint,
        workflow: key.workflow.clone(),
        run: is_of_one.then(|| key.run.clone()),
        step: is_of_one.then(|| key.step.clone()),
        subject: is_of_one.then(subject),
        now,
    }
}

/// The decision of an order, made again; `None` if the step may no longer have this version of the connection.
fn regrant(rules: InForce<'_>, order: &Order) -> Option<Grant> {
    let record = order.opening.record();
    if !is_executors(rules.catalog, record) {
        return None;
    }
    let grant = authorize_step(rules, record, &order.target, order.purpose, None).ok()?;
    let Material::Minted { source, is_own, .. } = grant.material else { return None };
    if grant.unusable.is_some() {
        return None;
    }
    let key = MintKey::of(is_own, grant.values.key.uid, grant.version, record);
    (source == order.source && key == order.key).then_some(grant)
}

fn metadata_of<'a>(catalog: &'a Catalog, grant: &Grant) -> Option<&'a ConnectionMetadata> {
    let ResourceName::Connection(name) = &grant.name else { return None };
    catalog.connection(name).map(|found| &found.metadata)
}

fn kind_of<'a>(catalog: &'a Catalog, grant: &Grant) -> Option<&'a CredentialKind> {
    let (integration, kind) = grant.kind.as_ref()?;
    catalog.integration(integration)?.kind(kind.as_str())
}
