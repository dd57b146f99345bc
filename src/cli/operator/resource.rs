//! A connection or a group, as far as commands treat both alike.

use std::collections::BTreeMap;

use prost_types::FieldMask;
use tonic::transport::Channel;

use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;
use crate::model::{ConnectionRef, ResourceName};

/// A connection or a group.
pub struct BoundResource {
    /// Its full name.
    pub name: String,
    /// Its state: a write with another etag fails.
    pub etag: String,
    /// Its access bindings.
    pub access: Vec<pb::AccessBinding>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl From<pb::Connection> for BoundResource {
    fn from(connection: pb::Connection) -> Self {
        let pb::Connection { name, etag, access, labels, .. } = connection;
        Self { name, etag, access, labels }
    }
}

impl From<pb::ConnectionGroup> for BoundResource {
    fn from(group: pb::ConnectionGroup) -> Self {
        let pb::ConnectionGroup { name, etag, access, labels, .. } = group;
        Self { name, etag, access, labels }
    }
}

impl BoundResource {
    /// Every group, then every connection: a connection cannot be deleted while it is a member.
    pub async fn all(channel: &Channel) -> Result<Vec<Self>, Failure> {
        let wanted = pb::ListConnectionsRequest::default();
        let connections = pages::connections(channel, wanted).await?;
        let groups = pages::groups(channel, pb::ListGroupsRequest::default()).await?;
        Ok(groups
            .into_iter()
            .map(Self::from)
            .chain(connections.into_iter().map(Self::from))
            .collect())
    }

    /// Reads what an argument names: INTEGRATION/NAME, or group:NAME.
    ///
    /// # Errors
    /// If it is neither, or as `GetConnection` and `GetGroup`.
    pub async fn read(channel: Channel, reference: &str) -> Result<Self, Failure> {
        if let Some(name) = reference.strip_prefix("group:") {
            let request = pb::GetGroupRequest { name: format!("groups/{name}") };
            let found = GroupServiceClient::new(channel).get_group(request).await?;
            return Ok(found.into_inner().into());
        }
        let name: ConnectionRef = reference.parse()?;
        let request = pb::GetConnectionRequest { name: ResourceName::Connection(name).to_string() };
        let found = ConnectionServiceClient::new(channel).get_connection(request).await?;
        Ok(found.into_inner().into())
    }

    fn is_group(&self) -> bool {
        self.name.starts_with("groups/")
    }

    /// Writes the bindings. Fails with `ETAG_MISMATCH` if somebody else has changed the resource.
    pub async fn write_access(self, channel: Channel) -> Result<Self, Failure> {
        let is_group = self.is_group();
        let update_mask = Some(FieldMask { paths: vec!["access".to_owned()] });
        let Self { name, etag, access, .. } = self;
        if is_group {
            let group = Some(pb::ConnectionGroup { name, etag, access, ..Default::default() });
            let request = pb::UpdateGroupRequest { group, update_mask, ..Default::default() };
            let written = GroupServiceClient::new(channel).update_group(request).await?;
            return Ok(written.into_inner().into());
        }
        let connection = Some(pb::Connection { name, etag, access, ..Default::default() });
        let request = pb::UpdateConnectionRequest { connection, update_mask, ..Default::default() };
        let written = ConnectionServiceClient::new(channel).update_connection(request).await?;
        Ok(written.into_inner().into())
    }

    /// Deletes it. Fails with `ETAG_MISMATCH` if somebody else has changed it.
    pub async fn delete(self, channel: Channel, force: bool) -> Result<(), Failure> {
        let is_group = self.is_group();
        let Self { name, etag, .. } = self;
        if is_group {
            let request = pb::DeleteGroupRequest { name, etag, force, ..Default::default() };
            GroupServiceClient::new(channel).delete_group(request).await?;
        } else {
            let request = pb::DeleteConnectionRequest { name, etag, force, ..Default::default() };
            ConnectionServiceClient::new(channel).delete_connection(request).await?;
        }
        Ok(())
    }
}
