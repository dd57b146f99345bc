//! `keyhatch connection`: what an operator does with connections.

mod test;
mod update;
mod view;

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::bindings::{bindings, warn_if_no_step};
use super::integration;
use super::labels::parse_label;
use super::release::{parse_release, release_name};
use super::resource::BoundResource;
use crate::cli::Common;
use crate::cli::io::endings::{pending_json, pending_lines, pending_of};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{Output, list, print, say};
use crate::cli::io::time::{self, parse_duration, ttl_message};
use crate::cli::io::{pages, remarks, values};
use crate::cli::operator::parts::impact::confirm_deletion;
use crate::cli::operator::parts::listing::{Listing, say_total, term};
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::model::{ConnectionRef, Tag};
use test::ConnectionTestArgs;
use update::ConnectionUpdateArgs;
use view::{describe, resource_name, send_limits, to_json};

#[derive(Subcommand)]
pub enum ConnectionCommand {
    /// Create a connection
    Create(ConnectionCreateArgs),
    /// Show a connection, without its sensitive values
    Get(ConnectionGetArgs),
    /// List connections
    #[command(alias = "ls")]
    List(ConnectionListArgs),
    /// Change fields, tags and settings of a connection
    Update(ConnectionUpdateArgs),
    /// Delete a connection and revoke its leases
    Delete(ConnectionDeleteArgs),
    /// Check a connection's values for mistakes; exit with 1 if it cannot work
    Test(ConnectionTestArgs),
}

#[derive(clap::Args)]
pub struct ConnectionCreateArgs {
    /// INTEGRATION/NAME, such as aws/prod.
    #[arg(value_name = "REF")]
    reference: String,
    /// The credential kind, where the fields fit several.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// A field: NAME=- (from stdin), NAME=@FILE, NAME=env:VARIABLE, or NAME=VALUE if it is not
    /// sensitive. On a terminal, missing fields are asked for.
    #[arg(long, value_name = "NAME=…")]
    field: Vec<String>,
    /// Accept an empty value.
    #[arg(long)]
    allow_empty: bool,
    /// An identifier tag, KEY:VALUE; may be given more than once.
    #[arg(long, value_name = "KEY:VALUE")]
    tag: Vec<String>,
    /// A label, KEY=VALUE; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// The longest lease on it, such as 15m; 0s for the server's maximum.
    #[arg(long, value_parser = parse_duration)]
    max_ttl: Option<Duration>,
    /// Make it default:INTEGRATION, instead of the connection that was.
    #[arg(long)]
    default: bool,
    /// When the credential expires, if its values do not say: 2026-12-31, 2026-12-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    expires: Option<prost_types::Timestamp>,
    /// What a step gets: minted, a short-lived credential that the broker makes from the fields, or stored, the
    /// fields themselves. By default as the kind says: keyhatch integration get.
    #[arg(long, value_name = "minted|stored", value_parser = parse_release)]
    release: Option<pb::Release>,
    /// A method that the broker may send with it, such as GET; may be given more than once. By default all.
    #[arg(long, value_name = "METHOD")]
    send_method: Vec<String>,
    /// A path below its address that the broker may send requests to, such as /repos/acme, and all paths below that; may be
    /// given more than once. By default all.
    #[arg(long, value_name = "PATH")]
    send_path: Vec<String>,
    /// A principal that may resolve it, such as workflow:deploy; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    resolver: Vec<String>,
    /// A principal that may have the broker act with it, and gets no value of it.
    #[arg(long, value_name = "PRINCIPAL")]
    user: Vec<String>,
    /// A principal that may see it.
    #[arg(long, value_name = "PRINCIPAL")]
    viewer: Vec<String>,
    /// A principal that may change it; you may anyway.
    #[arg(long, value_name = "PRINCIPAL")]
    editor: Vec<String>,
}

#[derive(clap::Args)]
pub struct ConnectionGetArgs {
    /// INTEGRATION/NAME.
    #[arg(value_name = "REF")]
    reference: String,
}

