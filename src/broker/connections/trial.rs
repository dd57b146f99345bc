//! A mint for a test: the upstream makes a credential, and nobody gets it.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::endings::story::MintEnding;
use crate::broker::minting::{RefreshTest, RefreshToken, Turn};
use crate::catalog::{Catalog, ConnectionMetadata, Unusable};
use crate::integration::{CredentialKind, Source, handed_out, kept, source_of};
use crate::journal::{DecisionId, MintingLine};
use crate::mint::{self, Ask, Failure, FailureReason, Minted, TokenSubject};
use crate::model::{
    ExecutorName, FieldName, Fields, Id, Release, ResourceName, RunName, SpiffeId, StepName,
    Timestamp, WorkflowName, WorkflowPath,
};

/// The workflow that an upstream sees when a credential is made for a test. The operator's name stands for the step.
const WORKFLOW: &str = "connection-test";
/// The run in the lines of its mint and ending: a step has its name in a run.
const RUN: &str = "test";

/// A credential that a test has made, without its values.
pub struct TestMint {
    /// The names of the fields that a step gets while the connection is minted.
    pub fields: Vec<FieldName>,
    /// Its public name, if it has one.
    pub handle: Option<String>,
    /// Its end, if the upstream tells it.
    pub expire_time: Option<Timestamp>,
    /// How long it lives, if the upstream tells its end.
    pub lifetime: Option<Duration>,
    /// The upstream's number of the request, if it tells the number.
    pub upstream_request: Option<String>,
    /// How it ended.
    pub ending: MintEnding,
}

/// A mint to be tried.
pub(super) struct TrialOrder {
    mint: Id,
    /// The line of the test.
    decision: DecisionId,
    connection: ConnectionMetadata,
    kind: CredentialKind,
    pub(super) source: Source,
    pub(super) roots: Fields,
    step: Option<StepName>,
    subject: Option<TokenSubject>,
    /// The refresh token among the roots, with the turn of its connection, if using it may replace it.
    refresh: Option<(RefreshToken, Turn)>,
}

/// Why nothing was made.
pub(super) struct Failed {
    /// The API's reason.
    pub(super) reason: &'static str,
    /// What was wrong, and the next step.
    pub(super) detail: String,
}

impl TrialOrder {
    /// The mint of a connection; `None` if the broker mints nothing of its kind.
    pub(super) fn of(
        catalog: &Catalog,
        metadata: &ConnectionMetadata,
        roots: Fields,
        (decision, mint): (DecisionId, Id),
        caller: &Principal,
    ) -> Option<Self> {
        let integration = catalog.integration(&metadata.integration)?;
        let kind = integration.kind(metadata.kind.as_str())?.clone();
        let source = source_of(&kind, |rule| metadata.has(&rule.name))?;
        let operator = match caller {
            Principal::Operator(name, ..) => Some(name),
            _ => None,
        };
        let step = operator.and_then(|name| StepName::parse(name.as_str()).ok());
        // A token of a test names the operator: nothing of a step may be had with it.
        let subject = operator.map(|name| TokenSubject {
            id: SpiffeId::Operator(name.clone()),
            attempt: None,
            executor: None,
        });
        let connection = metadata.clone();
        Some(Self { mint, decision, connection, source, kind, roots, step, subject, refresh: None })
    }

    /// The same with the turn of the connection, if the mint needs that.
    pub(super) fn with_turn(self, metadata: &ConnectionMetadata, turn: Option<Turn>) -> Self {
        let token = RefreshToken::of(metadata).filter(|_| self.source.rotates());
        Self { refresh: token.zip(turn), ..self }
    }
}

/// True if a mint of this connection may replace its root.
pub(super) fn rotates(catalog: &Catalog, metadata: &ConnectionMetadata) -> bool {
    let integration = catalog.integration(&metadata.integration);
    let kind = integration.and_then(|found| found.kind(metadata.kind.as_str()));
    let source = kind.and_then(|kind| source_of(kind, |rule| metadata.has(&rule.name)));
    source.is_some_and(Source::rotates)
}

/// True if steps get the root of this connection itself, and a mint would use it up.
pub(super) fn is_handed_out(catalog: &Catalog, metadata: &ConnectionMetadata) -> bool {
    metadata.release == Release::Stored && rotates(catalog, metadata)
}

