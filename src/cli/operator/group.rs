//! `keyhatch group`: connections that a step selects by the values of their tags.

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::connection::confirm;
use super::connection::update::parse_label;
use super::connection::view::{access_of, bindings, pairs, tell_if_nobodys};
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, connect};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{moment, print, properties, say, table};
use crate::cli::io::pages;
use crate::grpc::pb;
use crate::grpc::pb::group_service_client::GroupServiceClient;

/// `keyhatch group …`
#[derive(Subcommand)]
pub enum Group {
    /// Create a group
    Create(Create),
    /// Show a group and its members
    Get {
        /// The group.
        name: String,
    },
    /// List groups
    #[command(alias = "ls")]
    List,
    /// Rename a group, replace its identifiers, add and remove members
    Update(Update),
    /// Delete a group; its members stay
    Delete {
        /// The group.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Although runs have used it in the last 30 days.
        #[arg(long)]
        force: bool,
    },
}

/// Arguments of `group create`.
#[derive(clap::Args)]
pub struct Create {
    /// Its name.
    name: String,
    /// The type of its members, such as aws.
    #[arg(long, value_name = "NAME")]
    integration: String,
    /// A tag key that tells its members apart; one to three.
    #[arg(long, required = true, value_name = "KEY")]
    identifier: Vec<String>,
    /// A member, INTEGRATION/NAME; may be given more than once.
    #[arg(long, value_name = "REF")]
    member: Vec<String>,
    /// Whose steps may use it, such as workflow:deploy.
    #[arg(long, value_name = "PRINCIPAL")]
    viewer: Vec<String>,
    /// Who may change it; you may anyway.
    #[arg(long, value_name = "PRINCIPAL")]
    editor: Vec<String>,
    /// A label, KEY=VALUE; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

/// Arguments of `group update`.
#[derive(clap::Args)]
pub struct Update {
    /// The group.
    name: String,
    /// Its new name.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// All of its identifiers from now on.
    #[arg(long, value_name = "KEY")]
    identifier: Vec<String>,
    /// A connection to add, INTEGRATION/NAME.
    #[arg(long, value_name = "REF")]
    add_member: Vec<String>,
    /// A connection to take out, INTEGRATION/NAME.
    #[arg(long, value_name = "REF")]
    remove_member: Vec<String>,
    /// All of its viewers from now on.
    #[arg(long, value_name = "PRINCIPAL")]
    viewer: Vec<String>,
    /// A label to set, KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

impl Group {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        let mut client = GroupServiceClient::new(channel.clone());
        match self {
            Self::Create(create) => create.run(common, client).await,
            Self::Get { name } => show(common, &channel, &name).await,
            Self::List => list(common, &channel).await,
            Self::Update(update) => update.run(common, client).await,
            Self::Delete { name, yes, force } => {
                let request = pb::GetGroupRequest { name: full(&name) };
                let found = client.get_group(request).await?.into_inner();
                if !yes {
                    let members = found.member_count;
                    confirm(&format!("Delete group {name}, which has {members} member(s)?"))?;
                }
                let request = pb::DeleteGroupRequest {
                    name: found.name,
                    etag: found.etag,
                    force,
                    ..Default::default()
                };
                client.delete_group(request).await?;
                say(&format!("group {name} deleted"));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(
        self,
        common: &Common,
        mut client: GroupServiceClient<Channel>,
    ) -> Result<(), Failure> {
        let group = pb::ConnectionGroup {
            name: full(&self.name),
            integration: self.integration,
            identifiers: self.identifier,
            access: bindings([
                (pb::Relation::Viewer, self.viewer),
                (pb::Relation::Editor, self.editor),
            ]),
            labels: self.label.into_iter().collect(),
            ..Default::default()
        };
        let members = members(&self.member);
        let request = pb::CreateGroupRequest { group: Some(group), members, ..Default::default() };
        let group = client.create_group(request).await?.into_inner();
        print(common.output, &to_json(&group), || line(&group), || self.name.clone())?;
        tell_if_nobodys(&group.name, &group.access, pb::Relation::Viewer);
        Ok(())
    }
}

impl Update {
    async fn run(
        self,
        common: &Common,
        mut client: GroupServiceClient<Channel>,
    ) -> Result<(), Failure> {
        let change = pb::ConnectionGroup {
            name: full(&self.name),
            identifiers: self.identifier,
            access: bindings([(pb::Relation::Viewer, self.viewer)]),
            labels: self.label.into_iter().collect(),
            ..Default::default()
        };
        let request = pb::UpdateGroupRequest {
            group: Some(change),
            new_name: self.rename.unwrap_or_default(),
            remove_members: members(&self.remove_member),
            add_members: members(&self.add_member),
            ..Default::default()
        };
        let group = client.update_group(request).await?.into_inner();
        let name = || short(&group.name, "groups/");
        print(common.output, &to_json(&group), || line(&group), name)
    }
}

async fn show(common: &Common, channel: &Channel, name: &str) -> Result<(), Failure> {
    let mut client = GroupServiceClient::new(channel.clone());
    let group = client.get_group(pb::GetGroupRequest { name: full(name) }).await?.into_inner();
    let members = pages::members(channel, &group.name).await?;
    let members: Vec<_> = members.iter().map(|member| short(member, "connections/")).collect();
    let mut answer = to_json(&group);
    if let Some(object) = answer.as_object_mut() {
        object.insert("members".to_owned(), json!(members));
    }
    let describe = || {
        let mut rows = vec![
            ("group", short(&group.name, "groups/")),
            ("integration", group.integration.clone()),
            ("identifiers", group.identifiers.join(", ")),
            ("updated", format!("{} by {}", moment(group.update_time.as_ref()), group.updated_by)),
        ];
        for (relation, principals) in access_of(&group.access) {
            rows.push((relation, principals.into_iter().collect::<Vec<_>>().join(", ")));
        }
        if !group.labels.is_empty() {
            rows.push(("labels", pairs(&group.labels)));
        }
        rows.extend(members.iter().map(|member| ("member", member.clone())));
        properties(&rows)
    };
    print(common.output, &answer, describe, || short(&group.name, "groups/"))
}

async fn list(common: &Common, channel: &Channel) -> Result<(), Failure> {
    let groups = pages::groups(channel).await?;
    let answer: Vec<_> = groups.iter().map(to_json).collect();
    let rows = || {
        let rows = groups.iter().map(|group| {
            vec![
                short(&group.name, "groups/"),
                group.integration.clone(),
                group.identifiers.join(", "),
                group.member_count.to_string(),
            ]
        });
        let header = ["group", "integration", "identifiers", "members"];
        if groups.is_empty() { "no groups".to_owned() } else { table(&header, rows.collect()) }
    };
    let names =
        || groups.iter().map(|group| short(&group.name, "groups/")).collect::<Vec<_>>().join("\n");
    print(common.output, &answer, rows, names)
}

fn full(name: &str) -> String {
    format!("groups/{name}")
}

fn members(references: &[String]) -> Vec<String> {
    references.iter().map(|reference| format!("connections/{reference}")).collect()
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn line(group: &pb::ConnectionGroup) -> String {
    let identifiers = group.identifiers.join(", ");
    let name = short(&group.name, "groups/");
    format!("group {name}: {} member(s) told apart by {identifiers}", group.member_count)
}

fn to_json(group: &pb::ConnectionGroup) -> serde_json::Value {
    json!({
        "group": short(&group.name, "groups/"),
        "uid": group.uid,
        "integration": group.integration,
        "identifiers": group.identifiers,
        "access": access_of(&group.access),
        "labels": group.labels,
        "member_count": group.member_count,
        "update_time": moment(group.update_time.as_ref()),
        "updated_by": group.updated_by,
        "etag": group.etag,
    })
}