#[derive(clap::Args)]
pub struct ConnectionListArgs {
    /// Only connections of this integration.
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    /// Only connections with this tag, KEY:VALUE.
    #[arg(long, value_name = "KEY:VALUE")]
    tag: Vec<String>,
    /// Only connections with this label, KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Only disabled connections.
    #[arg(long)]
    disabled: bool,
    /// Only connections that release so: minted or stored.
    #[arg(long, value_name = "minted|stored", value_parser = parse_release)]
    release: Option<pb::Release>,
    /// Only members of this group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only connections with a binding that admits this principal, such as workflow:deploy.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Only connections of which a step still holds an older version.
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    listing: Listing,
    /// Only connections that no step has resolved for so long, such as 90d, and that are older.
    #[arg(long, value_name = "TIME", value_parser = time::ago)]
    unused_since: Option<prost_types::Timestamp>,
    /// Only connections whose credentials expire within so long, such as 30d, or have expired.
    #[arg(long, value_name = "TIME", value_parser = time::ahead)]
    expiring: Option<prost_types::Timestamp>,
}

#[derive(clap::Args)]
pub struct ConnectionDeleteArgs {
    /// INTEGRATION/NAME.
    #[arg(value_name = "REF")]
    reference: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Take it out of its groups, and delete it even if runs have used it in the last 30 days.
    #[arg(long)]
    force: bool,
}

impl ConnectionCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::Create(create) => create.run(common, channel).await,
            Self::Get(get) => get.run(common, channel).await,
            Self::List(list) => list.run(common, channel).await,
            Self::Update(update) => update.run(common, channel).await,
            Self::Delete(delete) => delete.run(common, channel).await,
            Self::Test(test) => test.run(common, channel).await,
        }
    }
}

impl ConnectionCreateArgs {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let integration =
            integration::find(channel.clone(), reference.integration.as_str()).await?;
        let kind = self.kind.as_deref();
        let is_asked = |one: &&pb::CredentialKind| kind.is_none_or(|name| one.name == name);
        let kinds: Vec<_> = integration.kinds.iter().filter(is_asked).collect();
        let asked = values::read_and_ask(&self.field, &kinds, self.allow_empty)?;
        let relations = [
            (pb::Relation::Viewer, self.viewer),
            (pb::Relation::User, self.user),
            (pb::Relation::Resolver, self.resolver),
            (pb::Relation::Editor, self.editor),
        ];
        let connection = pb::Connection {
            name: resource_name(&reference),
            integration: reference.integration.to_string(),
            kind: self.kind.or(asked.kind).unwrap_or_default(),
            fields: asked.fields,
            access: bindings(relations),
            tags: self.tag,
            labels: self.label.into_iter().collect(),
            max_ttl: self.max_ttl.and_then(ttl_message),
            default: self.default,
            expires: self.expires,
            release: self.release.unwrap_or_default().into(),
            send: send_limits(self.send_method, self.send_path),
            ..Default::default()
        };
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let created = ConnectionServiceClient::new(channel).create_connection(request).await?;
        let created = created.into_inner();
        remarks::announce(&reference.to_string(), &created.findings);
        let text = || format!("{reference} created");
        print(common.output, &to_json(&created), text, || reference.to_string())?;
        warn_if_no_step(&created.name, &created.access);
        Ok(())
    }
}

impl ConnectionGetArgs {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let request = pb::GetConnectionRequest { name: resource_name(&reference) };
        let found =
            ConnectionServiceClient::new(channel).get_connection(request).await?.into_inner();
        print(common.output, &to_json(&found), || describe(&found), || reference.to_string())
    }
}

/// The columns of `connection list`; options add more.
const COLUMNS: [(&str, &str); 8] = [
    ("connection", "connection"),
    ("kind", "kind"),
    ("state", "default disabled"),
    ("release", "release"),
    ("tags", "tags"),
    ("version", "version"),
    ("updated", "update_time"),
    ("by", "updated_by"),
];

