//! `ExecutorService`.

use tonic::{Request, Response, Status};

use super::call::AdminDoor;
use super::pb::executor_service_server::ExecutorService;
use super::{convert, pb};
use crate::broker::{Error, ListedStep, StepRequest, StepSelector};
use crate::model::{Invalid, ResourceName, RunName, StepName, WorkflowName};

#[tonic::async_trait]
impl ExecutorService for AdminDoor {
    async fn open_step(
        &self,
        request: Request<pb::OpenStepRequest>,
    ) -> Result<Response<pb::OpenedStep>, Status> {
        let name = |request: &pb::OpenStepRequest| {
            format!("{}/{}/{}", request.workflow, request.run, request.step)
        };
        let (call, request) = self.begin(request, "OpenStep", name)?;
        call.answer(async {
            let opened = call.broker.open_step(&call.caller, parse(request)?).await?;
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

    async fn list_steps(
        &self,
        request: Request<pb::ListStepsRequest>,
    ) -> Result<Response<pb::ListStepsResponse>, Status> {
        let (call, request) = self.begin(request, "ListSteps", |_| String::new())?;
        call.answer(async {
            let after = convert::from_page_token(&request.page_token)?;
            let workflow = Some(request.workflow.as_str()).filter(|workflow| !workflow.is_empty());
            let size = convert::page_size(request.page_size);
            let listed = call.broker.steps(&call.caller, workflow, after, size)?;
            let next = listed.next.map(|id| convert::to_page_token(&id.to_string()));
            Ok(pb::ListStepsResponse {
                steps: listed.steps.into_iter().map(step).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }
}

fn parse(request: pb::OpenStepRequest) -> Result<StepRequest, Error> {
    Ok(StepRequest {
        workflow: WorkflowName::parse(&request.workflow)?,
        run: RunName::parse(&request.run)?,
        step: StepName::parse(&request.step)?,
        attempt: request.attempt,
        run_as: convert::run_as(&request.run_as)?,
        uid: request.uid,
        ttl: convert::duration(request.ttl),
        mount_path: request.mount_path,
    })
}

fn selector(request: &pb::CloseStepRequest) -> Result<StepSelector, Error> {
    if request.name.is_empty() {
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
