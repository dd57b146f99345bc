//! `keyhatch access`: who may use and change one connection or group.

pub(crate) mod suggest;

use std::collections::BTreeSet;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tonic::transport::Channel;

use super::bindings::{access_of, relation_name};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{print, say};
use crate::cli::io::text::table;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::group_service_client::GroupServiceClient;
use crate::model::{ConnectionRef, ResourceName, RunAs};
use suggest::AccessSuggest;

/// At most so many attempts while somebody else changes the same resource.
const MAX_ATTEMPTS: usize = 5;

/// `keyhatch access …`
#[derive(Subcommand)]
pub enum AccessCommand {
    /// Give principals a relation
    Add(AccessChange),
    /// Take a relation away from principals
    Remove(AccessChange),
    /// Show who has which relation
    #[command(alias = "ls")]
    List {
        /// INTEGRATION/NAME of a connection, or group:NAME.
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// List bindings that a workflow does not need, by what it has used
    Suggest(AccessSuggest),
}

/// Arguments of `access add` and `access remove`.
#[derive(clap::Args)]
pub struct AccessChange {
    /// INTEGRATION/NAME of a connection, or group:NAME.
    #[arg(value_name = "REF")]
    reference: String,
    /// The relation. Each includes those before it; a group has no resolver.
    #[arg(long, value_enum)]
    relation: RelationArgument,
    /// workflow:NAME, workflow:NAME/step:NAME, workflow:NAME/step:PREFIX*, workflow:PREFIX*, workflow:*,
    /// operator:NAME, user:NAME, team:NAME, role:NAME or service-account:NAME; may be given more than once.
    #[arg(long, required = true, value_name = "PRINCIPAL")]
    principal: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RelationArgument {
    /// May see it; for a group: may use it.
    Viewer,
    /// May receive the credential.
    Resolver,
    /// May change and delete it.
    Editor,
}

impl From<RelationArgument> for pb::Relation {
    fn from(relation: RelationArgument) -> Self {
        match relation {
            RelationArgument::Viewer => Self::Viewer,
            RelationArgument::Resolver => Self::Resolver,
            RelationArgument::Editor => Self::Editor,
        }
    }
}

/// The resource of the bindings.
enum BoundResource {
    Connection(Box<pb::Connection>),
    Group(Box<pb::ConnectionGroup>),
}

impl AccessCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::Add(change) => change.run(common, channel, true).await,
            Self::Remove(change) => change.run(common, channel, false).await,
            Self::Suggest(suggest) => suggest.run(common, channel).await,
            Self::List { reference } => {
                show(common, &reference, &BoundResource::read(channel, &reference).await?)
            }
        }
    }
}

impl AccessChange {
    async fn run(self, common: &Common, channel: Channel, add: bool) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            let mut resource = BoundResource::read(channel.clone(), &self.reference).await?;
            let names_somebody = names_run_as(resource.access());
            if !self.change(resource.access(), add) {
                say("nothing to change");
                return show(common, &self.reference, &resource);
            }
            let is_first = names_run_as(resource.access()) && !names_somebody;
            match resource.write(channel.clone()).await {
                Err(failure) if failure.reason == "ETAG_MISMATCH" && attempt < MAX_ATTEMPTS => {
                    attempt += 1
                }
                Err(failure) => return Err(failure),
                Ok(written) => {
                    if is_first {
                        say(&format!(
                            "note: steps without --run-as can no longer use {}",
                            self.reference
                        ));
                    }
                    return show(common, &self.reference, &written);
                }
            }
        }
    }

    /// Changes the bindings. True if that made a difference.
    fn change(&self, access: &mut Vec<pb::AccessBinding>, add: bool) -> bool {
        let relation = pb::Relation::from(self.relation);
        let found = access.iter_mut().find(|one| one.relation() == relation);
        let principals = match (found, add) {
            (Some(binding), _) => &mut binding.principals,
            (None, false) => return false,
            (None, true) => {
                let (relation, principals) = (relation.into(), self.principal.clone());
                access.push(pb::AccessBinding { relation, principals });
                return true;
            }
        };
        let before: BTreeSet<String> = principals.iter().cloned().collect();
        match add {
            true => principals
                .extend(self.principal.iter().filter(|one| !before.contains(*one)).cloned()),
            false => principals.retain(|one| !self.principal.contains(one)),
        }
        before != principals.iter().cloned().collect()
    }
}

/// True if a binding names a principal that steps run as.
fn names_run_as(access: &[pb::AccessBinding]) -> bool {
    let mut principals = access.iter().flat_map(|binding| &binding.principals);
    principals.any(|one| one.parse::<RunAs>().is_ok())
}

impl BoundResource {
    async fn read(channel: Channel, reference: &str) -> Result<Self, Failure> {
        if let Some(name) = reference.strip_prefix("group:") {
            let request = pb::GetGroupRequest { name: format!("groups/{name}") };
            let found = GroupServiceClient::new(channel).get_group(request).await?;
            return Ok(Self::Group(Box::new(found.into_inner())));
        }
        let name: ConnectionRef = reference.parse()?;
        let name = ResourceName::Connection(name).to_string();
        let request = pb::GetConnectionRequest { name };
        let found = ConnectionServiceClient::new(channel).get_connection(request).await?;
        Ok(Self::Connection(Box::new(found.into_inner())))
    }

    fn access(&mut self) -> &mut Vec<pb::AccessBinding> {
        match self {
            Self::Connection(connection) => &mut connection.access,
            Self::Group(group) => &mut group.access,
        }
    }

    /// Writes the bindings. Fails with `ETAG_MISMATCH` if somebody else has changed the resource.
    async fn write(self, channel: Channel) -> Result<Self, Failure> {
        let update_mask = Some(prost_types::FieldMask { paths: vec!["access".to_owned()] });
        match self {
            Self::Connection(connection) => {
                let connection = Some(*connection);
                let request =
                    pb::UpdateConnectionRequest { connection, update_mask, ..Default::default() };
                let mut client = ConnectionServiceClient::new(channel);
                let written = client.update_connection(request).await?;
                Ok(Self::Connection(Box::new(written.into_inner())))
            }
            Self::Group(group) => {
                let group = Some(*group);
                let request = pb::UpdateGroupRequest { group, update_mask, ..Default::default() };
                let written = GroupServiceClient::new(channel).update_group(request).await?;
                Ok(Self::Group(Box::new(written.into_inner())))
            }
        }
    }
}

fn show(common: &Common, reference: &str, resource: &BoundResource) -> Result<(), Failure> {
    let access = match resource {
        BoundResource::Connection(connection) => &connection.access,
        BoundResource::Group(group) => &group.access,
    };
    let answer = json!({ "resource": reference, "access": access_of(access) });
    let rows = || {
        let bound = access.iter().flat_map(|binding| {
            let relation = relation_name(binding.relation()).to_owned();
            binding.principals.iter().map(move |one| vec![relation.clone(), one.clone()])
        });
        let bound: Vec<_> = bound.collect();
        match bound.is_empty() {
            true => format!("nobody has any relation to {reference}"),
            false => table(&["relation", "principal"], bound),
        }
    };
    let names = || {
        let names: BTreeSet<&str> =
            access.iter().flat_map(|one| one.principals.iter().map(String::as_str)).collect();
        names.into_iter().collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, rows, names)
}
