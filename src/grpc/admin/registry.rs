//! `OperatorService` and `ExecutorRegistryService`.

use std::collections::BTreeSet;

use tonic::Request;

use super::abilities::included;
use super::call::{AdminService, Call};
use crate::access::{Principal, Role, Scope};
use crate::broker::{Error, NewRegistration};
use crate::catalog::{Registered, Registration};
use crate::grpc::convert::page::{PageRequest, page_of};
use crate::grpc::pb::executor_registry_service_server::ExecutorRegistryService;
use crate::grpc::pb::operator_service_server::OperatorService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{Invalid, OperatorName, PinnedCertificate};

parse_requests! {
    CreateExecutorRequest [validate_only] -> (NewRegistration, Vec<u8>) = |one| {
        let executor = one.executor.unwrap_or_default();
        let name = convert::executor_name(&executor.name)?;
        Ok((NewRegistration::Executor(name, scope(&executor)?), one.csr))
    };
    CreateOperatorRequest [validate_only] -> (NewRegistration, Vec<u8>) = |one| {
        let operator = one.operator.unwrap_or_default();
        let (name, remote) = (convert::operator_name(&operator.name)?, operator.remote);
        Ok((NewRegistration::Operator { name, role: role(operator.role())?, remote }, one.csr))
    };
    DeleteExecutorRequest [validate_only] -> (Registered, bool) =
        |one| Ok((Registered::Executor(convert::executor_name(&one.name)?), one.allow_missing));
    DeleteOperatorRequest [validate_only] -> (Registered, bool) =
        |one| Ok((Registered::Operator(convert::operator_name(&one.name)?), one.allow_missing));
    GetExecutorRequest -> Registered =
        |one| Ok(Registered::Executor(convert::executor_name(&one.name)?));
    GetOperatorRequest -> Registered =
        |one| Ok(Registered::Operator(convert::operator_name(&one.name)?));
    ListExecutorsRequest -> PageRequest<String> =
        |one| PageRequest::parse(one.page_size, &one.page_token);
    ListOperatorsRequest -> PageRequest<String> =
        |one| PageRequest::parse(one.page_size, &one.page_token);
    OperatorServiceWhoAmIRequest -> () = |_| Ok(());
    UpdateOperatorRequest [validate_only] -> (OperatorName, bool) = |one| {
        let operator = one.operator.unwrap_or_default();
        let paths = convert::mask(one.update_mask).unwrap_or_default();
        match paths.iter().find(|path| *path != "remote") {
            Some(path) => Err(Error::UpdateMaskInvalid(path.clone())),
            None if paths.is_empty() => Err(Error::UpdateMaskInvalid(String::new())),
            None => Ok((convert::operator_name(&operator.name)?, operator.remote)),
        }
    };
}

#[tonic::async_trait]
impl OperatorService for AdminService {
    async fn create_operator(
        &self,
        request: Request<pb::CreateOperatorRequest>,
    ) -> Reply<pb::CreateOperatorResponse> {
        let (call, new) = self.begin_on(request, |one| {
            one.operator.as_ref().map_or_else(String::new, |one| one.name.clone())
        })?;
        call.answer(async {
            let (registration, certificate_chain, ca_certificate) = enroll(&call, new).await?;
            let operator = Some(operator_message(&registration));
            let door = call.broker.tcp_door().filter(|_| registration.remote);
            let address = door.map(|door| door.address.to_string()).unwrap_or_default();
            let broker = door.map(|door| door.broker.to_string()).unwrap_or_default();
            Ok(pb::CreateOperatorResponse {
                operator,
                certificate_chain,
                ca_certificate,
                address,
                broker,
            })
        })
        .await
    }

