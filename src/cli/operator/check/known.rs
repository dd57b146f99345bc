//! What the broker knows, asked once.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::judge::nearest;
use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::cli::operator::connection::view::reference_of;
use crate::grpc::pb;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;

/// What the broker has said so far.
pub struct Known {
    channel: Channel,
    integrations: Option<Vec<pb::Integration>>,
    groups: Option<Vec<pb::ConnectionGroup>>,
    connections: HashMap<String, Vec<pb::Connection>>,
    members: HashMap<String, Vec<String>>,
    secrets: HashMap<String, Vec<String>>,
    explained: HashMap<(String, String, String), pb::ExplainResponse>,
    /// Many workflows make the same mistake.
    nearest: HashMap<(String, String), Vec<String>>,
}

impl Known {
    /// Nothing yet.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            integrations: None,
            groups: None,
            connections: HashMap::new(),
            members: HashMap::new(),
            secrets: HashMap::new(),
            explained: HashMap::new(),
            nearest: HashMap::new(),
        }
    }

    /// Every integration.
    pub async fn integrations(&mut self) -> Result<&[pb::Integration], Failure> {
        if self.integrations.is_none() {
            self.integrations = Some(pages::integrations(&self.channel).await?);
        }
        Ok(self.integrations.as_deref().unwrap_or_default())
    }

    /// Every group.
    pub async fn groups(&mut self) -> Result<&[pb::ConnectionGroup], Failure> {
        if self.groups.is_none() {
            self.groups = Some(pages::groups(&self.channel).await?);
        }
        Ok(self.groups.as_deref().unwrap_or_default())
    }

    /// The connections of an integration.
    pub async fn connections(&mut self, integration: &str) -> Result<&[pb::Connection], Failure> {
        if !self.connections.contains_key(integration) {
            let key = integration.to_owned();
            let integration = integration.to_owned();
            let wanted = pb::ListConnectionsRequest { integration, ..Default::default() };
            let found = pages::connections(&self.channel, wanted).await?;
            self.connections.insert(key, found);
        }
        Ok(self.connections.get(integration).map(Vec::as_slice).unwrap_or_default())
    }

    /// The connections of an integration whose names come nearest to this one, INTEGRATION/NAME.
    pub async fn nearest_connections(
        &mut self,
        integration: &str,
        name: &str,
    ) -> Result<Vec<String>, Failure> {
        let key = (integration.to_owned(), name.to_owned());
        if let Some(found) = self.nearest.get(&key) {
            return Ok(found.clone());
        }
        let others = self.connections(integration).await?.iter().map(|one| last_part(&one.name));
        let found = nearest(name, others.collect());
        let found: Vec<_> = found.iter().map(|name| format!("{integration}/{name}")).collect();
        self.nearest.insert(key, found.clone());
        Ok(found)
    }

    /// The members of a group with their tags, "KEY:VALUE".
    pub async fn members(
        &mut self,
        group: &pb::ConnectionGroup,
    ) -> Result<Vec<(String, Vec<String>)>, Failure> {
        if !self.members.contains_key(&group.name) {
            let found = pages::members(&self.channel, &group.name).await?;
            self.members.insert(group.name.clone(), found);
        }
        let members = self.members.get(&group.name).cloned().unwrap_or_default();
        let connections = self.connections(&group.integration).await?;
        let tags: HashMap<&str, &pb::Connection> =
            connections.iter().map(|one| (one.name.as_str(), one)).collect();
        let of = |member: &String| {
            let found = tags.get(member.as_str())?;
            Some((reference_of(found), found.tags.clone()))
        };
        Ok(members.iter().filter_map(of).collect())
    }

    /// The names of a workflow's secrets.
    pub async fn secrets(&mut self, workflow: &str) -> Result<&[String], Failure> {
        if !self.secrets.contains_key(workflow) {
            let found = pages::secrets(&self.channel, Some(workflow)).await?;
            let names = found.iter().map(|secret| last_part(&secret.name)).collect();
            self.secrets.insert(workflow.to_owned(), names);
        }
        Ok(self.secrets.get(workflow).map(Vec::as_slice).unwrap_or_default())
    }

    /// What would be decided if a step of this workflow asked for this.
    pub async fn explain(
        &mut self,
        workflow: &str,
        step: &str,
        run_as: &[String],
        target: &str,
    ) -> Result<pb::ExplainResponse, Failure> {
        let key = (workflow.to_owned(), step.to_owned(), target.to_owned());
        if let Some(told) = self.explained.get(&key) {
            return Ok(told.clone());
        }
        let question = Question::DryRun(pb::DryRun {
            workflow: workflow.to_owned(),
            step: step.to_owned(),
            run_as: run_as.to_vec(),
            target: target.to_owned(),
            fields: Vec::new(),
        });
        let request = pb::ExplainRequest { question: Some(question) };
        let mut client = SystemServiceClient::new(self.channel.clone());
        let told = loop {
            match client.explain(request.clone()).await {
                Ok(told) => break told.into_inner(),
                // Thousands of workflows ask for more than anybody may at once.
                Err(status) => tokio::time::sleep(asked_too_often(&status).ok_or(status)?).await,
            }
        };
        self.explained.insert(key, told.clone());
        Ok(told)
    }
}

/// When to ask again, if that is all that is wrong.
fn asked_too_often(status: &Status) -> Option<Duration> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == "TOO_MANY_REQUESTS");
    info.and_then(|_| details.retry_info()?.retry_delay)
}

fn last_part(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}
