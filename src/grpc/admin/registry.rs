//! `OperatorService` and `ExecutorRegistryService`.

use std::collections::BTreeSet;

use tonic::{Request, Response, Status};

use super::call::{AdminService, Call};
use crate::access::{Role, Scope};
use crate::broker::{Error, NewRegistration, WriteOptions};
use crate::catalog::{Registered, Registration};
use crate::grpc::pb::executor_registry_service_server::ExecutorRegistryService;
use crate::grpc::pb::operator_service_server::OperatorService;
use crate::grpc::{convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ExecutorName, Invalid, OperatorName, PinnedCertificate, ResourceName};

#[tonic::async_trait]
impl OperatorService for AdminService {
    async fn create_operator(
        &self,
        request: Request<pb::CreateOperatorRequest>,
    ) -> Result<Response<pb::CreateOperatorResponse>, Status> {
        let name = |request: &pb::CreateOperatorRequest| {
            request.operator.as_ref().map_or_else(String::new, |one| one.name.clone())
        };
        let (call, request) = self.begin(request, "CreateOperator", name)?;
        call.answer(async {
            let operator = request.operator.unwrap_or_default();
            let role = match operator.role() {
                pb::Role::Unspecified => return Err(Error::RoleInvalid),
                pb::Role::Viewer => Role::Viewer,
                pb::Role::Operator => Role::Operator,
                pb::Role::Administrator => Role::Administrator,
            };
            let new = NewRegistration::Operator(operator_name(&operator.name)?, role);
            let options = trial(request.validate_only);
            let enrolled =
                call.broker.enroll(call.caller.clone(), new, &request.csr, options).await?;
            Ok(pb::CreateOperatorResponse {
                operator: Some(operator_message(&enrolled.registration)),
                certificate_chain: enrolled.certificate_chain,
                ca_certificate: call.broker.authority().root_pem().to_owned(),
            })
        })
        .await
    }

    async fn get_operator(
        &self,
        request: Request<pb::GetOperatorRequest>,
    ) -> Result<Response<pb::Operator>, Status> {
        let (call, request) = self.begin(request, "GetOperator", |one| one.name.clone())?;
        call.answer(async {
            let who = Registered::Operator(operator_name(&request.name)?);
            Ok(operator_message(&call.broker.registration(&call.caller, &who)?))
        })
        .await
    }

    async fn list_operators(
        &self,
        request: Request<pb::ListOperatorsRequest>,
    ) -> Result<Response<pb::ListOperatorsResponse>, Status> {
        let (call, request) = self.begin(request, "ListOperators", |_| String::new())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let is_operator = |who: &Registered| matches!(who, Registered::Operator(_));
            let all = broker.registrations(caller, is_operator)?;
            let all = all.iter().map(operator_message).collect();
            let (size, token) = (request.page_size, &request.page_token);
            let (operators, next_page_token) =
                convert::page_of(all, size, token, |one: &pb::Operator| one.name.clone())?;
            let newer = broker.newer("operators/", &next_page_token);
            Ok(pb::ListOperatorsResponse { operators, next_page_token, newer })
        })
        .await
    }

    async fn delete_operator(
        &self,
        request: Request<pb::DeleteOperatorRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.begin(request, "DeleteOperator", |one| one.name.clone())?;
        call.answer(async {
            let who = Registered::Operator(operator_name(&request.name)?);
            remove_registration(&call, who, request.allow_missing, request.validate_only).await
        })
        .await
    }
}

#[tonic::async_trait]
impl ExecutorRegistryService for AdminService {
    async fn create_executor(
        &self,
        request: Request<pb::CreateExecutorRequest>,
    ) -> Result<Response<pb::CreateExecutorResponse>, Status> {
        let name = |request: &pb::CreateExecutorRequest| {
            request.executor.as_ref().map_or_else(String::new, |one| one.name.clone())
        };
        let (call, request) = self.begin(request, "CreateExecutor", name)?;
        call.answer(async {
            let executor = request.executor.unwrap_or_default();
            let new = NewRegistration::Executor(executor_name(&executor.name)?, scope(&executor)?);
            let options = trial(request.validate_only);
            let enrolled =
                call.broker.enroll(call.caller.clone(), new, &request.csr, options).await?;
            Ok(pb::CreateExecutorResponse {
                executor: Some(executor_message(&enrolled.registration)),
                certificate_chain: enrolled.certificate_chain,
                ca_certificate: call.broker.authority().root_pem().to_owned(),
            })
        })
        .await
    }

