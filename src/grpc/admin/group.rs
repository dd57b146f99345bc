//! `GroupService`.

use std::collections::BTreeSet;

use tonic::Request;

use super::call::{AdminService, Call};
use crate::broker::{
    CandidateConnection, CandidateQuery, ConnectionQuery, Deletion, Error, GroupChange, GroupQuery,
    ListedGroup, MemberChange, NewGroup, Order, OrderBy, Patch, TimeFilter, Unfit,
};
use crate::catalog::{Filter, GroupMetadata};
use crate::grpc::convert::page::{ListRequest, PageRequest, in_collection, page};
use crate::grpc::pb::group_service_server::GroupService;
use crate::grpc::request::parse_requests;
use crate::grpc::{Reply, convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ConnectionRef, GroupName, Identifiers, IntegrationName, ResourceName};

/// The most members in one call.
const MAX_MEMBERS: usize = 1000;

parse_requests! {
    ListCandidatesRequest -> CandidateList = |one| candidate_list(&one);
    AddMembersRequest [request_id validate_only] -> (GroupName, MemberChange) =
        |one| member_change(&one.name, &one.members, true);
    CreateGroupRequest [request_id validate_only] -> NewGroup =
        |one| new_group(one.group.unwrap_or_default(), &one.members);
    DeleteGroupRequest [request_id validate_only] -> (GroupName, Deletion) = |one| {
        let etag = convert::given(&one.etag);
        let deletion = Deletion { etag, force: one.force, allow_missing: one.allow_missing };
        Ok((convert::group_name(&one.name)?, deletion))
    };
    GetGroupRequest -> GroupName = |one| convert::group_name(&one.name);
    ListGroupsRequest -> GroupList = |one| {
        let filter = convert::filter(&one.filter)?;
        let order = Order::parse(&one.order_by, &OrderBy::OF_GROUPS)?;
        let query = ("groups", &one.filter);
        let asked = ListRequest::parse(one.page_size, &one.page_token, order, query)?;
        Ok(GroupList { asked, filter })
    };
    ListMembersRequest -> (GroupName, PageRequest<ConnectionRef>) = |one| {
        let name = convert::group_name(&one.name)?;
        Ok((name, PageRequest::parse(one.page_size, &one.page_token)?))
    };
    RemoveMembersRequest [request_id validate_only] -> (GroupName, MemberChange) =
        |one| member_change(&one.name, &one.members, false);
    UpdateGroupRequest [request_id validate_only] -> (GroupName, GroupChange, Option<String>) = |one| {
        let group = one.group.unwrap_or_default();
        let (name, etag) = (convert::group_name(&group.name)?, convert::given(&group.etag));
        let mut change = change(group, convert::mask(one.update_mask).as_ref())?;
        let new_name = convert::given(&one.new_name);
        change.new_name = new_name.map(|name| GroupName::parse(&name)).transpose()?;
        change.removed = members(&one.remove_members)?;
        change.added = members(&one.add_members)?;
        Ok((name, change, etag))
    };
}

/// Which groups a list shows.
pub struct GroupList {
    asked: ListRequest<GroupName>,
    filter: Filter<GroupMetadata>,
}

