//! Send: the broker makes an HTTP request with a credential that the step does not get.
//!
//! ```text
//! decide → plan (where to) → journal: send → Permit<Act> → render → upstream ⇄ masks ⇄ step → journal: sent
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `request` | what a step asks for |
//! | `plan` | where it goes, by the connection's public fields |
//! | `own_body` | the connection's own body, joined with the step's |
//! | `exchange` | the task between upstream and step |
//! | `standing` | why an exchange ends early |

mod exchange;
mod own_body;
mod plan;
mod request;
mod standing;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

pub use exchange::{Exchange, SendAnswer, SendPart};
pub use request::SendRequest;

use super::Broker;
use super::error::Error;
use super::resolve::authorize::Grant;
use super::resolve::minted::Answer;
use super::resolve::minted::action::Permitted;
use super::resolve::{Authorization, ResolveRequest};
use super::shares::Shares;
use super::steps::session::StepSession;
use crate::egress::{Call, ClientIdentity, Outgoing, Pieces};
use crate::integration::{Rendered, render};
use crate::journal::{Act, CommittedAction, Permit};
use crate::mask::{Masks, TooLarge, Unmasked};
use crate::metrics::SendMetrics;
use crate::model::limits::{MAX_ALL_SENDS, MAX_SENDS, MAX_WORKFLOW_SENDS};
use crate::model::{Timestamp, Value, WorkflowName};
use exchange::{Exchanging, Places};
use own_body::OwnBody;
use plan::{Limited, Plan};
use standing::{Standing, reason};

/// The exchanges of all steps.
pub(crate) struct Sends {
    /// A large answer keeps a thread busy: not the thread that serves the step.
    runtime: Handle,
    places: Arc<Semaphore>,
    /// The places of workflows that have exchanges.
    shares: Shares<WorkflowName, Semaphore>,
    metrics: Arc<SendMetrics>,
}

impl Sends {
    /// No exchange is under way.
    pub(crate) fn new((runtime, metrics): (Handle, Arc<SendMetrics>)) -> Self {
        let places = Arc::new(Semaphore::new(MAX_ALL_SENDS));
        Self { runtime, places, shares: Shares::default(), metrics }
    }

    /// Takes a place for each of the three.
    fn begin(&self, session: &StepSession) -> Result<Places, Error> {
        let own = session.begin_send().ok_or(Error::TooManySends(MAX_SENDS))?;
        let workflow = session.opening.record().key.workflow.clone();
        let share = self.shares.of(workflow, || Semaphore::new(MAX_WORKFLOW_SENDS));
        let share = share.try_acquire_owned();
        let share = share.map_err(|_| Error::TooManySends(MAX_WORKFLOW_SENDS))?;
        let all = Arc::clone(&self.places).try_acquire_owned();
        Ok([own, share, all.map_err(|_| Error::TooManySends(MAX_ALL_SENDS))?])
    }
}

impl Broker {
    /// Sends a request for a step. `pieces` are its body. Returns when the decision is committed and the credential is there;
    /// the exchange goes on in a task of its own.
    ///
    /// # Errors
    /// See `StepService.Send` in `proto/keyhatch/v1/step.proto`.
    pub async fn send(
        self: &Arc<Self>,
        session: &Arc<StepSession>,
        certificate_end: Timestamp,
        asked: SendRequest,
        pieces: Pieces,
    ) -> Result<Exchange, Error> {
        let places = self.sends.begin(session)?;
        let admitted = self.admit_send(session, &asked).await?;
        let Permitted { grant, permit, lease, decision } = admitted;
        let standing = Standing {
            broker: Arc::clone(self),
            opening: Arc::clone(&session.opening),
            certificate_end,
            lease,
            decision_id: decision.to_opaque(&self.keyring),
            name: grant.name.clone(),
            limited: Limited::of(&asked),
            moved: Arc::default(),
            is_over: AtomicBool::new(false),
        };
        self.synced().await?;
        match self.call(&grant, permit, asked, pieces) {
            Err(error) => {
                standing.sent(None, Some(reason(&error)));
                Err(error)
            }
            Ok((call, own, masks)) => {
                let (sender, parts) = mpsc::channel(1);
                let exchanging = Exchanging { standing, masks, places, parts: sender };
                self.sends.runtime.spawn(exchanging.run(call, own));
                Ok(Exchange { parts })
            }
        }
    }

    /// The request, with the values of the record that the permit opens, and the masks for its answer. The plan is made again:
    /// a connection may get other limits while an upstream is asked for the credential.
    fn call(
        &self,
        grant: &Grant,
        permit: Permit<Act>,
        asked: SendRequest,
        pieces: Pieces,
    ) -> Result<(Call, Option<OwnBody>, Masks), Error> {
        let plan = Plan::of(&self.snapshot().catalog, grant, &asked);
        let plan = plan.map_err(|refusal| refusal.into_error(String::new()))?;
        // A credential goes to the address that was written with it.
        if plan.of != (grant.values.key.uid, grant.version) {
            return Err(Error::VersionSuperseded);
        }
        let sealed = grant.handed_out().ok_or(Error::Corrupt)?;
        let opened = permit.open(&sealed.sealed, &self.keyring).map_err(|_| Error::Corrupt)?;
        let rendered = render(&plan.rule, &plan.kind, &opened).map_err(Error::SendUnsupported)?;
        drop(opened);
        let masks = masks(&rendered)?;
        let (call, own) = call(asked, plan, rendered, pieces, &masks);
        Ok((call, own, masks))
    }

