//! Every request, read as far as can be without a broker: from bytes to the words of the model, by the
//! functions that the services use. Nobody is served here. It is for whoever looks for bytes that do harm,
//! who needs neither connection nor caller nor store for it.

use prost::{Message, Name};
use tonic::Status;

use super::admin::system::tail;
use super::admin::{apply, connection, executor, group, integration, registry, secret, system};
use super::convert::status;
use super::edge::unknown_fields;
use super::{convert, pb, step};
use crate::broker::Error;
use crate::catalog::ConnectionFilter;
use crate::model::{ConnectionRef, GroupName, Id, IntegrationName, RunName, WorkflowName};

/// What becomes of a request's bytes.
pub enum Read {
    /// They are no such message.
    Malformed,
    /// They are answered with this.
    Refused(Status),
    /// The broker would be asked.
    Taken,
}

/// A request's message by name, and how it is read.
pub type Request = (&'static str, fn(&[u8]) -> Read);

fn read<T: Message + Name + Default>(
    bytes: &[u8],
    parse: impl FnOnce(T) -> Result<(), Error>,
) -> Read {
    if let Err(status) = unknown_fields::check::<T>(bytes) {
        return Read::Refused(status);
    }
    match T::decode(bytes) {
        Err(_) => Read::Malformed,
        Ok(message) => match parse(message) {
            Ok(()) => Read::Taken,
            Err(error) => Read::Refused(status::to_status(&error)),
        },
    }
}

/// A row of a table: the message, and what its service does first with one.
macro_rules! request {
    ($message:ident, $parse:expr) => {
        (stringify!($message), |bytes| read::<pb::$message>(bytes, $parse))
    };
}

/// The requests of the step door.
pub const STEP_REQUESTS: &[Request] = &[
    request!(BatchResolveRequest, |one| {
        step::check_batch(one.requests.len())?;
        one.requests.into_iter().try_for_each(|one| step::parse(one).map(drop))
    }),
    request!(RenewLeaseRequest, |one| {
        convert::duration(one.ttl);
        step::lease_id(&one.name).map(drop)
    }),
    request!(ResolveRequest, |one| step::parse(one).map(drop)),
    request!(RevokeLeaseRequest, |one| step::lease_id(&one.name).map(drop)),
    request!(WatchRequest, |one| step::parse(one.request.unwrap_or_default()).map(drop)),
    request!(WhoAmIRequest, |_| Ok(())),
];

/// The requests of the admin door about what is stored.
pub const RESOURCE_REQUESTS: &[Request] = &[
    request!(AddMembersRequest, |one| {
        convert::request_id(&one.request_id)?;
        group::group_name(&one.name)?;
        group::parse_members(&one.members).map(drop)
    }),
    request!(ApplyRequest, |one| apply::document(one).map(drop)),
    request!(CreateConnectionRequest, |one| {
        convert::request_id(&one.request_id)?;
        connection::document(one.connection.unwrap_or_default()).map(drop)
    }),
    request!(CreateGroupRequest, |one| {
        convert::request_id(&one.request_id)?;
        group::new_group(one.group.unwrap_or_default(), &one.members).map(drop)
    }),
    request!(CreateIntegrationRequest, |one| {
        convert::request_id(&one.request_id)?;
        checked_integration(one.integration)
    }),
    request!(DeleteConnectionRequest, |one| {
        convert::request_id(&one.request_id)?;
        convert::connection_name(&one.name).map(drop)
    }),
    request!(DeleteGroupRequest, |one| {
        convert::request_id(&one.request_id)?;
        group::group_name(&one.name).map(drop)
    }),
    request!(DeleteIntegrationRequest, |one| {
        convert::request_id(&one.request_id)?;
        integration::integration_name(&one.name).map(drop)
    }),
    request!(DeleteSecretRequest, |one| {
        convert::request_id(&one.request_id)?;
        secret::secret_name(&one.name).map(drop)
    }),
    request!(GetConnectionRequest, |one| convert::connection_name(&one.name).map(drop)),
    request!(GetGroupRequest, |one| group::group_name(&one.name).map(drop)),
    request!(GetIntegrationRequest, |one| integration::integration_name(&one.name).map(drop)),
    request!(ListConnectionsRequest, |one| {
        convert::from_page_token::<ConnectionRef>(&one.page_token)?;
        let filter = ConnectionFilter::parse(&one.filter);
        filter.map_err(|invalid| Error::FilterInvalid(invalid.to_string()))?;
        paged::<IntegrationName>(one.page_size, "")
    }),
    request!(ListGroupsRequest, |one| paged::<GroupName>(one.page_size, &one.page_token)),
    request!(ListIntegrationsRequest, |one| paged::<IntegrationName>(
        one.page_size,
        &one.page_token
    )),
    request!(ListMembersRequest, |one| {
        convert::from_page_token::<ConnectionRef>(&one.page_token)?;
        group::group_name(&one.name).map(drop)
    }),
    request!(ListSecretsRequest, |one| {
        secret::workflow(&one.workflow)?;
        secret::after(&one.page_token)?;
        paged::<WorkflowName>(one.page_size, "")
    }),
    request!(PlanRequest, |one| apply::document(one.document.unwrap_or_default()).map(drop)),
    request!(PutSecretRequest, |one| {
        convert::request_id(&one.request_id)?;
        secret::secret_name(&one.name).map(drop)
    }),
    request!(RemoveMembersRequest, |one| {
        group::group_name(&one.name)?;
        group::parse_members(&one.members).map(drop)
    }),
    request!(TestConnectionRequest, |one| convert::connection_name(&one.name).map(drop)),
    request!(UpdateConnectionRequest, |one| {
        let connection = one.connection.unwrap_or_default();
        match convert::mask(one.update_mask) {
            None => connection::document(connection).map(drop),
            Some(paths) => connection::masked(connection, &paths).map(drop),
        }
    }),
    request!(UpdateGroupRequest, |one| {
        let group = one.group.unwrap_or_default();
        group::group_name(&group.name)?;
        group::parse_members(&one.remove_members)?;
        group::parse_members(&one.add_members)?;
        group::change(group, convert::mask(one.update_mask).as_ref()).map(drop)
    }),
    request!(UpdateIntegrationRequest, |one| checked_integration(one.integration)),
];

/// The requests of the admin door about who there is, what runs, and the broker itself.
pub const OTHER_REQUESTS: &[Request] = &[
    request!(CloseRunRequest, |one| run(&one.workflow, &one.run)),
    request!(CloseStepRequest, |one| executor::selector(&one).map(drop)),
    request!(CreateExecutorRequest, |one| {
        let executor = one.executor.unwrap_or_default();
        registry::executor_name(&executor.name)?;
        registry::scope(&executor)?;
        crate::identity::requested_key(&one.csr).map(drop).map_err(Error::from)
    }),
    request!(CreateOperatorRequest, |one| {
        registry::operator_name(&one.operator.unwrap_or_default().name)?;
        crate::identity::requested_key(&one.csr).map(drop).map_err(Error::from)
    }),
    request!(DeleteExecutorRequest, |one| registry::executor_name(&one.name).map(drop)),
    request!(DeleteOperatorRequest, |one| registry::operator_name(&one.name).map(drop)),
    request!(ExplainRequest, |one| match one.question {
        None => Err(Error::DecisionInvalid(String::new())),
        Some(pb::explain_request::Question::DecisionId(id)) => system::decision_name(&id).map(drop),
        Some(pb::explain_request::Question::DryRun(asked)) => system::dry_run(&asked).map(drop),
    }),
    request!(GetExecutorRequest, |one| registry::executor_name(&one.name).map(drop)),
    request!(GetOperatorRequest, |one| registry::operator_name(&one.name).map(drop)),
    request!(GetRunRequest, |one| match convert::given(&one.workflow) {
        Some(workflow) => run(&workflow, &one.run),
        None => Ok(RunName::parse(&one.run).map(drop)?),
    }),
    request!(BackupRequest, |_| Ok(())),
    request!(ListKeysRequest, |_| Ok(())),
    request!(RotateDekRequest, |_| Ok(())),
    request!(RotateKekRequest, |_| Ok(())),
    request!(EndQuarantineRequest, |_| Ok(())),
    request!(GetStatusRequest, |_| Ok(())),
    request!(ListExecutorsRequest, |one| {
        convert::page_of(Vec::<pb::Executor>::new(), one.page_size, &one.page_token, |one| {
            one.name.clone()
        })
        .map(drop)
    }),
    request!(ListOperatorsRequest, |one| {
        convert::page_of(Vec::<pb::Operator>::new(), one.page_size, &one.page_token, |one| {
            one.name.clone()
        })
        .map(drop)
    }),
    request!(ListStepsRequest, |one| convert::from_page_token::<Id>(&one.page_token).map(drop)),
    request!(OpenStepRequest, |one| {
        convert::request_id(&one.request_id)?;
        executor::parse(one, None).map(drop)
    }),
    request!(RenewCertificateRequest, |one| {
        crate::identity::requested_key(&one.csr).map(drop).map_err(Error::from)
    }),
    request!(SuggestAccessRequest, |one| Ok(WorkflowName::parse(&one.workflow).map(drop)?)),
    request!(TailJournalRequest, |one| tail::parse(one).map(drop)),
    request!(RenewStepRequest, |one| {
        let pb::RenewStepRequest { name, workflow, run, step } = one;
        executor::selector(&pb::CloseStepRequest { name, workflow, run, step }).map(drop)
    }),
];

fn run(workflow: &str, run: &str) -> Result<(), Error> {
    WorkflowName::parse(workflow)?;
    RunName::parse(run)?;
    Ok(())
}

/// A page token that is a name, and a size.
fn paged<T: std::str::FromStr>(size: i32, token: &str) -> Result<(), Error> {
    convert::page_size(size);
    convert::from_page_token::<T>(token).map(drop)
}

fn checked_integration(message: Option<pb::Integration>) -> Result<(), Error> {
    let integration = integration::from_message(message.unwrap_or_default())?;
    crate::integration::check_own(&integration).map_err(Error::IntegrationInvalid)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_request_of_the_api_is_read_here() {
        let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
        let files = set.file.iter().filter(|file| file.package() == "keyhatch.v1");
        let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
        let asked: BTreeSet<_> =
            methods.map(|method| method.input_type().rsplit('.').next().unwrap()).collect();
        let tables = [STEP_REQUESTS, RESOURCE_REQUESTS, OTHER_REQUESTS];
        let read: BTreeSet<_> = tables.into_iter().flatten().map(|(name, _)| *name).collect();
        assert_eq!(read, asked);
    }
}
