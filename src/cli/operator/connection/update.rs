//! `keyhatch connection update`: changes only what the arguments name.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::transport::Channel;

use super::view::{holders, in_use_to_json, resource_name, send_limits};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{print, say};
use crate::cli::io::time::{self, parse_duration, ttl_message};
use crate::cli::io::{remarks, values};
use crate::cli::operator::integration;
use crate::cli::operator::labels::parse_label;
use crate::cli::operator::parts::impact::confirm_changes;
use crate::cli::operator::release::parse_release;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::grpc::pb::preview_request::Change;
use crate::model::ConnectionRef;

#[derive(clap::Args)]
pub struct ConnectionUpdateArgs {
    /// INTEGRATION/NAME, such as aws/prod.
    #[arg(value_name = "REF")]
    reference: String,
    /// A field: NAME=- (from stdin), NAME=@FILE, NAME=env:VARIABLE, or NAME=VALUE if it is not
    /// sensitive. All fields here make one new version.
    #[arg(long, value_name = "NAME=…")]
    field: Vec<String>,
    /// Accept an empty value.
    #[arg(long)]
    allow_empty: bool,
    /// A field to remove.
    #[arg(long, value_name = "NAME")]
    remove_field: Vec<String>,
    /// An identifier tag to set, KEY:VALUE.
    #[arg(long, value_name = "KEY:VALUE")]
    tag: Vec<String>,
    /// An identifier tag to remove.
    #[arg(long, value_name = "KEY")]
    remove_tag: Vec<String>,
    /// A label to set, KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// A label to remove.
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    /// Refuse every resolve from now on, and revoke the live leases.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Undo --disable.
    #[arg(long)]
    enable: bool,
    /// The longest lease on it, such as 15m; 0s for the server's maximum.
    #[arg(long, value_parser = parse_duration)]
    max_ttl: Option<Duration>,
    /// Make it default:INTEGRATION, instead of the connection that was.
    #[arg(long, conflicts_with = "no_default")]
    default: bool,
    /// Undo --default.
    #[arg(long)]
    no_default: bool,
    /// When the credential expires: 2026-12-31, 2026-12-31T12:00:00Z; or none, if that is not known.
    #[arg(long, value_name = "TIME", value_parser = parse_expires)]
    expires: Option<Expires>,
    /// What a step gets: minted, a short-lived credential that the broker makes from the fields, or stored, the
    /// fields themselves. From minted to stored, give every sensitive field again.
    #[arg(long, value_name = "minted|stored", value_parser = parse_release)]
    release: Option<pb::Release>,
    /// A method that the broker may send with it, in place of those it had; may be given more than once. To admit more than
    /// before, give every sensitive field again.
    #[arg(long, value_name = "METHOD", conflicts_with = "send_all")]
    send_method: Vec<String>,
    /// A path below its address that the broker may send requests to, in place of those it had; as --send-method.
    #[arg(long, value_name = "PATH", conflicts_with = "send_all")]
    send_path: Vec<String>,
    /// Let the broker send all methods to all paths; give every sensitive field again.
    #[arg(long)]
    send_all: bool,
    /// Fail if this is no longer its etag.
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
    /// Check the change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not show what other tags or another release break, and do not ask.
    #[arg(long)]
    yes: bool,
}

