//! `GroupService`.

use std::collections::BTreeSet;

use tonic::{Request, Response, Status};

use super::call::{AdminService, Call};
use crate::broker::{
    Deletion, Error, GroupChange, ListedGroup, MemberChange, NewGroup, Patch, WriteOptions,
};
use crate::grpc::pb::group_service_server::GroupService;
use crate::grpc::{convert, pb};
use crate::model::limits::MAX_PAGE_BYTES;
use crate::model::{ConnectionRef, GroupName, Identifiers, IntegrationName, Invalid, ResourceName};

/// The most members in one call.
const MAX_MEMBERS: usize = 1000;

#[tonic::async_trait]
impl GroupService for AdminService {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let name = |request: &pb::CreateGroupRequest| name_of(request.group.as_ref());
        let (call, request) = self.begin(request, "CreateGroup", name)?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let new = new_group(request.group.unwrap_or_default(), &request.members)?;
            let created = call.broker.create_group(call.caller.clone(), new, options).await?;
            Ok(to_message(&created))
        })
        .await
    }

    async fn get_group(
        &self,
        request: Request<pb::GetGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let (call, request) = self.begin(request, "GetGroup", |one| one.name.clone())?;
        call.answer(async {
            let name = group_name(&request.name)?;
            Ok(to_message(&call.broker.group(&call.caller, &name)?))
        })
        .await
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let (call, request) = self.begin(request, "ListGroups", |_| String::new())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let after: Option<GroupName> = convert::from_page_token(&request.page_token)?;
            let size = convert::page_size(request.page_size);
            let (groups, next) = broker.groups(caller, after.as_ref(), size)?;
            let messages = groups.iter().map(to_message);
            let short =
                |one: &pb::ConnectionGroup| one.name.trim_start_matches("groups/").to_owned();
            let (groups, next_page_token) = convert::page(messages, next.is_some(), short);
            let newer = broker.newer("groups/", &next_page_token);
            Ok(pb::ListGroupsResponse { groups, next_page_token, newer })
        })
        .await
    }

    async fn update_group(
        &self,
        request: Request<pb::UpdateGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let name = |request: &pb::UpdateGroupRequest| name_of(request.group.as_ref());
        let (call, request) = self.begin(request, "UpdateGroup", name)?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let group = request.group.unwrap_or_default();
            let (name, etag) = (group_name(&group.name)?, convert::given(&group.etag));
            let mut change = change(group, convert::mask(request.update_mask).as_ref())?;
            let new_name = convert::given(&request.new_name);
            change.new_name = new_name.map(|name| GroupName::parse(&name)).transpose()?;
            change.removed = parse_members(&request.remove_members)?;
            change.added = parse_members(&request.add_members)?;
            let caller = call.caller.clone();
            let updated = call.broker.update_group(caller, name, change, etag, options).await?;
            Ok(to_message(&updated))
        })
        .await
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.begin(request, "DeleteGroup", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            let name = group_name(&request.name)?;
            let (etag, allow_missing) = (convert::given(&request.etag), request.allow_missing);
            let deletion = Deletion { etag, force: request.force, allow_missing };
            call.broker.delete_group(call.caller.clone(), name, deletion, options).await
        })
        .await
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let (call, request) = self.begin(request, "ListMembers", |one| one.name.clone())?;
        call.read(MAX_PAGE_BYTES, move |broker, caller, _| {
            let name = group_name(&request.name)?;
            let after: Option<ConnectionRef> = convert::from_page_token(&request.page_token)?;
            let size = convert::page_size(request.page_size);
            let (members, next) = broker.members(caller, &name, after.as_ref(), size)?;
            let full = |name: ConnectionRef| ResourceName::Connection(name).to_string();
            let next = next.map(|name| convert::to_page_token(&name.to_string()));
            Ok(pb::ListMembersResponse {
                members: members.into_iter().map(full).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn add_members(
        &self,
        request: Request<pb::AddMembersRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let (call, request) = self.begin(request, "AddMembers", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            change_members(&call, &request.name, &request.members, true, options).await
        })
        .await
    }

    async fn remove_members(
        &self,
        request: Request<pb::RemoveMembersRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let (call, request) = self.begin(request, "RemoveMembers", |one| one.name.clone())?;
        call.answer(async {
            let options = call.options(&request, &request.request_id, request.validate_only)?;
            change_members(&call, &request.name, &request.members, false, options).await
        })
        .await
    }
}

async fn change_members(
    call: &Call,
    name: &str,
    members: &[String],
    add: bool,
    options: WriteOptions,
) -> Result<pb::ConnectionGroup, Error> {
    let name = group_name(name)?;
    let change = MemberChange { add, members: parse_members(members)? };
    let changed = call.broker.change_members(call.caller.clone(), name, change, options).await?;
    Ok(to_message(&changed))
}

fn name_of(group: Option<&pb::ConnectionGroup>) -> String {
    group.map_or_else(String::new, |group| group.name.clone())
}

pub(crate) fn group_name(name: &str) -> Result<GroupName, Error> {
    match name.parse()? {
        ResourceName::Group(group) => Ok(group),
        _ => Err(Invalid::new("group name", name, "for example groups/aws-accounts").into()),
    }
}

pub(crate) fn identifiers(given: &[String]) -> Result<Identifiers, Error> {
    Identifiers::parse(given.iter().map(String::as_str)).map_err(Error::IdentifierTagInvalid)
}

pub(crate) fn new_group(group: pb::ConnectionGroup, members: &[String]) -> Result<NewGroup, Error> {
    Ok(NewGroup {
        name: group_name(&group.name)?,
        integration: IntegrationName::parse(&group.integration)?,
        identifiers: identifiers(&group.identifiers)?,
        members: parse_members(members)?,
        access: convert::bindings(&group.access)?,
        labels: convert::labels(group.labels)?,
    })
}

/// What a message changes: what is set in it, or what a mask names, as a whole.
pub(crate) fn change(
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

pub(crate) fn parse_members(members: &[String]) -> Result<Vec<ConnectionRef>, Error> {
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
    }
}
