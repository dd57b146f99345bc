//! `ExecutorService`.

use tonic::Request;

use super::call::{AdminService, Call};
use crate::access::Principal;
use crate::broker::{
    CloseTarget, Error, LeaseState, LeverRefusal, ListedStep, Received, RunStep, StepRequest,
    StepSelector, UsedConnection,
};
use crate::grpc::convert::page::{PageRequest, in_collection, page};
use crate::grpc::pb::executor_service_server::ExecutorService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::journal::CloseReason;
use crate::model::limits::{MAX_ALLOWED_TARGETS, MAX_PAGE_BYTES, MAX_RUN_BYTES};
use crate::model::{
    AllowedTarget, Because, Id, Invalid, ResourceName, RunName, StepName, WorkflowName,
};

parse_requests! {
    CloseRunRequest -> (WorkflowName, RunName, OperatorWord) = |one| {
        let word = OperatorWord::parse(&one.reason, one.block)?;
        Ok((WorkflowName::parse(&one.workflow)?, RunName::parse(&one.run)?, word))
    };
    CloseStepRequest -> (StepSelector, OperatorWord) = |one| {
        let word = OperatorWord::parse(&one.reason, one.block.then_some(true))?;
        Ok((selector(&one.name, [&one.workflow, &one.run, &one.step])?, word))
    };
    GetRunRequest -> (Option<WorkflowName>, RunName) = |one| {
        let run = RunName::parse(&one.run)?;
        let workflow = convert::given(&one.workflow);
        Ok((workflow.map(|name| WorkflowName::parse(&name)).transpose()?, run))
    };
    ListStepsRequest -> (Option<String>, PageRequest<Id>) = |one| {
        let page = PageRequest::parse(one.page_size, &one.page_token)?;
        Ok((convert::given(&one.workflow), page))
    };
    OpenStepRequest [request_id] -> StepRequest = |one| step_request(one);
    RenewStepRequest -> StepSelector =
        |one| selector(&one.name, [&one.workflow, &one.run, &one.step]);
}

#[tonic::async_trait]
impl ExecutorService for AdminService {
    async fn open_step(&self, request: Request<pb::OpenStepRequest>) -> Reply<pb::OpenedStep> {
        let (call, asked) =
            self.begin_on(request, |one| format!("{}/{}/{}", one.workflow, one.run, one.step))?;
        call.answer(async {
            let asked = StepRequest { named: call.options.request.clone(), ..asked };
            let uid = call.peer.origin.uid().ok_or(Error::ExecutorRequired)?;
            let opened = call.broker.open_step(&call.caller, uid, asked).await?;
            call.broker.synced().await?;
            let certificate = opened.opening.certificates.first();
            Ok(pb::OpenedStep {
                name: ResourceName::Opening(opened.opening.id).to_string(),
                spiffe_id: opened.spiffe_id,
                attempt: opened.opening.attempt,
                directory: opened.directory,
                mount_path: opened.opening.mount_path.clone(),
                env: opened.env.into_iter().collect(),
                expire_time: convert::timestamp(opened.opening.expire_time),
                certificate_expire_time: certificate.and_then(|c| convert::timestamp(c.not_after)),
            })
        })
        .await
    }

