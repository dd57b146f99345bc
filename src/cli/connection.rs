//! `keyhatch connection`: what an operator does with connections.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::endpoint::{Caller, connect};
use super::failure::{Failure, exit};
use super::integration;
use super::output::{moment, print, properties, say, table};
use super::values;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::model::{ConnectionRef, ResourceName};

/// `keyhatch connection …`
#[derive(Subcommand)]
pub enum Connection {
    /// Create a connection
    Create(Create),
    /// Show a connection, without its sensitive values
    Get(Get),
    /// List connections
    List(List),
    /// Delete a connection and revoke its leases
    Delete(Delete),
}

/// Arguments of `connection create`.
#[derive(clap::Args)]
pub struct Create {
    /// INTEGRATION/NAME, such as aws/prod.
    #[arg(value_name = "REF")]
    reference: String,
    /// The credential kind, where the fields do not say which is meant.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// A field: NAME=- (from stdin), NAME=@FILE, NAME=env:VARIABLE, or NAME=VALUE if it is not
    /// sensitive. On a terminal, what is missing is asked for.
    #[arg(long, value_name = "NAME=…")]
    field: Vec<String>,
    /// An identifier tag, KEY:VALUE; may be given more than once.
    #[arg(long, value_name = "KEY:VALUE")]
    tag: Vec<String>,
    /// Who may resolve it, such as workflow:deploy; may be given more than once.
    #[arg(long, value_name = "PRINCIPAL")]
    resolver: Vec<String>,
    /// Who may see it.
    #[arg(long, value_name = "PRINCIPAL")]
    viewer: Vec<String>,
    /// Who may change it; you may anyway.
    #[arg(long, value_name = "PRINCIPAL")]
    editor: Vec<String>,
}

/// Arguments of `connection get`.
#[derive(clap::Args)]
pub struct Get {
    /// INTEGRATION/NAME.
    #[arg(value_name = "REF")]
    reference: String,
}

/// Arguments of `connection list`.
#[derive(clap::Args)]
pub struct List {
    /// Only connections of this integration.
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
}

/// Arguments of `connection delete`.
#[derive(clap::Args)]
pub struct Delete {
    /// INTEGRATION/NAME.
    #[arg(value_name = "REF")]
    reference: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Take it out of its groups.
    #[arg(long)]
    force: bool,
}

impl Connection {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        match self {
            Self::Create(create) => create.run(common, channel).await,
            Self::Get(get) => get.run(common, channel).await,
            Self::List(list) => list.run(common, channel).await,
            Self::Delete(delete) => delete.run(channel).await,
        }
    }
}

impl Create {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let integration =
            integration::find(channel.clone(), reference.integration.as_str()).await?;
        let kind = self.kind.as_deref();
        let meant = |one: &&pb::CredentialKind| kind.is_none_or(|name| one.name == name);
        let kinds: Vec<_> = integration.kinds.iter().filter(meant).collect();
        let fields = values::read(&self.field, &kinds)?;
        let relations = [
            (pb::Relation::Viewer, self.viewer),
            (pb::Relation::Resolver, self.resolver),
            (pb::Relation::Editor, self.editor),
        ];
        let connection = pb::Connection {
            name: resource_name(&reference),
            integration: reference.integration.to_string(),
            kind: kind.unwrap_or_default().to_owned(),
            fields,
            access: bindings(relations),
            tags: self.tag,
            ..Default::default()
        };
        let request = pb::CreateConnectionRequest { connection: Some(connection) };
        let created = ConnectionServiceClient::new(channel).create_connection(request).await?;
        let created = created.into_inner();
        let text = || format!("{reference} created");
        print(common.output, &to_json(&created), text, || reference.to_string())
    }
}

impl Get {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let request = pb::GetConnectionRequest { name: resource_name(&reference) };
        let found =
            ConnectionServiceClient::new(channel).get_connection(request).await?.into_inner();
        print(common.output, &to_json(&found), || describe(&found), || reference.to_string())
    }
}

impl List {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let mut client = ConnectionServiceClient::new(channel);
        let mut request = pb::ListConnectionsRequest {
            page_size: 1000,
            page_token: String::new(),
            integration: self.integration.unwrap_or_default(),
        };
        let mut connections = Vec::new();
        loop {
            let page = client.list_connections(request.clone()).await?.into_inner();
            connections.extend(page.connections);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let answer: Vec<_> = connections.iter().map(to_json).collect();
        let rows = || {
            let rows = connections.iter().map(|one| {
                let version = one.version.to_string();
                let updated = moment(one.update_time.as_ref());
                vec![reference_of(one), one.kind.clone(), version, updated, one.updated_by.clone()]
            });
            let header = ["connection", "kind", "version", "updated", "by"];
            if connections.is_empty() {
                "no connections".to_owned()
            } else {
                table(&header, rows.collect())
            }
        };
        let names = || connections.iter().map(reference_of).collect::<Vec<_>>().join("\n");
        print(common.output, &answer, rows, names)
    }
}