impl ConnectionListArgs {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        for tag in self.tag.iter().filter(|tag| tag.contains(':')) {
            tag.parse::<Tag>()?;
        }
        let mut columns = COLUMNS.to_vec();
        columns.extend(self.unused_since.is_some().then_some(("last used", "last_use_time")));
        columns.extend(self.expiring.is_some().then_some(("expires", "expire_time")));
        columns.extend(self.stale.then_some(("old leases", "stale_leases")));
        let wanted = pb::ListConnectionsRequest {
            unused_since: self.unused_since,
            expires_before: self.expiring,
            filter: self.filter()?,
            order_by: self.listing.order_or("name"),
            ..Default::default()
        };
        let output = common.output;
        let print = |connections: &[pb::Connection]| {
            let rows: Vec<_> = connections.iter().map(to_json).collect();
            list(output, &rows, "connection", &columns, "no connections")
        };
        if let Some(page_size) = self.listing.limit {
            let first = pb::ListConnectionsRequest { page_size, ..wanted };
            let mut client = ConnectionServiceClient::new(channel);
            let found = client.list_connections(first).await?.into_inner();
            say_total(found.connections.len(), found.total_size, found.total_size_estimated);
            return print(&found.connections);
        }
        if matches!(output, Output::Json | Output::Yaml) {
            return print(&pages::connections(&channel, wanted).await?);
        }
        let mut count = 0;
        let print_page = |page: Vec<pb::Connection>| {
            count += page.len();
            if page.is_empty() { Ok(()) } else { print(&page) }
        };
        pages::each_connections(&channel, wanted, print_page).await?;
        if count == 0 { print(&[]) } else { Ok(()) }
    }

    /// The filter of all options together.
    fn filter(&self) -> Result<String, Failure> {
        let named = [
            ("integration", &self.integration),
            ("group", &self.group),
            ("principal", &self.principal),
        ];
        let named = named.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?)));
        let mut terms = named.map(|(field, value)| term(field, "=", value)).collect::<Vec<_>>();
        terms.extend(self.tag.iter().map(|tag| match tag.split_once(':') {
            Some((key, value)) => term(&format!("tags.{key}"), "=", value),
            None => Ok(format!("tags.{tag} = *")),
        }));
        let labels = self.label.iter();
        terms.extend(labels.map(|(key, value)| term(&format!("labels.{key}"), "=", value)));
        terms.extend(self.disabled.then(|| Ok("disabled = true".to_owned())));
        terms.extend(self.stale.then(|| Ok("stale = true".to_owned())));
        terms.extend(self.release.map(|one| Ok(format!("release = {}", release_name(one)))));
        self.listing.filter(terms.into_iter().collect::<Result<Vec<_>, _>>()?)
    }
}

impl ConnectionDeleteArgs {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let mut client = ConnectionServiceClient::new(channel.clone());
        let request = pb::GetConnectionRequest { name: resource_name(&reference) };
        let found = client.get_connection(request).await?.into_inner();
        confirm_deletion(&channel, self.yes, &found.name, &format!("Delete {reference}?")).await?;
        let name = found.name.clone();
        BoundResource::from(found).delete(channel.clone(), self.force).await?;
        say(&format!("{reference} deleted"));
        // It is deleted, whether its endings can be listed or not.
        let pending = pages::endings(&channel, Some(&name)).await.map(pending_of);
        let pending = pending.unwrap_or_default();
        match common.output {
            Output::Table | Output::Name => pending_lines(&pending).iter().for_each(|one| say(one)),
            Output::Json | Output::Yaml => {
                let answer = json!({
                    "connection": reference.to_string(),
                    "pending_endings": pending_json(&pending),
                });
                print(common.output, &answer, String::new, String::new)?;
            }
        }
        Ok(())
    }
}