    async fn get_operator(&self, request: Request<pb::GetOperatorRequest>) -> Reply<pb::Operator> {
        let (call, who) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async { Ok(operator_message(&call.broker.registration(&call.caller, &who)?)) })
            .await
    }

    async fn list_operators(
        &self,
        request: Request<pb::ListOperatorsRequest>,
    ) -> Reply<pb::ListOperatorsResponse> {
        let (call, asked) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let is_operator = |who: &Registered| matches!(who, Registered::Operator(_));
            let all = broker.registrations(caller, is_operator)?;
            let (operators, next_page_token) =
                page_of(all.iter().map(operator_message), &asked, |one| &one.name);
            let newer = broker.newer("operators/", &next_page_token);
            Ok(pb::ListOperatorsResponse { operators, next_page_token, newer })
        })
        .await
    }

    async fn delete_operator(&self, request: Request<pb::DeleteOperatorRequest>) -> Reply<()> {
        let (call, (who, allow_missing)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(call.broker.remove_registration(caller, who, allow_missing, options)).await
    }

    async fn update_operator(
        &self,
        request: Request<pb::UpdateOperatorRequest>,
    ) -> Reply<pb::Operator> {
        let (call, (name, remote)) = self.begin_on(request, |one| {
            one.operator.as_ref().map_or_else(String::new, |one| one.name.clone())
        })?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(async {
            let changed = call.broker.set_remote(caller, name, remote, options).await?;
            Ok(operator_message(&changed))
        })
        .await
    }

    async fn who_am_i(
        &self,
        request: Request<pb::OperatorServiceWhoAmIRequest>,
    ) -> Reply<pb::OperatorServiceWhoAmIResponse> {
        let (call, ()) = self.begin(request)?;
        call.answer(async {
            let Principal::Operator(name, role, _) = &call.caller else {
                return Err(Error::OperatorRequired);
            };
            let who = Registered::Operator(name.clone());
            let registration = call.broker.registration(&call.caller, &who)?;
            Ok(pb::OperatorServiceWhoAmIResponse {
                spiffe_id: call.peer.svid.id.uri(call.broker.authority().domain()),
                operator: Some(operator_message(&registration)),
                certificate_expire_time: convert::timestamp(call.peer.svid.not_after),
                methods: included(*role),
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl ExecutorRegistryService for AdminService {
    async fn create_executor(
        &self,
        request: Request<pb::CreateExecutorRequest>,
    ) -> Reply<pb::CreateExecutorResponse> {
        let (call, new) = self.begin_on(request, |one| {
            one.executor.as_ref().map_or_else(String::new, |one| one.name.clone())
        })?;
        call.answer(async {
            let (registration, certificate_chain, ca_certificate) = enroll(&call, new).await?;
            let executor = Some(executor_message(&registration));
            Ok(pb::CreateExecutorResponse { executor, certificate_chain, ca_certificate })
        })
        .await
    }

    async fn get_executor(&self, request: Request<pb::GetExecutorRequest>) -> Reply<pb::Executor> {
        let (call, who) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async { Ok(executor_message(&call.broker.registration(&call.caller, &who)?)) })
            .await
    }

    async fn list_executors(
        &self,
        request: Request<pb::ListExecutorsRequest>,
    ) -> Reply<pb::ListExecutorsResponse> {
        let (call, asked) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let is_executor = |who: &Registered| matches!(who, Registered::Executor(_));
            let all = broker.registrations(caller, is_executor)?;
            let (executors, next_page_token) =
                page_of(all.iter().map(executor_message), &asked, |one| &one.name);
            let newer = broker.newer("executors/", &next_page_token);
            Ok(pb::ListExecutorsResponse { executors, next_page_token, newer })
        })
        .await
    }

    async fn delete_executor(&self, request: Request<pb::DeleteExecutorRequest>) -> Reply<()> {
        let (call, (who, allow_missing)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(call.broker.remove_registration(caller, who, allow_missing, options)).await
    }
}

/// Registers an operator or executor. Returns the registration, its certificate chain and the root certificate, both
/// PEM.
async fn enroll(
    call: &Call,
    (new, csr): (NewRegistration, Vec<u8>),
) -> Result<(Registration, String, String), Error> {
    let (caller, options) = (call.caller.clone(), call.options.clone());
    let enrolled = call.broker.enroll(caller, new, &csr, options).await?;
    let root = call.broker.authority().root_pem().to_owned();
    Ok((enrolled.registration, enrolled.certificate_chain, root))
}

fn role(given: pb::Role) -> Result<Role, Error> {
    match given {
        pb::Role::Unspecified => Err(Error::RoleInvalid),
        pb::Role::Viewer => Ok(Role::Viewer),
        pb::Role::Operator => Ok(Role::Operator),
        pb::Role::Administrator => Ok(Role::Administrator),
    }
}

fn scope(executor: &pb::Executor) -> Result<Scope, Error> {
    let workflows = executor.workflows.iter().map(|glob| glob.parse());
    let workflows: BTreeSet<_> =
        workflows.collect::<Result<_, _>>().map_err(Error::PrincipalInvalid)?;
    if workflows.is_empty() {
        let rule = "name the workflows whose steps the executor may open, or * for all";
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
        remote: registration.remote,
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