impl Delete {
    async fn run(self, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let mut client = ConnectionServiceClient::new(channel);
        let request = pb::GetConnectionRequest { name: resource_name(&reference) };
        let found = client.get_connection(request).await?.into_inner();
        if !self.yes {
            let groups = match found.groups.join(", ") {
                none if none.is_empty() => String::new(),
                groups => format!(", a member of {groups}"),
            };
            confirm(&format!("Delete {reference} (version {}{groups})?", found.version))?;
        }
        let (name, etag) = (found.name, found.etag);
        let request = pb::DeleteConnectionRequest { name, etag, force: self.force };
        client.delete_connection(request).await?;
        say(&format!("{reference} deleted"));
        Ok(())
    }
}

/// Asks for a yes.
///
/// # Errors
/// If nobody is there to ask, or the answer is no.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to ask: say --yes")));
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("CANCELLED", "nothing was done", exit::FAILED)),
    }
}

/// Bindings for the relations that name anybody.
pub(super) fn bindings(
    relations: impl IntoIterator<Item = (pb::Relation, Vec<String>)>,
) -> Vec<pb::AccessBinding> {
    let named = relations.into_iter().filter(|(_, principals)| !principals.is_empty());
    named
        .map(|(relation, principals)| pb::AccessBinding { relation: relation.into(), principals })
        .collect()
}

fn resource_name(reference: &ConnectionRef) -> String {
    ResourceName::Connection(reference.clone()).to_string()
}

fn reference_of(connection: &pb::Connection) -> String {
    connection.name.strip_prefix("connections/").unwrap_or(&connection.name).to_owned()
}

/// Who has which relation, by its name.
pub(super) fn access_of(access: &[pb::AccessBinding]) -> BTreeMap<&'static str, BTreeSet<&str>> {
    let relation = |binding: &pb::AccessBinding| match binding.relation() {
        pb::Relation::Editor => "editor",
        pb::Relation::Resolver => "resolver",
        pb::Relation::Viewer => "viewer",
        pb::Relation::Unspecified => "unknown",
    };
    access
        .iter()
        .map(|one| (relation(one), one.principals.iter().map(String::as_str).collect()))
        .collect()
}

fn to_json(connection: &pb::Connection) -> serde_json::Value {
    let fields: BTreeMap<_, _> = connection
        .field_states
        .iter()
        .map(|field| {
            let mut state = json!({
                "sensitive": field.sensitive,
                "update_time": moment(field.update_time.as_ref()),
                "updated_by": field.updated_by,
            });
            if let (false, Ok(value), Some(state)) =
                (field.sensitive, std::str::from_utf8(&field.value), state.as_object_mut())
            {
                state.insert("value".to_owned(), json!(value));
            }
            (field.name.clone(), state)
        })
        .collect();
    json!({
        "connection": reference_of(connection),
        "uid": connection.uid,
        "integration": connection.integration,
        "kind": connection.kind,
        "version": connection.version,
        "fields": fields,
        "tags": connection.tags,
        "groups": connection.groups,
        "access": access_of(&connection.access),
        "create_time": moment(connection.create_time.as_ref()),
        "update_time": moment(connection.update_time.as_ref()),
        "updated_by": connection.updated_by,
        "etag": connection.etag,
    })
}

fn describe(connection: &pb::Connection) -> String {
    let mut rows = vec![
        ("connection", reference_of(connection)),
        ("kind", connection.kind.clone()),
        ("version", connection.version.to_string()),
        ("created", moment(connection.create_time.as_ref())),
        (
            "updated",
            format!("{} by {}", moment(connection.update_time.as_ref()), connection.updated_by),
        ),
    ];
    if !connection.tags.is_empty() {
        rows.push(("tags", connection.tags.join(", ")));
    }
    if !connection.groups.is_empty() {
        rows.push(("member of", connection.groups.join(", ")));
    }
    for (relation, principals) in access_of(&connection.access) {
        rows.push((relation, principals.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let fields = connection.field_states.iter().map(|field| {
        let value = if field.sensitive {
            "(sensitive)".to_owned()
        } else {
            String::from_utf8_lossy(&field.value).into_owned()
        };
        let set = moment(field.update_time.as_ref());
        vec![field.name.clone(), value, set, field.updated_by.clone()]
    });
    let fields = table(&["field", "value", "set", "by"], fields.collect());
    format!("{}\n\n{fields}", properties(&rows))
}