    async fn get_executor(
        &self,
        request: Request<pb::GetExecutorRequest>,
    ) -> Result<Response<pb::Executor>, Status> {
        let (call, request) = self.begin(request, "GetExecutor", |one| one.name.clone())?;
        call.answer(async {
            let who = Registered::Executor(executor_name(&request.name)?);
            Ok(executor_message(&call.broker.registration(&call.caller, &who)?))
        })
        .await
    }

    async fn list_executors(
        &self,
        request: Request<pb::ListExecutorsRequest>,
    ) -> Result<Response<pb::ListExecutorsResponse>, Status> {
        let (call, request) = self.begin(request, "ListExecutors", |_| String::new())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let is_executor = |who: &Registered| matches!(who, Registered::Executor(_));
            let all = broker.registrations(caller, is_executor)?;
            let all = all.iter().map(executor_message).collect();
            let (size, token) = (request.page_size, &request.page_token);
            let (executors, next_page_token) =
                convert::page_of(all, size, token, |one: &pb::Executor| one.name.clone())?;
            let newer = broker.newer("executors/", &next_page_token);
            Ok(pb::ListExecutorsResponse { executors, next_page_token, newer })
        })
        .await
    }

    async fn delete_executor(
        &self,
        request: Request<pb::DeleteExecutorRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.begin(request, "DeleteExecutor", |one| one.name.clone())?;
        call.answer(async {
            let who = Registered::Executor(executor_name(&request.name)?);
            remove_registration(&call, who, request.allow_missing, request.validate_only).await
        })
        .await
    }
}

async fn remove_registration(
    call: &Call,
    who: Registered,
    allow_missing: bool,
    validate_only: bool,
) -> Result<(), Error> {
    call.broker
        .remove_registration(call.caller.clone(), who, allow_missing, trial(validate_only))
        .await
}

fn trial(validate_only: bool) -> WriteOptions {
    WriteOptions { request: None, validate_only }
}

pub(crate) fn operator_name(name: &str) -> Result<OperatorName, Error> {
    match name.parse()? {
        ResourceName::Operator(operator) => Ok(operator),
        _ => Err(Invalid::new("operator name", name, "for example operators/alice").into()),
    }
}

pub(crate) fn executor_name(name: &str) -> Result<ExecutorName, Error> {
    match name.parse()? {
        ResourceName::Executor(executor) => Ok(executor),
        _ => Err(Invalid::new("executor name", name, "for example executors/build-host-1").into()),
    }
}

pub(crate) fn scope(executor: &pb::Executor) -> Result<Scope, Error> {
    let workflows = executor.workflows.iter().map(|glob| glob.parse());
    let workflows: BTreeSet<_> =
        workflows.collect::<Result<_, _>>().map_err(Error::PrincipalInvalid)?;
    if workflows.is_empty() {
        let rule = "name the workflows that it may open steps of, or * for all";
        return Err(Error::PrincipalInvalid(Invalid::new("list of workflows", "", rule)));
    }
    let run_as = executor.run_as.iter().map(|pattern| pattern.parse());
    let run_as = run_as.collect::<Result<_, _>>().map_err(Error::PrincipalInvalid)?;
    Ok(Scope { workflows, run_as })
}

fn operator_message(registration: &Registration) -> pb::Operator {
    let role = match registration.role {
        None => pb::Role::Unspecified,
        Some(Role::Viewer) => pb::Role::Viewer,
        Some(Role::Operator) => pb::Role::Operator,
        Some(Role::Administrator) => pb::Role::Administrator,
    };
    pb::Operator {
        name: registration.who.resource().to_string(),
        role: role.into(),
        certificates: registration.certificates.iter().map(certificate).collect(),
    }
}

fn executor_message(registration: &Registration) -> pb::Executor {
    let scope = &registration.scope;
    pb::Executor {
        name: registration.who.resource().to_string(),
        workflows: scope.workflows.iter().map(ToString::to_string).collect(),
        run_as: scope.run_as.iter().map(ToString::to_string).collect(),
        local_only: registration.local_only,
        certificates: registration.certificates.iter().map(certificate).collect(),
    }
}

fn certificate(pinned: &PinnedCertificate) -> pb::ClientCertificate {
    pb::ClientCertificate {
        sha256: hex::encode(pinned.sha256),
        issue_time: convert::timestamp(pinned.not_before),
        expire_time: convert::timestamp(pinned.not_after),
    }
}
