//! `keyhatch group`: groups of connections, of which a step selects one by the values of its tags.

mod candidates;

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{extend, list, print, say};
use crate::cli::io::pages;
use crate::cli::io::text::{properties, short_name};
use crate::cli::io::time::moment;
use crate::cli::operator::bindings::{access_of, access_rows, bindings, warn_if_no_step};
use crate::cli::operator::labels::{pairs, parse_label};
use crate::cli::operator::parts::impact::{confirm_changes, confirm_deletion};
use crate::cli::operator::parts::listing::{Listing, say_total, term};
use crate::cli::operator::parts::uses::{use_rows, uses_json};
use crate::cli::operator::resource::BoundResource;
use crate::grpc::pb;
use crate::grpc::pb::group_service_client::GroupServiceClient;
use crate::grpc::pb::preview_request::Change;
use candidates::CandidatesArgs;

#[derive(Subcommand)]
pub enum GroupCommand {
    /// Create a group
    Create(GroupCreateArgs),
    /// Show a group and its members
    Get {
        /// The group.
        name: String,
    },
    /// List groups
    #[command(alias = "ls")]
    List(GroupListArgs),
    /// List connections as candidates for a group, with the reasons why they do not fit
    Candidates(CandidatesArgs),
    /// Rename a group, replace its identifiers, add and remove members
    Update(GroupUpdateArgs),
    /// Delete a group; its members stay
    Delete {
        /// The group.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Delete it even if runs have used it in the last 30 days.
        #[arg(long)]
        force: bool,
    },
}

#[derive(clap::Args)]
pub struct GroupCreateArgs {
    /// Its name.
    name: String,
    /// The type of its members, such as aws.
    #[arg(long, value_name = "NAME")]
    integration: String,
    /// A tag key whose values select a member; one to three.
    #[arg(long, required = true, value_name = "KEY")]
    identifier: Vec<String>,
    /// A member, INTEGRATION/NAME; may be given more than once.
    #[arg(long, value_name = "REF")]
    member: Vec<String>,
    /// A principal whose steps may use it, such as workflow:deploy.
    #[arg(long, value_name = "PRINCIPAL")]
    viewer: Vec<String>,
    /// A principal that may change it; you may anyway.
    #[arg(long, value_name = "PRINCIPAL")]
    editor: Vec<String>,
    /// A label, KEY=VALUE; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
}

#[derive(clap::Args)]
pub struct GroupListArgs {
    /// Only groups with a binding that admits this principal, such as workflow:deploy.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(clap::Args)]
pub struct GroupUpdateArgs {
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
    /// Do not show what it breaks, and do not ask.
    #[arg(long)]
    yes: bool,
}

impl GroupCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let mut client = GroupServiceClient::new(channel.clone());
        match self {
            Self::Create(create) => create.run(common, client).await,
            Self::Get { name } => show(common, &channel, &name).await,
            Self::List(list) => list.run(common, &channel).await,
            Self::Candidates(candidates) => candidates.run(common, &channel).await,
            Self::Update(update) => update.run(common, client, &channel).await,
            Self::Delete { name, yes, force } => {
                let request = pb::GetGroupRequest { name: full(&name) };
                let found = client.get_group(request).await?.into_inner();
                let question = format!("Delete group {name}? Its members stay.");
                confirm_deletion(&channel, yes, &found.name, &question).await?;
                BoundResource::from(found).delete(channel, force).await?;
                say(&format!("group {name} deleted"));
                Ok(())
            }
        }
    }
}

impl GroupCreateArgs {
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
        print_written(common, &group)?;
        warn_if_no_step(&group.name, &group.access);
        Ok(())
    }
}

impl GroupListArgs {
    async fn run(self, common: &Common, channel: &Channel) -> Result<(), Failure> {
        let principal = self.principal.as_deref().map(|name| term("principal", "=", name));
        let wanted = pb::ListGroupsRequest {
            filter: self.listing.filter(principal.transpose()?)?,
            order_by: self.listing.order_or("name"),
            ..Default::default()
        };
        let groups = match self.listing.limit {
            None => pages::groups(channel, wanted).await?,
            Some(page_size) => {
                let first = pb::ListGroupsRequest { page_size, ..wanted };
                let mut client = GroupServiceClient::new(channel.clone());
                let found = client.list_groups(first).await?.into_inner();
                say_total(found.groups.len(), found.total_size, found.total_size_estimated);
                found.groups
            }
        };
        let rows: Vec<_> = groups.iter().map(to_json).collect();
        let columns = [
            ("group", "group"),
            ("integration", "integration"),
            ("identifiers", "identifiers"),
            ("members", "member_count"),
            ("last used", "last_use_time"),
        ];
        list(common.output, &rows, "group", &columns, "no groups")
    }
}