#[tonic::async_trait]
impl GroupService for AdminService {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Reply<pb::ConnectionGroup> {
        let (call, new) = self.begin_on(request, |one| name_of(one.group.as_ref()))?;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            Ok(to_message(&call.broker.create_group(caller, new, options).await?))
        })
        .await
    }

    async fn get_group(&self, request: Request<pb::GetGroupRequest>) -> Reply<pb::ConnectionGroup> {
        let (call, name) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(async { Ok(to_message(&call.broker.group(&call.caller, &name)?)) }).await
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Reply<pb::ListGroupsResponse> {
        let (call, GroupList { asked, filter }) = self.begin(request)?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let query = GroupQuery { filter, page: asked.page.clone() };
            let answer = asked.answer(&broker.groups(caller, &query, is_cancelled)?, to_message);
            let newer = broker.newer("groups/", &answer.next_page_token);
            Ok(pb::ListGroupsResponse {
                groups: answer.messages,
                next_page_token: answer.next_page_token,
                newer,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
        })
        .await
    }

    async fn update_group(
        &self,
        request: Request<pb::UpdateGroupRequest>,
    ) -> Reply<pb::ConnectionGroup> {
        let (call, update) = self.begin_on(request, |one| name_of(one.group.as_ref()))?;
        let (name, change, etag) = update;
        call.answer(async {
            let (caller, options) = (call.caller.clone(), call.options.clone());
            let updated = call.broker.update_group(caller, name, change, etag, options).await?;
            Ok(to_message(&updated))
        })
        .await
    }

    async fn delete_group(&self, request: Request<pb::DeleteGroupRequest>) -> Reply<()> {
        let (call, (name, deletion)) = self.begin_on(request, |one| one.name.clone())?;
        let (caller, options) = (call.caller.clone(), call.options.clone());
        call.answer(call.broker.delete_group(caller, name, deletion, options)).await
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Reply<pb::ListMembersResponse> {
        let (call, (name, asked)) = self.begin_on(request, |one| one.name.clone())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let (members, next) =
                broker.members(caller, &name, asked.after.as_ref(), asked.size)?;
            let full = |name| ResourceName::Connection(name).to_string();
            let (members, next_page_token) =
                page(members.into_iter().map(full), next.is_some(), |one| {
                    in_collection(one, "connections/")
                });
            Ok(pb::ListMembersResponse { members, next_page_token })
        })
        .await
    }

    async fn list_candidates(
        &self,
        request: Request<pb::ListCandidatesRequest>,
    ) -> Reply<pb::ListCandidatesResponse> {
        let (call, list) = self.begin_on(request, |one| one.group.clone())?;
        let CandidateList { asked, query } = list;
        call.read(MAX_PAGE_BYTES, move |broker, caller, is_cancelled| {
            let found = broker.candidates(caller, &query, is_cancelled)?;
            let answer = asked.answer(&found, candidate);
            Ok(pb::ListCandidatesResponse {
                candidates: answer.messages,
                next_page_token: answer.next_page_token,
                total_size: answer.total_size,
                total_size_estimated: answer.total_size_estimated,
            })
        })
        .await
    }

    async fn add_members(
        &self,
        request: Request<pb::AddMembersRequest>,
    ) -> Reply<pb::ConnectionGroup> {
        let (call, (name, change)) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(change_members(&call, name, change)).await
    }

    async fn remove_members(
        &self,
        request: Request<pb::RemoveMembersRequest>,
    ) -> Reply<pb::ConnectionGroup> {
        let (call, (name, change)) = self.begin_on(request, |one| one.name.clone())?;
        call.answer(change_members(&call, name, change)).await
    }
}

/// The candidates that a list shows.
pub struct CandidateList {
    asked: ListRequest<ConnectionRef>,
    query: CandidateQuery,
}

fn candidate_list(request: &pb::ListCandidatesRequest) -> Result<CandidateList, Error> {
    let group =
        convert::given(&request.group).map(|name| convert::group_name(&name)).transpose()?;
    let integration = convert::given(&request.integration);
    let integration = integration.map(|name| IntegrationName::parse(&name)).transpose()?;
    let given = &request.identifiers;
    let identifiers = (!given.is_empty()).then(|| identifiers(given)).transpose()?;
    let order = Order::parse(&request.order_by, &OrderBy::OF_CONNECTIONS)?;
    let of = (&request.group, &request.integration, given, &request.members);
    let query = ("candidates", of, &request.filter, request.fitting_only);
    let asked = ListRequest::parse(request.page_size, &request.page_token, order, query)?;
    let connections = ConnectionQuery {
        filter: convert::filter(&request.filter)?,
        times: TimeFilter::default(),
        page: asked.page.clone(),
    };
    let members = members(&request.members)?;
    let fitting_only = request.fitting_only;
    let query =
        CandidateQuery { group, integration, identifiers, members, fitting_only, connections };
    Ok(CandidateList { asked, query })
}