impl Broker {
    pub(super) async fn try_mint(&self, mut order: TrialOrder) -> Result<TestMint, Failed> {
        let workflow = WorkflowName::parse(WORKFLOW).map_err(|_| not_mintable())?;
        let (now, mint) = (self.now(), order.mint);
        let (step, subject) = (order.step.clone(), order.subject.take());
        let ask = Ask { mint, workflow, run: None, step, subject, now };
        let ahead = mint::ending_ahead(order.source, &order.roots, &ask).map_err(failed)?;
        let owed = match ahead {
            None => None,
            Some(ending) => {
                let line = order.line(mint, WORKFLOW).ok_or_else(not_mintable)?;
                Some(self.begin_trial(line, ending).await?)
            }
        };
        let (kind, source) = (order.kind.clone(), order.source);
        let (made, roots) = match self.ask_for_test(order, ask).await {
            Some((Ok(made), roots)) => (made, roots),
            answer => {
                let failure = answer.and_then(|(made, _)| made.err());
                if let (Some(owed), Some(failure)) = (owed, &failure) {
                    owed.failed(failure);
                }
                return Err(failure.map_or_else(overloaded, failed));
            }
        };
        let ending = match owed {
            None => self.end_trial(source, made.ending.as_ref()).await,
            Some(owed) => {
                owed.made(&made, now).map_err(|error| not_kept(&error.to_string()))?;
                self.trial_ending(mint).await
            }
        };
        let expire_time = made.end.map(|end| end.time);
        Ok(TestMint {
            fields: handed_out(&kind, kept(&kind, roots, made.fields)).into_iter().collect(),
            handle: made.handle,
            expire_time,
            lifetime: expire_time.map(|end| end.since(now)),
            upstream_request: made.upstream_request,
            ending,
        })
    }
}

impl Broker {
    /// Asks the upstream for a credential that nobody gets. Returns the roots, too. `None` if there is no place, or the broker
    /// stops.
    async fn ask_for_test(
        &self,
        order: TrialOrder,
        ask: Ask,
    ) -> Option<(Result<Minted, Failure>, Fields)> {
        let TrialOrder { source, roots, refresh, .. } = order;
        match refresh {
            None if source.rotates() => None,
            None => self.mints.try_out(source, &roots, &ask).await.map(|made| (made, roots)),
            Some((token, turn)) => {
                self.mints.try_refresh(RefreshTest { source, roots, ask, token, turn }).await
            }
        }
    }
}

/// The failure for a refresh token that is of no use.
pub(super) fn unusable(why: &Unusable) -> Failed {
    let detail = format!("nothing was sent: {why}");
    Failed { reason: FailureReason::Reauthorize.as_str(), detail }
}

/// The failure for a refresh token that steps get.
pub(super) fn handed_out_itself() -> Failed {
    let detail = "nothing was sent: steps get the refresh token itself, and a test could use it up; change the connection to --release minted first";
    Failed { reason: "NOT_MINTABLE", detail: detail.to_owned() }
}

impl TrialOrder {
    /// The line of a mint that is owed an ending. Its opening is the mint itself: there is no step. `workflow` stands for the
    /// step's.
    pub(super) fn line(&self, mint: Id, workflow: &str) -> Option<MintingLine> {
        let Self { decision, connection, source, .. } = self;
        let executor = ExecutorName::parse(workflow).ok()?;
        let (workflow, run) = (WorkflowName::parse(workflow).ok()?, RunName::parse(RUN).ok());
        let step = self.step.clone();
        Some(MintingLine {
            mint,
            decision: *decision,
            opening: mint,
            principal: Arc::new(WorkflowPath { workflow, run, step }),
            executor,
            lease: mint,
            source: *source,
            resource: ResourceName::Connection(connection.reference()).to_text(),
            uid: connection.uid,
            version: connection.version,
        })
    }
}

/// The failure if what ends the credential cannot be kept.
pub(super) fn not_kept(why: &str) -> Failed {
    let reason = "UPSTREAM_UNAVAILABLE";
    Failed { reason, detail: format!("nothing may be minted: what ends it cannot be kept: {why}") }
}

/// The failure for a kind without a source.
pub(super) fn not_mintable() -> Failed {
    let detail = "the broker mints no credentials of this kind; test it without --mint".to_owned();
    Failed { reason: "NOT_MINTABLE", detail }
}

/// The failure if too many tests mint, or the broker stops.
fn overloaded() -> Failed {
    let detail = "nothing was minted: the broker mints for as many tests as it may, or stops; try again later";
    Failed { reason: "OVERLOADED", detail: detail.to_owned() }
}

pub(super) fn failed(failure: Failure) -> Failed {
    let Failure { reason, detail, upstream_request, .. } = failure;
    let request = upstream_request.map(|number| format!("; its number of the request is {number}"));
    let reason = reason.as_str();
    Failed {
        reason,
        detail: format!("nothing was minted ({reason}): {detail}{}", request.unwrap_or_default()),
    }
}