impl ConnectionUpdateArgs {
    pub(crate) async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let mut client = ConnectionServiceClient::new(channel.clone());
        let request = pb::GetConnectionRequest { name: resource_name(&reference) };
        let current = client.get_connection(request).await?.into_inner();
        let schema = integration::find(channel.clone(), &current.integration).await?;
        let kinds: Vec<_> = schema.kinds.iter().filter(|kind| kind.name == current.kind).collect();
        let fields = values::read(&self.field, &kinds, self.allow_empty)?;
        if let Some(both) = self.remove_field.iter().find(|name| fields.contains_key(*name)) {
            let text = format!("{both} is both written and removed; say one of them");
            return Err(Failure::usage(text));
        }
        let (dry_run, yes) = (self.dry_run, self.yes);
        let named_to_go = self.remove_field.clone();
        let (connection, paths) = self.change(&current, fields);
        if paths.is_empty() {
            return Err(Failure::usage("nothing to update: name a field, a tag or a setting"));
        }
        let question = format!("Change {reference}?");
        confirm_changes(&channel, yes, previewed(&connection, &paths), &question).await?;
        let request = pb::UpdateConnectionRequest {
            connection: Some(connection),
            update_mask: Some(prost_types::FieldMask { paths }),
            validate_only: dry_run,
            ..Default::default()
        };
        let updated = client.update_connection(request).await?.into_inner();
        remarks::announce(&reference.to_string(), &updated.findings);
        for gone in gone(&current, &updated).filter(|name| !named_to_go.contains(name)) {
            say(&format!(
                "note: {reference}: {gone} is removed with the value that it was part of"
            ));
        }
        let text = || match (dry_run, updated.etag == current.etag) {
            (true, _) => format!("{reference} would be updated"),
            (false, true) => format!("{reference} unchanged"),
            (false, false) if updated.version == current.version => {
                format!("{reference} updated, its values unchanged (version {})", updated.version)
            }
            (false, false) => {
                let held = holders(&updated);
                format!("{reference} updated, version {}\n{held}", updated.version)
            }
        };
        let text = || text().trim_end().to_owned();
        print(common.output, &in_use_to_json(&updated), text, || reference.to_string())
    }

    /// The changed connection, and the paths of what changes in it.
    fn change(
        self,
        current: &pb::Connection,
        fields: BTreeMap<String, Vec<u8>>,
    ) -> (pb::Connection, Vec<String>) {
        let path_of = |name: &String| format!("fields.{name}");
        let mut paths: Vec<_> = fields.keys().chain(&self.remove_field).map(path_of).collect();
        let mut change = pb::Connection {
            name: current.name.clone(),
            fields,
            etag: self.etag.unwrap_or_default(),
            disabled: self.disable,
            default: self.default,
            max_ttl: self.max_ttl.and_then(ttl_message),
            expires: self.expires.and_then(|expires| expires.0),
            release: self.release.unwrap_or_default().into(),
            ..Default::default()
        };
        if self.send_all || !self.send_method.is_empty() || !self.send_path.is_empty() {
            change.send = send_limits(self.send_method, self.send_path);
            paths.push("send".to_owned());
        }
        if !self.tag.is_empty() || !self.remove_tag.is_empty() {
            change.tags = with_tags(&current.tags, self.tag, &self.remove_tag);
            paths.push("tags".to_owned());
        }
        if !self.label.is_empty() || !self.remove_label.is_empty() {
            change.labels.clone_from(&current.labels);
            change.labels.retain(|key, _| !self.remove_label.contains(key));
            change.labels.extend(self.label);
            paths.push("labels".to_owned());
        }
        let switches = [
            (self.disable || self.enable, "disabled"),
            (self.default || self.no_default, "default"),
            (self.max_ttl.is_some(), "max_ttl"),
            (self.expires.is_some(), "expires"),
            (self.release.is_some(), "release"),
        ];
        let named = switches.into_iter().filter(|(is_named, _)| *is_named);
        paths.extend(named.map(|(_, path)| path.to_owned()));
        // Tags and labels are computed from the current ones, so a concurrent change must fail this update.
        let is_computed = paths.iter().any(|path| path == "tags" || path == "labels");
        if is_computed && change.etag.is_empty() {
            change.etag.clone_from(&current.etag);
        }
        (change, paths)
    }
}

/// The parts of a change whose impact is shown.
fn previewed(change: &pb::Connection, paths: &[String]) -> Vec<Change> {
    let is_named = |part: &str| paths.iter().any(|path| path == part);
    let (name, tags) = (change.name.clone(), change.tags.clone());
    let tags = is_named("tags").then(|| Change::Tags(pb::TagsChange { name: name.clone(), tags }));
    let release = change.release;
    let release =
        is_named("release").then_some(Change::Release(pb::ReleaseChange { name, release }));
    tags.into_iter().chain(release).collect()
}

/// The fields that the update removed.
fn gone<'a>(
    before: &'a pb::Connection,
    after: &'a pb::Connection,
) -> impl Iterator<Item = &'a String> {
    let stays = |name: &String| after.field_states.iter().any(|state| state.name == *name);
    before.field_states.iter().map(|state| &state.name).filter(move |name| !stays(name))
}

fn with_tags(current: &[String], added: Vec<String>, removed: &[String]) -> Vec<String> {
    let key_of = |tag: &str| tag.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let gone: Vec<String> = added.iter().chain(removed).map(|tag| key_of(tag)).collect();
    let stays = current.iter().filter(|tag| !gone.contains(&key_of(tag))).cloned();
    stays.chain(added).collect()
}

/// When a credential expires; `None` if that is not known.
#[derive(Clone, Copy, Debug)]
pub struct Expires(Option<prost_types::Timestamp>);

fn parse_expires(text: &str) -> Result<Expires, String> {
    match text {
        "none" => Ok(Expires(None)),
        text => time::parse(text).map(|moment| Expires(Some(moment))),
    }
}
