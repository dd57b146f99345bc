//! `GroupService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::pb::group_service_server::GroupService;
use super::{convert, pb, peer};
use crate::access::Principal;
use crate::broker::{Broker, Error, GroupChange, ListedGroup, NewGroup};
use crate::model::{ConnectionRef, GroupName, Identifiers, IntegrationName, Invalid, ResourceName};

/// The most members in one call.
const MAX_MEMBERS: usize = 1000;

pub(super) struct Groups {
    broker: Arc<Broker>,
}

impl Groups {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    fn refuse(&self, caller: &Principal, method: &str, name: &str, error: &Error) -> Status {
        peer::refuse(&self.broker, caller, method, name, error)
    }

    async fn change_members(
        &self,
        caller: Principal,
        method: &str,
        name: &str,
        members: &[String],
        add: bool,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let refuse = |error| self.refuse(&caller, method, name, &error);
        let group = group_name(name).map_err(refuse)?;
        let members = parse_members(members).map_err(refuse)?;
        let changed = self.broker.change_members(caller.clone(), group, members, add).await;
        Ok(Response::new(to_message(&changed.map_err(refuse)?)))
    }
}

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let group = request.into_inner().group.unwrap_or_default();
        let refuse = |error| self.refuse(&caller, "CreateGroup", &group.name, &error);
        let new = new_group(&group).map_err(refuse)?;
        let created = self.broker.create_group(caller.clone(), new).await.map_err(refuse)?;
        Ok(Response::new(to_message(&created)))
    }

    async fn get_group(
        &self,
        request: Request<pb::GetGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let name = request.into_inner().name;
        let found = group_name(&name).and_then(|name| self.broker.group(&caller, &name));
        let found = found.map_err(|error| self.refuse(&caller, "GetGroup", &name, &error))?;
        Ok(Response::new(to_message(&found)))
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse = |error| self.refuse(&caller, "ListGroups", "", &error);
        let after: Option<GroupName> = convert::from_page_token(&request.page_token)
            .and_then(|after: Option<String>| {
                Ok(after.map(|name| GroupName::parse(&name)).transpose()?)
            })
            .map_err(refuse)?;
        let size = convert::page_size(request.page_size);
        let (groups, next) = self.broker.groups(&caller, after.as_ref(), size).map_err(refuse)?;
        let next = next.map(|name| convert::to_page_token(name.as_str()));
        Ok(Response::new(pb::ListGroupsResponse {
            groups: groups.iter().map(to_message).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn update_group(
        &self,
        request: Request<pb::UpdateGroupRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse = |error| self.refuse(&caller, "UpdateGroup", &request.name, &error);
        let name = group_name(&request.name).map_err(refuse)?;
        let change = change(&request).map_err(refuse)?;
        let updated =
            self.broker.update_group(caller.clone(), name, change).await.map_err(refuse)?;
        Ok(Response::new(to_message(&updated)))
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let name = request.into_inner().name;
        let refuse = |error| self.refuse(&caller, "DeleteGroup", &name, &error);
        let parsed = group_name(&name).map_err(refuse)?;
        self.broker.delete_group(caller.clone(), parsed).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let request = request.into_inner();
        let refuse = |error| self.refuse(&caller, "ListMembers", &request.name, &error);
        let name = group_name(&request.name).map_err(refuse)?;
        let after: Option<ConnectionRef> =
            convert::from_page_token(&request.page_token).map_err(refuse)?;
        let size = convert::page_size(request.page_size);
        let (members, next) =
            self.broker.members(&caller, &name, after.as_ref(), size).map_err(refuse)?;
        let full = |name: &ConnectionRef| ResourceName::Connection(name.clone()).to_string();
        let next = next.map(|name| convert::to_page_token(&name.to_string()));
        Ok(Response::new(pb::ListMembersResponse {
            members: members.iter().map(full).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn add_members(
        &self,
        request: Request<pb::AddMembersRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let pb::AddMembersRequest { name, members } = request.into_inner();
        self.change_members(caller, "AddMembers", &name, &members, true).await
    }

    async fn remove_members(
        &self,
        request: Request<pb::RemoveMembersRequest>,
    ) -> Result<Response<pb::ConnectionGroup>, Status> {
        let caller = peer::admin(&self.broker, &request)?;
        let pb::RemoveMembersRequest { name, members } = request.into_inner();
        self.change_members(caller, "RemoveMembers", &name, &members, false).await
    }
}

fn group_name(name: &str) -> Result<GroupName, Error> {
    match name.parse()? {
        ResourceName::Group(group) => Ok(group),
        _ => Err(Invalid::new("group name", name, "for example groups/aws-accounts").into()),
    }
}

fn identifiers(given: &[String]) -> Result<Identifiers, Error> {
    Identifiers::parse(given.iter().map(String::as_str)).map_err(Error::IdentifierTagInvalid)
}

fn new_group(group: &pb::ConnectionGroup) -> Result<NewGroup, Error> {
    Ok(NewGroup {
        name: group_name(&group.name)?,
        integration: IntegrationName::parse(&group.integration)?,
        identifiers: identifiers(&group.identifiers)?,
        access: convert::bindings(&group.access)?,
    })
}

fn change(request: &pb::UpdateGroupRequest) -> Result<GroupChange, Error> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let replaced = Some(&request.identifiers).filter(|keys| !keys.is_empty());
    Ok(GroupChange {
        new_name: given(&request.new_name).map(|name| GroupName::parse(&name)).transpose()?,
        identifiers: replaced.map(|keys| identifiers(keys)).transpose()?,
        access: convert::bindings(&request.access)?,
        etag: given(&request.etag),
    })
}

fn parse_members(members: &[String]) -> Result<Vec<ConnectionRef>, Error> {
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
    }
}