    /// Decides on a request, and commits the decision.
    async fn admit_send(
        &self,
        session: &Arc<StepSession>,
        asked: &SendRequest,
    ) -> Result<Permitted, Error> {
        let (opening, now, last) = (&session.opening, self.now(), self.last_answer());
        let mut request = ResolveRequest {
            target: asked.target.clone(),
            fields: Vec::new(),
            ttl: None,
            action: Some(asked.action(None)),
        };
        let mut decided = self.authorize_within_limits(session, &request, now)?;
        // The loop ends: each turn needs another published change, or another credential that has ended, and a wait for an
        // upstream has the same deadline.
        loop {
            let place = self.place_of_send(&mut decided, asked);
            request.action = Some(asked.action(place));
            let now = self.now();
            let resolution = self.resolution(opening, &request, None, &decided, now);
            let CommittedAction { decision_id, granted } =
                match self.journal.commit_action(now, resolution) {
                    Ok(committed) => committed,
                    Err(error) if self.is_outdated(error, opening, &decided) => {
                        decided = self.authorize_now(opening, &request)?;
                        continue;
                    }
                    Err(error) => return Err(self.not_committed(error)),
                };
            let (grant, (lease, permit)) = match (decided.outcome, granted) {
                (Ok(grant), Some(granted)) => (grant, granted),
                (outcome, _) => {
                    let refused = Err(self.not_granted(outcome.err(), decision_id));
                    return self.count_if_refused(session, &request, now, refused);
                }
            };
            if let Some(permit) = permit {
                self.count_hit(&grant);
                // Nobody waits for the next credential, if this one is late in its life.
                let _ = self.replace_early(opening, &request, &grant, (decision_id, lease.id));
                return Ok(Permitted { grant, permit, lease, decision: decision_id });
            }
            let asked_upstream =
                self.ask_upstream(opening, &request, &grant, (decision_id, lease.id));
            let waiting = match self.count_if_refused(session, &request, now, asked_upstream)? {
                Answer::Minting(waiting) => waiting.until(last),
                Answer::Resolved(_) => {
                    return Err(Error::Internal("an action was handed out".to_owned()));
                }
            };
            let waited = self.wait_to_act(waiting).await;
            match self.count_if_refused(session, &request, now, waited)? {
                Some(permitted) => return Ok(permitted),
                None => decided = self.authorize_now(opening, &request)?,
            }
        }
    }

    /// The host and path of an allowed request. Makes a refusal of the decision if no request can be made.
    fn place_of_send(
        &self,
        decided: &mut Authorization,
        asked: &SendRequest,
    ) -> Option<(String, String)> {
        // A decision on an older snapshot is not committed.
        let snapshot = self.snapshot();
        match Plan::of(&snapshot.catalog, decided.outcome.as_ref().ok()?, asked) {
            Ok(plan) => Some((plan.address.host(), plan.address.path_of(&asked.path))),
            Err(refusal) => {
                decided.outcome = Err(refusal);
                None
            }
        }
    }
}

/// The masks of what an answer must not reveal.
fn masks(rendered: &Rendered) -> Result<Masks, Error> {
    let masks = Masks::for_answers();
    let secrets = rendered.secrets.iter().map(Value::expose);
    let fault = match masks.add_all(secrets) {
        Err(TooLarge) => "its values are too large to be masked in an answer",
        Ok(unmasked) if unmasked.contains(&Unmasked::Short) => {
            "a value of fewer than 3 bytes cannot be masked in an answer"
        }
        Ok(_) => return Ok(masks),
    };
    Err(Error::SendUnsupported(fault.to_owned()))
}

/// The request as egress takes it.
fn call(
    asked: SendRequest,
    plan: Plan,
    mut rendered: Rendered,
    pieces: Pieces,
    masks: &Masks,
) -> (Call, Option<OwnBody>) {
    let own = rendered.body.take().map(|(content, content_type)| {
        if let Some(content_type) = content_type.filter(|_| rendered.content_type().is_none()) {
            rendered.headers.push(("Content-Type".to_owned(), content_type));
        }
        OwnBody::new(content, rendered.content_type(), asked.headers.content_type())
    });
    let identity = rendered
        .identity
        .map(|(certificate, private_key)| ClientIdentity { certificate, private_key });
    let call = Call {
        of: plan.of,
        address: plan.address,
        path: asked.path,
        parameters: rendered.parameters,
        method: asked.method,
        headers: asked.headers,
        rendered: rendered.headers,
        body: Outgoing::Pieces { length: asked.length, pieces },
        has_own_body: own.is_some(),
        identity,
        ca_certificate: plan.ca_certificate,
        is_masked: !masks.patterns().is_empty(),
    };
    (call, own)
}
