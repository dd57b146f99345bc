//! A mint for a test: the upstream makes a credential, and nobody gets it.

use std::time::Duration;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::minting::{RefreshTest, RefreshToken, Turn};
use crate::catalog::{Catalog, ConnectionMetadata, Unusable};
use crate::integration::{CredentialKind, Source, handed_out, source_of};
use crate::mint::{Ask, Failure, FailureReason, TokenSubject};
use crate::model::{FieldName, Fields, Id, Release, SpiffeId, StepName, Timestamp, WorkflowName};

/// The workflow that an upstream sees when a credential is made for a test. The operator's name stands for the step.
const WORKFLOW: &str = "connection-test";

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
}

/// A mint to be tried.
pub(super) struct TrialOrder {
    mint: Id,
    kind: CredentialKind,
    source: Source,
    roots: Fields,
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
        mint: Id,
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
        Some(Self { mint, source, kind, roots, step, subject, refresh: None })
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
    pub(super) async fn try_mint(&self, order: TrialOrder) -> Result<TestMint, Failed> {
        let TrialOrder { mint, kind, source, roots, step, subject, refresh } = order;
        let workflow = WorkflowName::parse(WORKFLOW).map_err(|_| not_mintable())?;
        let now = self.now();
        let ask = Ask { mint, workflow, run: None, step, subject, now };
        let asked = match refresh {
            None if source.rotates() => None,
            None => self.mints.try_out(source, &roots, &ask).await.map(|made| (made, roots)),
            Some((token, turn)) => {
                let test = RefreshTest { source, roots, ask, token, turn };
                self.mints.try_refresh(test).await
            }
        };
        let (made, roots) = asked.ok_or_else(overloaded)?;
        let made = made.map_err(failed)?;
        let lifetime = made.expire_time.map(|end| end.since(now));
        Ok(TestMint {
            fields: handed_out(&kind, roots, made.fields).into_keys().collect(),
            handle: made.handle,
            expire_time: made.expire_time,
            lifetime,
            upstream_request: made.upstream_request,
        })
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

fn failed(failure: Failure) -> Failed {
    let Failure { reason, detail, upstream_request, .. } = failure;
    let request = upstream_request.map(|number| format!("; its number of the request is {number}"));
    let reason = reason.as_str();
    Failed {
        reason,
        detail: format!("nothing was minted ({reason}): {detail}{}", request.unwrap_or_default()),
    }
}