    async fn close_step(
        &self,
        request: Request<pb::CloseStepRequest>,
    ) -> Reply<pb::CloseStepResponse> {
        let (call, (selector, word)) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async {
            if matches!(call.caller, Principal::Operator(..)) {
                let target = CloseTarget::Step(selector);
                let closed = close_as_operator(&call, &target, word, false).await?;
                return Ok(pb::CloseStepResponse {
                    closed: closed.closed_steps > 0,
                    revoked_leases: closed.revoked_leases,
                    pending_endings: closed.pending_endings,
                    blocked: closed.blocked,
                    ..Default::default()
                });
            }
            word.refuse()?;
            let closed = call.broker.close_step(&call.caller, &selector).await?;
            let pending = call.broker.wait_for_endings(&closed.endings, call.patience).await;
            Ok(pb::CloseStepResponse {
                closed: closed.closed,
                revoked_leases: convert::count_i32(closed.revoked),
                pending_endings: convert::pending_endings(pending),
                close_reason: if closed.by_operator { "operator" } else { "" }.to_owned(),
                blocked: false,
            })
        })
        .await
    }

    async fn renew_step(
        &self,
        request: Request<pb::RenewStepRequest>,
    ) -> Reply<pb::RenewStepResponse> {
        let (call, selector) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async {
            let expire_time = call.broker.renew_step(&call.caller, &selector)?;
            Ok(pb::RenewStepResponse { expire_time: convert::timestamp(expire_time) })
        })
        .await
    }

    async fn close_run(
        &self,
        request: Request<pb::CloseRunRequest>,
    ) -> Reply<pb::CloseRunResponse> {
        let (call, (workflow, run, word)) =
            self.begin_on(request, |one| format!("{}/{}", one.workflow, one.run))?;
        call.answer(async {
            if matches!(call.caller, Principal::Operator(..)) {
                let target = CloseTarget::Run(workflow, run);
                return close_as_operator(&call, &target, word, true).await;
            }
            word.refuse()?;
            let (closed, revoked, endings) =
                call.broker.close_run(&call.caller, &workflow, &run).await?;
            let pending = call.broker.wait_for_endings(&endings, call.patience).await;
            Ok(pb::CloseRunResponse {
                closed_steps: convert::count_i32(closed),
                revoked_leases: convert::count_i32(revoked),
                pending_endings: convert::pending_endings(pending),
                blocked: false,
            })
        })
        .await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Reply<pb::Run> {
        let (call, (workflow, run)) =
            self.begin_on(request, |one| format!("{}/{}", one.workflow, one.run))?;
        call.read(MAX_RUN_BYTES, move |broker, caller, is_cancelled| {
            let steps = broker.run(caller, workflow.as_ref(), &run, is_cancelled)?;
            Ok(pb::Run { steps: steps.into_iter().map(run_step).collect() })
        })
        .await
    }

    async fn list_steps(
        &self,
        request: Request<pb::ListStepsRequest>,
    ) -> Reply<pb::ListStepsResponse> {
        let (call, (workflow, PageRequest { after, size })) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let listed = broker.steps(caller, workflow.as_deref(), after, size)?;
            let (steps, next_page_token) =
                page(listed.steps.into_iter().map(step), listed.has_more, |one| {
                    in_collection(&one.name, "openings/")
                });
            Ok(pb::ListStepsResponse { steps, next_page_token })
        })
        .await
    }
}

/// What only an administrator says of a closing.
#[derive(Debug)]
pub struct OperatorWord {
    reason: Option<Because>,
    block: Option<bool>,
}

impl OperatorWord {
    fn parse(reason: &str, block: Option<bool>) -> Result<Self, Error> {
        let reason = convert::given(reason).map(|reason| reason.parse()).transpose()?;
        Ok(Self { reason, block })
    }

    /// Refuses the word of an executor.
    fn refuse(&self) -> Result<(), Error> {
        match self {
            Self { reason: None, block: None } => Ok(()),
            _ => Err(LeverRefusal::NotAnAdministrator.into()),
        }
    }
}

/// Closes what an administrator means. `blocks` is what an unset block means.
async fn close_as_operator(
    call: &Call,
    target: &CloseTarget,
    word: OperatorWord,
    blocks: bool,
) -> Result<pb::CloseRunResponse, Error> {
    let OperatorWord { reason, block } = word;
    let blocks = block.unwrap_or(blocks);
    let closed = call.broker.close_as_operator(&call.caller, target, reason, blocks).await?;
    let pending = call.broker.wait_for_endings(&closed.endings, call.patience).await;
    Ok(pb::CloseRunResponse {
        closed_steps: convert::count_i32(closed.steps),
        revoked_leases: convert::count_i32(closed.revoked),
        pending_endings: convert::pending_endings(pending),
        blocked: closed.blocked,
    })
}

fn step_request(request: pb::OpenStepRequest) -> Result<StepRequest, Error> {
    Ok(StepRequest {
        workflow: WorkflowName::parse(&request.workflow)?,
        run: RunName::parse(&request.run)?,
        step: StepName::parse(&request.step)?,
        attempt: request.attempt,
        run_as: convert::run_as(&request.run_as)?,
        uid: request.uid,
        gid: request.gid,
        any_uid: request.any_uid,
        ttl: convert::duration(request.ttl),
        heartbeat: convert::duration(request.heartbeat),
        allowed_targets: allowed_targets(&request.allowed_targets)?,
        named: None,
        mount_path: request.mount_path,
    })
}

/// The opening that a request means, by its name or by workflow, run and step.
fn selector(name: &str, step: [&str; 3]) -> Result<StepSelector, Error> {
    if !name.is_empty() {
        return convert::opening_id(name).map(StepSelector::Opening);
    }
    if step.iter().all(|part| part.is_empty()) {
        let text = "name the opening, or workflow, run and step".to_owned();
        return Err(Error::TargetInvalid(text));
    }
    let [workflow, run, step] = step;
    Ok(StepSelector::Step(
        WorkflowName::parse(workflow)?,
        RunName::parse(run)?,
        StepName::parse(step)?,
    ))
}

