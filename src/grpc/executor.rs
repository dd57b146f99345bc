//! `ExecutorService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::pb::executor_service_server::ExecutorService;
use super::{convert, pb, peer};
use crate::broker::{Broker, Error, ListedStep, StepRequest, StepSelector};
use crate::model::{Invalid, ResourceName, RunName, StepName, WorkflowName};

pub(super) struct Executors {
    broker: Arc<Broker>,
}

impl Executors {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl ExecutorService for Executors {
    async fn open_step(
        &self,
        request: Request<pb::OpenStepRequest>,
    ) -> Result<Response<pb::OpenedStep>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let resource = format!("{}/{}/{}", request.workflow, request.run, request.step);
        let refuse = |error| peer::refuse(&self.broker, &caller, "OpenStep", &resource, &error);
        let request = parse(request).map_err(refuse)?;
        let opened = self.broker.open_step(&caller, request).await.map_err(refuse)?;
        let certificate = opened.opening.certificates.first();
        Ok(Response::new(pb::OpenedStep {
            name: ResourceName::Opening(opened.opening.id).to_string(),
            spiffe_id: opened.spiffe_id,
            attempt: opened.opening.attempt,
            directory: opened.directory,
            mount_path: opened.opening.mount_path.clone(),
            env: opened.env.into_iter().collect(),
            expire_time: convert::timestamp(opened.opening.expire_time),
            certificate_expire_time: certificate.and_then(|c| convert::timestamp(c.not_after)),
        }))
    }

    async fn close_step(
        &self,
        request: Request<pb::CloseStepRequest>,
    ) -> Result<Response<pb::CloseStepResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse =
            |error| peer::refuse(&self.broker, &caller, "CloseStep", &request.name, &error);
        let selector = selector(&request).map_err(refuse)?;
        let closed = self.broker.close_step(&caller, &selector).await.map_err(refuse)?;
        Ok(Response::new(pb::CloseStepResponse {
            closed: closed.closed,
            revoked_leases: i32::try_from(closed.revoked).unwrap_or(i32::MAX),
        }))
    }

    async fn list_steps(
        &self,
        request: Request<pb::ListStepsRequest>,
    ) -> Result<Response<pb::ListStepsResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse = |error| peer::refuse(&self.broker, &caller, "ListSteps", "", &error);
        let after = convert::from_page_token(&request.page_token).map_err(refuse)?;
        let workflow = Some(request.workflow.as_str()).filter(|workflow| !workflow.is_empty());
        let size = convert::page_size(request.page_size);
        let listed = self.broker.steps(&caller, workflow, after, size).map_err(refuse)?;
        let next = listed.next.map(|id| convert::to_page_token(&id.to_string()));
        Ok(Response::new(pb::ListStepsResponse {
            steps: listed.steps.into_iter().map(step).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }
}

fn parse(request: pb::OpenStepRequest) -> Result<StepRequest, Error> {
    Ok(StepRequest {
        workflow: WorkflowName::parse(&request.workflow)?,
        run: RunName::parse(&request.run)?,
        step: StepName::parse(&request.step)?,
        attempt: request.attempt,
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
    }
}
