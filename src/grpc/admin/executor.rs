//! `ExecutorService`.

use tonic::{Request, Response, Status};

use super::call::AdminService;
use crate::broker::{
    Error, LeaseState, ListedStep, Received, RunStep, StepOwner, StepRequest, StepSelector,
};
use crate::grpc::edge::peer;
use crate::grpc::pb::executor_service_server::ExecutorService;
use crate::grpc::{convert, pb};
use crate::journal::CloseReason;
use crate::model::limits::{MAX_ALLOWED_TARGETS, MAX_PAGE_BYTES, MAX_RUN_BYTES};
use crate::model::{
    AllowedTarget, Invalid, NamedRequest, ResourceName, RunName, StepName, WorkflowName,
};

#[tonic::async_trait]
impl ExecutorService for AdminService {
    async fn open_step(
        &self,
        request: Request<pb::OpenStepRequest>,
    ) -> Result<Response<pb::OpenedStep>, Status> {
        let name = |request: &pb::OpenStepRequest| {
            format!("{}/{}/{}", request.workflow, request.run, request.step)
        };
        let peer_uid = peer::admin_connection(&request)?.uid;
        let (call, request) = self.begin(request, "OpenStep", name)?;
        call.answer(async {
            let named = call.named(&request, &request.request_id)?;
            let asked = parse(request, named)?;
            let opened = call.broker.open_step(&call.caller, peer_uid, asked).await?;
            call.broker.settle().await?;
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
    ) -> Result<Response<pb::CloseStepResponse>, Status> {
        let (call, request) = self.begin(request, "CloseStep", |one| one.name.clone())?;
        call.answer(async {
            let closed = call.broker.close_step(&call.caller, &selector(&request)?).await?;
            Ok(pb::CloseStepResponse {
                closed: closed.closed,
                revoked_leases: i32::try_from(closed.revoked).unwrap_or(i32::MAX),
            })
        })
        .await
    }

    async fn renew_step(
        &self,
        request: Request<pb::RenewStepRequest>,
    ) -> Result<Response<pb::RenewStepResponse>, Status> {
        let (call, request) = self.begin(request, "RenewStep", |one| one.name.clone())?;
        call.answer(async {
            let pb::RenewStepRequest { name, workflow, run, step } = request;
            let selector = selector(&pb::CloseStepRequest { name, workflow, run, step })?;
            let expire_time = call.broker.renew_step(&call.caller, &selector)?;
            Ok(pb::RenewStepResponse { expire_time: convert::timestamp(expire_time) })
        })
        .await
    }

    async fn close_run(
        &self,
        request: Request<pb::CloseRunRequest>,
    ) -> Result<Response<pb::CloseRunResponse>, Status> {
        let name = |one: &pb::CloseRunRequest| format!("{}/{}", one.workflow, one.run);
        let (call, request) = self.begin(request, "CloseRun", name)?;
        call.answer(async {
            let workflow = WorkflowName::parse(&request.workflow)?;
            let run = RunName::parse(&request.run)?;
            let (closed, revoked) = call.broker.close_run(&call.caller, &workflow, &run).await?;
            Ok(pb::CloseRunResponse {
                closed_steps: i32::try_from(closed).unwrap_or(i32::MAX),
                revoked_leases: i32::try_from(revoked).unwrap_or(i32::MAX),
            })
        })
        .await
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let name = |one: &pb::GetRunRequest| format!("{}/{}", one.workflow, one.run);
        let (call, request) = self.begin(request, "GetRun", name)?;
        call.read(MAX_RUN_BYTES, move |broker, caller, is_cancelled| {
            let run = RunName::parse(&request.run)?;
            let workflow = convert::given(&request.workflow);
            let workflow = workflow.map(|name| WorkflowName::parse(&name)).transpose()?;
            let steps = broker.run(caller, workflow.as_ref(), &run, is_cancelled)?;
            Ok(pb::Run { steps: steps.into_iter().map(run_step).collect() })
        })
        .await
    }

    async fn list_steps(
        &self,
        request: Request<pb::ListStepsRequest>,
    ) -> Result<Response<pb::ListStepsResponse>, Status> {
        let (call, request) = self.begin(request, "ListSteps", |_| String::new())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let after = convert::from_page_token(&request.page_token)?;
            let workflow = Some(request.workflow.as_str()).filter(|workflow| !workflow.is_empty());
            let size = convert::page_size(request.page_size);
            let listed = broker.steps(caller, workflow, after, size)?;
            let id = |one: &pb::Step| one.name.trim_start_matches("openings/").to_owned();
            let messages = listed.steps.into_iter().map(step);
            let (steps, next_page_token) = convert::page(messages, listed.has_more, id);
            Ok(pb::ListStepsResponse { steps, next_page_token })
        })
        .await
    }
}

pub(crate) fn parse(
    request: pb::OpenStepRequest,
    named: Option<NamedRequest>,
) -> Result<StepRequest, Error> {
    Ok(StepRequest {
        workflow: WorkflowName::parse(&request.workflow)?,
        run: RunName::parse(&request.run)?,
        step: StepName::parse(&request.step)?,
        attempt: request.attempt,
        run_as: convert::run_as(&request.run_as)?,
        owner: StepOwner { uid: request.uid, gid: request.gid, anybody: request.any_uid },
        ttl: convert::duration(request.ttl),
        heartbeat: convert::duration(request.heartbeat),
        allowed_targets: allowed_targets(&request.allowed_targets)?,
        named,
        mount_path: request.mount_path,
    })
}

pub(crate) fn selector(request: &pb::CloseStepRequest) -> Result<StepSelector, Error> {
    if request.name.is_empty() {
        if request.workflow.is_empty() && request.run.is_empty() && request.step.is_empty() {
            let text = "name the opening, or workflow, run and step".to_owned();
            return Err(Error::TargetInvalid(text));
        }
        return Ok(StepSelector::Step(
            WorkflowName::parse(&request.workflow)?,
            RunName::parse(&request.run)?,
            StepName::parse(&request.step)?,
        ));
    }
    match request.name.parse()? {
        ResourceName::Opening(id) => Ok(StepSelector::Opening(id)),
        _ => {
            Err(Invalid::new("opening name", &request.name, "openings/ID, as OpenStep returned it")
                .into())
        }
    }
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
        live_leases: i32::try_from(listed.live_leases).unwrap_or(i32::MAX),
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
    }
}

fn received(received: Received) -> pb::ReceivedCredential {
    let state = match received.state {
        LeaseState::Expired => pb::LeaseState::Expired,
        LeaseState::Live => pb::LeaseState::Live,
        LeaseState::Revoked => pb::LeaseState::Revoked,
    };
    let target = Some(received.target).filter(|target| *target != received.resource);
    pb::ReceivedCredential {
        name: received.resource,
        target: target.unwrap_or_default(),
        version: convert::count(received.version),
        fields: received.fields.iter().map(ToString::to_string).collect(),
        lease: ResourceName::Lease(received.lease).to_string(),
        first_time: convert::timestamp(received.first),
        last_time: convert::timestamp(received.last),
        times: i32::try_from(received.times).unwrap_or(i32::MAX),
        expire_time: convert::timestamp(received.expire_time),
        state: state.into(),
    }
}