fn step(listed: ListedStep) -> pb::Step {
    let opening = listed.opening;
    pb::Step {
        name: ResourceName::Opening(opening.id).to_string(),
        spiffe_id: listed.spiffe_id,
        workflow: opening.key.workflow.to_string(),
        run: opening.key.run.to_string(),
        step: opening.key.step.to_string(),
        attempt: opening.attempt,
        executor: opening.key.executor.to_string(),
        directory: listed.directory,
        open_time: convert::timestamp(opening.open_time),
        expire_time: convert::timestamp(opening.expire_time),
        live_leases: convert::count_i32(listed.live_leases),
        run_as: opening.run_as.iter().map(ToString::to_string).collect(),
    }
}

fn allowed_targets(given: &[String]) -> Result<Vec<AllowedTarget>, Error> {
    if given.len() > MAX_ALLOWED_TARGETS {
        return Err(Error::TooLarge(format!("at most {MAX_ALLOWED_TARGETS} allowed targets")));
    }
    let parsed = given.iter().map(|text| text.parse());
    parsed
        .collect::<Result<_, Invalid>>()
        .map_err(|invalid| Error::TargetInvalid(invalid.to_string()))
}

fn run_step(step: RunStep) -> pb::RunStep {
    let opening = step.opening;
    let reason = step.closed.map(|(_, reason)| match reason {
        CloseReason::ClockSetBack => "clock_set_back",
        CloseReason::DirectoryGone => "directory_gone",
        CloseReason::Executor => "executor",
        CloseReason::ExecutorRemoved => "executor_removed",
        CloseReason::Expired => "expired",
        CloseReason::HeartbeatLost => "heartbeat_lost",
        CloseReason::NewAttempt => "new_attempt",
        CloseReason::OpenFailed => "open_failed",
        CloseReason::Operator => "operator",
        CloseReason::Restored => "restored",
    });
    pb::RunStep {
        name: ResourceName::Opening(opening.id).to_string(),
        executor: opening.key.executor.to_string(),
        workflow: opening.key.workflow.to_string(),
        run: opening.key.run.to_string(),
        step: opening.key.step.to_string(),
        attempt: opening.attempt,
        run_as: opening.run_as.iter().map(ToString::to_string).collect(),
        open_time: convert::timestamp(opening.open_time),
        close_time: step.closed.and_then(|(time, _)| convert::timestamp(time)),
        close_reason: reason.unwrap_or_default().to_owned(),
        received: step.received.into_iter().map(received).collect(),
        used: step.used.into_iter().map(used).collect(),
        closed_by: step.closed_by,
    }
}

fn used(used: UsedConnection) -> pb::UsedConnection {
    let target = Some(used.target).filter(|target| *target != used.resource);
    let login = used.login.map(|login| pb::SshLogin {
        user: login.user,
        key: login.key,
        host_key: login.host_key.unwrap_or_default(),
    });
    let is_request = used.request.is_some();
    let request = used.request.map(|request| pb::HttpRequestUse {
        method: request.action.method,
        host: request.action.host.unwrap_or_default(),
        path: request.action.path,
        last_status: request.status.map_or(0, i32::from),
        last_fault: request.fault.unwrap_or_default(),
        sent_bytes: convert::count(request.sent_bytes),
        received_bytes: convert::count(request.received_bytes),
    });
    pb::UsedConnection {
        http_request: request,
        name: used.resource,
        target: target.unwrap_or_default(),
        version: convert::count(used.version),
        first_time: convert::timestamp(used.first),
        last_time: convert::timestamp(used.last),
        times: convert::count_i32(used.times),
        ssh_login: (!is_request).then(|| login.unwrap_or_default()),
    }
}

fn received(received: Received) -> pb::ReceivedCredential {
    let state = match received.state {
        LeaseState::Expired => pb::LeaseState::Expired,
        LeaseState::Live => pb::LeaseState::Live,
        LeaseState::Revoked => pb::LeaseState::Revoked,
    };
    let mint = received.mint.map(|(source, credential)| pb::MintedCredential {
        mint: credential.mint.to_string(),
        source: source.name().to_owned(),
        handle: credential.handle.clone().unwrap_or_default(),
        credential_expire_time: convert::timestamp(credential.credential_expire_time),
        ending: received.ending.map(convert::ending),
    });
    let target = Some(received.target).filter(|target| *target != received.resource);
    pb::ReceivedCredential {
        name: received.resource,
        target: target.unwrap_or_default(),
        version: convert::count(received.version),
        fields: received.fields.iter().map(ToString::to_string).collect(),
        lease: ResourceName::Lease(received.lease).to_string(),
        first_time: convert::timestamp(received.first),
        last_time: convert::timestamp(received.last),
        times: convert::count_i32(received.times),
        expire_time: convert::timestamp(received.expire_time),
        state: state.into(),
        mints: mint.into_iter().collect(),
    }
}