fn candidate(one: &CandidateConnection) -> pb::Candidate {
    use pb::CandidateReason as Reason;
    let full = |name: &ConnectionRef| ResourceName::Connection(name.clone()).to_text();
    let problem = |unfit: &Unfit| {
        let (reason, identifier, other) = match unfit {
            Unfit::Member => (Reason::Member, String::new(), String::new()),
            Unfit::OtherIntegration => (Reason::IntegrationMismatch, String::new(), String::new()),
            Unfit::Missing(key) => (Reason::IdentifierMissing, key.to_string(), String::new()),
            Unfit::SameValues(other) => (Reason::IdentifiersNotUnique, String::new(), full(other)),
            Unfit::NotResolver => (Reason::ResolverRequired, String::new(), String::new()),
        };
        pb::CandidateProblem { reason: reason.into(), identifier, other }
    };
    pb::Candidate {
        name: full(&one.name),
        values: one.values.iter().map(ToString::to_string).collect(),
        problems: one.unfit.iter().map(problem).collect(),
    }
}

async fn change_members(
    call: &Call,
    name: GroupName,
    change: MemberChange,
) -> Result<pb::ConnectionGroup, Error> {
    let (caller, options) = (call.caller.clone(), call.options.clone());
    Ok(to_message(&call.broker.change_members(caller, name, change, options).await?))
}

fn member_change(
    name: &str,
    members: &[String],
    add: bool,
) -> Result<(GroupName, MemberChange), Error> {
    let name = convert::group_name(name)?;
    Ok((name, MemberChange { add, members: self::members(members)? }))
}

fn name_of(group: Option<&pb::ConnectionGroup>) -> String {
    group.map_or_else(String::new, |group| group.name.clone())
}

pub(crate) fn identifiers(given: &[String]) -> Result<Identifiers, Error> {
    Identifiers::parse(given.iter().map(String::as_str)).map_err(Error::IdentifierTagInvalid)
}

fn new_group(group: pb::ConnectionGroup, members: &[String]) -> Result<NewGroup, Error> {
    Ok(NewGroup {
        name: convert::group_name(&group.name)?,
        integration: IntegrationName::parse(&group.integration)?,
        identifiers: identifiers(&group.identifiers)?,
        members: self::members(members)?,
        access: convert::bindings(&group.access)?,
        labels: convert::labels(group.labels)?,
    })
}

/// The change that a message asks for. Without a mask what is set in it is merged; with a mask each named part is
/// replaced as a whole.
fn change(
    group: pb::ConnectionGroup,
    mask: Option<&BTreeSet<String>>,
) -> Result<GroupChange, Error> {
    let mut change = GroupChange::default();
    let Some(paths) = mask else {
        if !group.identifiers.is_empty() {
            change.identifiers = Some(identifiers(&group.identifiers)?);
        }
        change.access = Patch::Merge(convert::bindings(&group.access)?);
        change.labels = Patch::Merge(convert::labels(group.labels)?);
        return Ok(change);
    };
    let paths = paths.iter().flat_map(|path| match path.as_str() {
        "*" => vec!["identifiers", "access", "labels"],
        path => vec![path],
    });
    for path in paths {
        match path {
            "identifiers" => change.identifiers = Some(identifiers(&group.identifiers)?),
            "access" => change.access = Patch::Replace(convert::bindings(&group.access)?),
            "labels" => change.labels = Patch::Replace(convert::labels(group.labels.clone())?),
            path => return Err(Error::UpdateMaskInvalid(path.chars().take(64).collect())),
        }
    }
    Ok(change)
}

pub(super) fn members(members: &[String]) -> Result<Vec<ConnectionRef>, Error> {
    if members.len() > MAX_MEMBERS {
        return Err(Error::TooLarge(format!("at most {MAX_MEMBERS} members in one call")));
    }
    members.iter().map(|name| convert::connection_name(name)).collect()
}

fn to_message(group: &ListedGroup) -> pb::ConnectionGroup {
    let metadata = &group.metadata;
    pb::ConnectionGroup {
        name: ResourceName::Group(metadata.name.clone()).to_string(),
        uid: metadata.uid.to_string(),
        integration: metadata.integration.to_string(),
        identifiers: metadata.identifiers.iter().map(ToString::to_string).collect(),
        access: convert::access(&metadata.access),
        member_count: convert::count(group.members),
        etag: metadata.etag(),
        create_time: convert::timestamp(metadata.create_time),
        update_time: convert::timestamp(metadata.update_time),
        updated_by: metadata.updated_by.clone(),
        labels: metadata.labels.as_map().clone(),
        last_use_time: group.used.and_then(|used| convert::timestamp(used.last)),
        use_count: convert::count(group.used.map_or(0, |used| used.times)),
        uses: convert::uses(&group.users),
    }
}