impl GroupUpdateArgs {
    async fn run(
        self,
        common: &Common,
        mut client: GroupServiceClient<Channel>,
        channel: &Channel,
    ) -> Result<(), Failure> {
        let previewed = self.previewed(&mut client).await?;
        let question = format!("Change group {}?", self.name);
        confirm_changes(channel, self.yes, previewed, &question).await?;
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
        print_written(common, &client.update_group(request).await?.into_inner())
    }

    /// The changes whose impact is shown: of members, and of viewers.
    async fn previewed(
        &self,
        client: &mut GroupServiceClient<Channel>,
    ) -> Result<Vec<Change>, Failure> {
        let mut changes = Vec::new();
        if self.yes {
            return Ok(changes);
        }
        // With other identifiers, only the whole change says which members fit.
        if !self.remove_member.is_empty() && self.identifier.is_empty() {
            changes.push(Change::Members(pb::MembersChange {
                name: full(&self.name),
                remove_members: members(&self.remove_member),
                add_members: Vec::new(),
            }));
        }
        if !self.viewer.is_empty() {
            let name = full(&self.name);
            let request = pb::GetGroupRequest { name: name.clone() };
            let mut access = client.get_group(request).await?.into_inner().access;
            access.retain(|one| one.relation() != pb::Relation::Viewer);
            access.extend(bindings([(pb::Relation::Viewer, self.viewer.clone())]));
            changes.push(Change::Access(pb::AccessChange { name, access }));
        }
        Ok(changes)
    }
}

fn print_written(common: &Common, group: &pb::ConnectionGroup) -> Result<(), Failure> {
    let name = || short_name(&group.name).to_owned();
    let text = || {
        let identifiers = group.identifiers.join(", ");
        format!("group {}: {} member(s) selected by {identifiers}", name(), group.member_count)
    };
    print(common.output, &to_json(group), text, name)
}

async fn show(common: &Common, channel: &Channel, name: &str) -> Result<(), Failure> {
    let mut client = GroupServiceClient::new(channel.clone());
    let group = client.get_group(pb::GetGroupRequest { name: full(name) }).await?.into_inner();
    let members = pages::members(channel, &group.name).await?;
    let members: Vec<_> = members.iter().map(|member| short_name(member)).collect();
    let mut answer = to_json(&group);
    extend(&mut answer, "members", json!(members));
    extend(&mut answer, "uses", uses_json(&group.uses));
    let describe = || {
        let mut rows = vec![
            ("group", short_name(&group.name).to_owned()),
            ("integration", group.integration.clone()),
            ("identifiers", group.identifiers.join(", ")),
            ("updated", format!("{} by {}", moment(group.update_time.as_ref()), group.updated_by)),
        ];
        rows.extend(access_rows(&group.access));
        if !group.labels.is_empty() {
            rows.push(("labels", pairs(&group.labels, ", ")));
        }
        rows.extend(use_rows(&group.uses));
        rows.extend(members.iter().map(|member| ("member", (*member).to_owned())));
        properties(&rows)
    };
    print(common.output, &answer, describe, || short_name(&group.name).to_owned())
}

fn full(name: &str) -> String {
    format!("groups/{name}")
}

fn members(references: &[String]) -> Vec<String> {
    references.iter().map(|reference| format!("connections/{reference}")).collect()
}

fn to_json(group: &pb::ConnectionGroup) -> Json {
    json!({
        "group": short_name(&group.name),
        "uid": group.uid,
        "integration": group.integration,
        "identifiers": group.identifiers,
        "access": access_of(&group.access),
        "labels": group.labels,
        "member_count": group.member_count,
        "update_time": moment(group.update_time.as_ref()),
        "updated_by": group.updated_by,
        "etag": group.etag,
        "use_count": group.use_count,
        "last_use_time": group.last_use_time.as_ref().map(|time| moment(Some(time))),
    })
}
