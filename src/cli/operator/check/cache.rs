//! The answers of the broker. Each question is asked once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::cli::io::text::{last_part, short_name};
use crate::grpc::pb;
use crate::grpc::pb::explain_request::Question;
use crate::grpc::pb::system_service_client::SystemServiceClient;

/// At most this many names are suggested.
const MAX_SUGGESTIONS: usize = 3;

/// The answers so far.
pub struct BrokerCache {
    channel: Channel,
    integrations: HashMap<(), Vec<pb::Integration>>,
    groups: HashMap<(), Vec<pb::ConnectionGroup>>,
    connections: HashMap<String, Vec<pb::Connection>>,
    members: HashMap<String, Vec<String>>,
    secrets: HashMap<String, Vec<String>>,
    explained: HashMap<(String, String, String, Vec<String>, bool), pb::ExplainResponse>,
    /// Many workflows make the same mistake.
    nearest: HashMap<(String, String), Vec<String>>,
}

/// The value of a key, asked for if it is not there.
async fn cached<K: Eq + Hash, V>(
    values: &mut HashMap<K, V>,
    key: K,
    ask: impl Future<Output = Result<V, Failure>>,
) -> Result<&V, Failure> {
    match values.entry(key) {
        Entry::Occupied(found) => Ok(found.into_mut()),
        Entry::Vacant(place) => Ok(place.insert(ask.await?)),
    }
}

impl BrokerCache {
    /// No answers yet.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            integrations: HashMap::new(),
            groups: HashMap::new(),
            connections: HashMap::new(),
            members: HashMap::new(),
            secrets: HashMap::new(),
            explained: HashMap::new(),
            nearest: HashMap::new(),
        }
    }

    /// Every integration.
    pub async fn integrations(&mut self) -> Result<&[pb::Integration], Failure> {
        let ask = pages::integrations(&self.channel);
        cached(&mut self.integrations, (), ask).await.map(Vec::as_slice)
    }

    /// Every group.
    pub async fn groups(&mut self) -> Result<&[pb::ConnectionGroup], Failure> {
        cached(&mut self.groups, (), pages::groups(&self.channel, pb::ListGroupsRequest::default()))
            .await
            .map(Vec::as_slice)
    }

    /// The connections of an integration.
    async fn connections(&mut self, integration: &str) -> Result<&[pb::Connection], Failure> {
        let (key, integration) = (integration.to_owned(), integration.to_owned());
        let wanted = pb::ListConnectionsRequest { integration, ..Default::default() };
        let ask = pages::connections(&self.channel, wanted);
        cached(&mut self.connections, key, ask).await.map(Vec::as_slice)
    }

    /// The connections of an integration whose names are nearest to this name, INTEGRATION/NAME.
    pub async fn nearest_connections(
        &mut self,
        integration: &str,
        name: &str,
    ) -> Result<Vec<String>, Failure> {
        let key = (integration.to_owned(), name.to_owned());
        if let Some(found) = self.nearest.get(&key) {
            return Ok(found.clone());
        }
        let others = self.connections(integration).await?.iter();
        let found = nearest(name, others.map(|one| last_part(&one.name).to_owned()).collect());
        let found: Vec<_> = found.iter().map(|name| format!("{integration}/{name}")).collect();
        self.nearest.insert(key, found.clone());
        Ok(found)
    }

    /// The members of a group, INTEGRATION/NAME, each with its tags, KEY:VALUE.
    pub async fn members(
        &mut self,
        group: &pb::ConnectionGroup,
    ) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let ask = pages::members(&self.channel, &group.name);
        let members = cached(&mut self.members, group.name.clone(), ask).await?.clone();
        let connections = self.connections(&group.integration).await?;
        let by_name: HashMap<&str, &pb::Connection> =
            connections.iter().map(|one| (one.name.as_str(), one)).collect();
        let of = |member: &String| {
            let found = by_name.get(member.as_str())?;
            Some((short_name(&found.name).to_owned(), found.tags.clone()))
        };
        Ok(members.iter().filter_map(of).collect())
    }

    /// The names of a workflow's secrets.
    pub async fn secrets(&mut self, workflow: &str) -> Result<&[String], Failure> {
        let channel = &self.channel;
        let ask = async {
            let found = pages::secrets(channel, pages::secrets_of(Some(workflow))).await?;
            Ok(found.iter().map(|secret| last_part(&secret.name).to_owned()).collect())
        };
        cached(&mut self.secrets, workflow.to_owned(), ask).await.map(Vec::as_slice)
    }

    /// The decision of the broker if a step of this workflow asked for these fields of this target now; all fields if
    /// there are none.
    pub async fn explain(
        &mut self,
        workflow: &str,
        step: &str,
        run_as: &[String],
        target: &str,
        asked: (&[String], bool),
    ) -> Result<pb::ExplainResponse, Failure> {
        let (fields, use_only) = asked;
        let key =
            (workflow.to_owned(), step.to_owned(), target.to_owned(), fields.to_vec(), use_only);
        let mut client = SystemServiceClient::new(self.channel.clone());
        let question = Question::DryRun(pb::DryRun {
            workflow: workflow.to_owned(),
            step: step.to_owned(),
            run_as: run_as.to_vec(),
            target: target.to_owned(),
            fields: fields.to_vec(),
            use_only,
        });
        let request = pb::ExplainRequest { question: Some(question) };
        let ask = async {
            loop {
                match client.explain(request.clone()).await {
                    Ok(explained) => return Ok(explained.into_inner()),
                    // Thousands of workflows ask more than the rate limit of one operator.
                    Err(status) => tokio::time::sleep(retry_delay(&status).ok_or(status)?).await,
                }
            }
        };
        cached(&mut self.explained, key, ask).await.cloned()
    }
}

/// When to retry; `None` if anything but the rate limit is the problem.
fn retry_delay(status: &Status) -> Option<Duration> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.reason == "TOO_MANY_REQUESTS");
    info.and_then(|_| details.retry_info()?.retry_delay)
}

/// The nearest of these names to a name, the nearest first.
pub fn nearest(name: &str, mut others: Vec<String>) -> Vec<String> {
    others.sort_by_cached_key(|other| (strsim::damerau_levenshtein(name, other), other.clone()));
    others.truncate(MAX_SUGGESTIONS);
    others
}
