//! What a label says belongs to the files, and is not in them any more.

use std::collections::BTreeSet;

use tonic::transport::Channel;

use super::connection::confirm;
use super::failure::Failure;
use super::pages;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;

/// Connections and groups to delete.
#[derive(Default)]
pub struct Prunable {
    connections: Vec<pb::Connection>,
    groups: Vec<pb::ConnectionGroup>,
}

/// What became of it.
pub struct Pruned {
    /// What was deleted.
    pub names: Vec<String>,
    /// What ended it before its end.
    pub outcome: Result<(), Failure>,
}

impl Prunable {
    /// What has all of these labels and is not among the documents.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn find(
        channel: &Channel,
        labels: &[(String, String)],
        described: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let has_labels = |has: &std::collections::BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| has.get(key) == Some(value))
        };
        let mut connections =
            pages::connections(channel, pb::ListConnectionsRequest::default()).await?;
        connections.retain(|one| has_labels(&one.labels) && !described.contains(&one.name));
        let mut groups = pages::groups(channel).await?;
        groups.retain(|one| has_labels(&one.labels) && !described.contains(&one.name));
        Ok(Self { connections, groups })
    }

    /// What would be deleted: groups first, because their members are in use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter().map(|group| group.name.as_str());
        groups.chain(self.connections.iter().map(|one| one.name.as_str()))
    }

    /// Asks whether they are to be deleted.
    ///
    /// # Errors
    /// If not, or nobody is there to ask.
    pub fn confirm(&self) -> Result<(), Failure> {
        let names: Vec<&str> = self.names().collect();
        match names.as_slice() {
            [] => Ok(()),
            names => confirm(&format!("Delete {}, not in the files?", names.join(", "))),
        }
    }

    /// The same as they are now, after an apply that may have changed them: only what is still there, and was
    /// agreed to.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn refreshed(
        self,
        channel: &Channel,
        labels: &[(String, String)],
        described: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let agreed: BTreeSet<String> = self.names().map(ToOwned::to_owned).collect();
        if agreed.is_empty() {
            return Ok(self);
        }
        let mut now = Self::find(channel, labels, described).await?;
        now.connections.retain(|one| agreed.contains(&one.name));
        now.groups.retain(|one| agreed.contains(&one.name));
        Ok(now)
    }

    /// Deletes them, if nobody has changed them since they were found.
    pub async fn delete(self, channel: Channel, force: bool) -> Pruned {
        let mut names = Vec::new();
        let outcome = self.delete_each(channel, force, &mut names).await;
        Pruned { names, outcome }
    }

    async fn delete_each(
        self,
        channel: Channel,
        force: bool,
        names: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let mut client = GroupServiceClient::new(channel.clone());
        for pb::ConnectionGroup { name, etag, .. } in self.groups {
            let request =
                pb::DeleteGroupRequest { name: name.clone(), etag, force, ..Default::default() };
            client.delete_group(request).await?;
            names.push(name);
        }
        let mut client = ConnectionServiceClient::new(channel);
        for pb::Connection { name, etag, .. } in self.connections {
            // A group that went has changed nothing of it that the etag would not say.
            let request = pb::DeleteConnectionRequest {
                name: name.clone(),
                etag,
                force,
                ..Default::default()
            };
            client.delete_connection(request).await?;
            names.push(name);
        }
        Ok(())
    }
}
