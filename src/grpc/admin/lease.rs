//! `LeaseService`.

use tonic::Request;

use super::call::AdminService;
use crate::broker::{Error, LeaseFilter, LeaseSelector, ListedLease};
use crate::grpc::convert::page::{PageRequest, in_collection, page};
use crate::grpc::pb::lease_service_server::LeaseService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{Because, Id, ResourceName, RunName, StepName, WorkflowName};

parse_requests! {
    ListLeasesRequest -> (LeaseFilter, PageRequest<Id>) = |one| {
        let filter = filter(&one.filter.unwrap_or_default())?;
        Ok((filter, PageRequest::parse(one.page_size, &one.page_token)?))
    };
    RevokeLeasesRequest [validate_only] -> (LeaseSelector, Because) = |one| {
        Ok((selector(&one.name, one.filter.as_ref())?, one.reason.parse()?))
    };
}

#[tonic::async_trait]
impl LeaseService for AdminService {
    async fn list_leases(
        &self,
        request: Request<pb::ListLeasesRequest>,
    ) -> Reply<pb::ListLeasesResponse> {
        let (call, (filter, PageRequest { after, size })) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let (listed, has_more) = broker.list_leases(caller, &filter, after, size)?;
            let messages = listed.into_iter().map(to_message);
            let (leases, next_page_token) =
                page(messages, has_more, |one| in_collection(&one.name, "leases/"));
            Ok(pb::ListLeasesResponse { leases, next_page_token })
        })
        .await
    }

    async fn revoke_leases(
        &self,
        request: Request<pb::RevokeLeasesRequest>,
    ) -> Reply<pb::RevokeLeasesResponse> {
        let (call, (selector, reason)) = self.begin_on(request, named)?;
        call.answer(async {
            let is_trial = call.options.validate_only;
            let revoked =
                call.broker.revoke_leases(&call.caller, &selector, reason, is_trial).await?;
            let pending = call.broker.wait_for_endings(&revoked.endings, call.patience).await;
            Ok(pb::RevokeLeasesResponse {
                revoked_leases: convert::count_i32(revoked.revoked),
                pending_endings: convert::pending_endings(pending),
            })
        })
        .await
    }
}

/// The resource of a request, for the journal.
fn named(request: &pb::RevokeLeasesRequest) -> String {
    match &request.filter {
        Some(filter) => filter.connection.clone(),
        None => request.name.clone(),
    }
}

fn filter(given: &pb::LeaseFilter) -> Result<LeaseFilter, Error> {
    let connection = convert::given(&given.connection);
    if given.version != 0 && connection.is_none() {
        let text = "a version is one of a connection: name the connection, too".to_owned();
        return Err(Error::TargetInvalid(text));
    }
    let text = "a version is a number from 1 on";
    let version = (given.version != 0).then(|| u64::try_from(given.version)).transpose();
    Ok(LeaseFilter {
        connection: connection.map(|name| convert::connection_name(&name)).transpose()?,
        workflow: convert::given(&given.workflow)
            .map(|name| WorkflowName::parse(&name))
            .transpose()?,
        run: convert::given(&given.run).map(|name| RunName::parse(&name)).transpose()?,
        step: convert::given(&given.step).map(|name| StepName::parse(&name)).transpose()?,
        version: version.map_err(|_| Error::TargetInvalid(text.to_owned()))?,
    })
}

/// The leases that a request means: one by its name, or those of a filter that has at least one part.
fn selector(name: &str, given: Option<&pb::LeaseFilter>) -> Result<LeaseSelector, Error> {
    let given = given.filter(|given| **given != pb::LeaseFilter::default());
    match (name, given) {
        ("", Some(given)) => filter(given).map(LeaseSelector::All),
        (name, None) if !name.is_empty() => convert::lease_id(name).map(LeaseSelector::One),
        _ => Err(Error::TargetInvalid(
            "say which leases: one by its name, or those of a connection, workflow, run or step"
                .to_owned(),
        )),
    }
}

fn to_message(listed: ListedLease) -> pb::LiveLease {
    let ListedLease { lease, resource, opening } = listed;
    let target = Some(lease.ask.target.to_text()).filter(|target| *target != resource);
    pb::LiveLease {
        name: ResourceName::Lease(lease.id).to_string(),
        resource,
        target: target.unwrap_or_default(),
        version: convert::count(lease.version),
        opening: ResourceName::Opening(opening.id).to_string(),
        executor: opening.key.executor.to_string(),
        workflow: opening.key.workflow.to_string(),
        run: opening.key.run.to_string(),
        step: opening.key.step.to_string(),
        attempt: opening.attempt,
        issue_time: convert::timestamp(lease.issue_time),
        expire_time: convert::timestamp(lease.expire_time),
        watch: lease.is_watch,
        used: lease.ask.action.is_some(),
        mint_handle: lease.credential().and_then(|made| made.handle.clone()).unwrap_or_default(),
        credential_expire_time: lease.credential_expire_time().and_then(convert::timestamp),
    }
}
