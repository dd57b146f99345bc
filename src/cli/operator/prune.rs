//! What a label says belongs to the files, and is not in them any more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tonic::transport::Channel;

use super::connection::update::parse_label;
use super::seed::{ENDINGS, described_elsewhere};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::say;
use crate::cli::io::pages;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::printable;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;

/// What is to be deleted.
#[derive(clap::Args)]
pub struct Pruning {
    /// Delete connections and groups that have the labels and that no file describes; diff says which.
    #[arg(long, requires = "label")]
    prune: bool,
    /// For --prune: only what has this label, KEY=VALUE; all of them, if there are more.
    #[arg(long, requires = "prune", value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

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

impl Pruning {
    /// What there is to delete; nothing where that is not asked for. Says why nothing is.
    ///
    /// # Errors
    /// If it cannot be listed, or it cannot be known what files beside those that are read describe.
    pub async fn find(
        &self,
        channel: &Channel,
        files: &Described<'_>,
    ) -> Result<Prunable, Failure> {
        if !self.prune {
            return Ok(Prunable::default());
        }
        let elsewhere = described_elsewhere(files.paths, &ENDINGS)?;
        let mut found = self.labelled(channel).await?;
        if found.names().next().is_none() {
            let labels = self.label.iter().map(|(key, value)| format!("{key}={value}"));
            let labels = labels.collect::<Vec<_>>().join(" and ");
            say(&format!("nothing to delete: nothing has the label {labels}"));
            return Ok(found);
        }
        found.keep(|name| !files.names.contains(name));
        for name in found.names() {
            if let Some(file) = elsewhere.get(name) {
                let file = printable(&file.display().to_string());
                say(&format!(
                    "kept: {name}, which {file} describes, although that file is not read; name it with -f"
                ));
            }
        }
        found.keep(|name| !elsewhere.contains_key(name));
        if found.names().next().is_none() {
            say("nothing to delete: whatever has the label is in the files");
        }
        Ok(found)
    }

    /// What has all of the labels.
    async fn labelled(&self, channel: &Channel) -> Result<Prunable, Failure> {
        let has_labels = |has: &std::collections::BTreeMap<String, String>| {
            self.label.iter().all(|(key, value)| has.get(key) == Some(value))
        };
        let mut connections =
            pages::connections(channel, pb::ListConnectionsRequest::default()).await?;
        connections.retain(|one| has_labels(&one.labels));
        let mut groups = pages::groups(channel).await?;
        groups.retain(|one| has_labels(&one.labels));
        Ok(Prunable { connections, groups })
    }

    /// What is to be deleted as it is now, after an apply that may have changed it: only what is still there, still has
    /// the labels, and was agreed to.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn refreshed(
        &self,
        channel: &Channel,
        agreed: Prunable,
    ) -> Result<Prunable, Failure> {
        let names: BTreeSet<String> = agreed.names().map(ToOwned::to_owned).collect();
        if names.is_empty() {
            return Ok(agreed);
        }
        let mut now = self.labelled(channel).await?;
        now.keep(|name| names.contains(name));
        Ok(now)
    }
}

/// What files describe.
pub struct Described<'a> {
    /// The files and directories that were named.
    pub paths: &'a [PathBuf],
    /// The resources in those of them that are read.
    pub names: BTreeSet<String>,
}

impl Prunable {
    fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.connections.retain(|one| is_kept(&one.name));
        self.groups.retain(|one| is_kept(&one.name));
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
    pub fn confirm(&self, yes: bool) -> Result<(), Failure> {
        let names: Vec<&str> = self.names().collect();
        match names.as_slice() {
            [] => Ok(()),
            names => confirm(yes, &format!("Delete {}, not in the files?", names.join(", "))),
        }
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
