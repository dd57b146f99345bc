//! A connection as commands show it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::cli::io::output::extend;
use crate::cli::io::text::{properties, short_name, table};
use crate::cli::io::time::moment;
use crate::cli::operator::bindings::{access_of, access_rows};
use crate::cli::operator::labels::pairs;
use crate::cli::operator::parts::uses::{use_rows, uses_json};
use crate::cli::operator::release::release_name;
use crate::grpc::pb;
use crate::model::{ConnectionRef, ResourceName};

/// The full name of a connection.
pub fn resource_name(reference: &ConnectionRef) -> String {
    ResourceName::Connection(reference.clone()).to_string()
}

/// For scripts.
pub fn to_json(connection: &pb::Connection) -> Json {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| moment(Some(time)));
    let fields = connection.field_states.iter().map(|field| {
        let mut state = json!({
            "sensitive": field.sensitive,
            "update_time": moment(field.update_time.as_ref()),
            "updated_by": field.updated_by,
        });
        if let (false, Ok(value)) = (field.sensitive, std::str::from_utf8(&field.value)) {
            extend(&mut state, "value", json!(value));
        }
        (&field.name, state)
    });
    json!({
        "connection": short_name(&connection.name),
        "uid": connection.uid,
        "integration": connection.integration,
        "kind": connection.kind,
        "version": connection.version,
        "fields": fields.collect::<BTreeMap<_, _>>(),
        "tags": connection.tags,
        "labels": connection.labels,
        "groups": connection.groups,
        "access": access_of(&connection.access),
        "disabled": connection.disabled,
        "default": connection.default,
        "release": release_name(connection.release()),
        "mintable": connection.mintable,
        "refresh_token": connection.refresh_token.as_ref().map(|state| json!({
            "generation": state.generation,
            "update_time": moment(state.update_time.as_ref()),
            "reauthorization_required": state.reauthorization_required,
        })),
        "send": connection.send.as_ref().map(|send| json!({ "methods": send.methods, "paths": send.paths })),
        "max_ttl_seconds": connection.max_ttl.as_ref().map(|ttl| ttl.seconds),
        "live_leases": connection.live_leases,
        "stale_leases": connection.stale_leases,
        "expires": time(&connection.expires),
        "expire_time": time(&connection.expire_time),
        "last_use_time": time(&connection.last_use_time),
        "use_count": connection.use_count,
        "create_time": moment(connection.create_time.as_ref()),
        "update_time": moment(connection.update_time.as_ref()),
        "updated_by": connection.updated_by,
        "etag": connection.etag,
    })
}

/// For scripts, with the workflows that use it and the runs that hold leases.
pub fn in_use_to_json(connection: &pb::Connection) -> Json {
    let holders = connection.holders.iter().map(|one| {
        json!({
            "workflow": one.workflow,
            "run": one.run,
            "step": one.step,
            "version": one.version,
            "expire_time": moment(one.expire_time.as_ref()),
        })
    });
    let mut answer = to_json(connection);
    extend(&mut answer, "uses", uses_json(&connection.uses));
    extend(&mut answer, "holders", holders.collect());
    answer
}

/// For people: the versions that live runs hold; empty if there are none.
pub fn holders(connection: &pb::Connection) -> String {
    let rows = connection.holders.iter().map(|one| {
        let is_old = one.version < connection.version;
        let version = format!("{}{}", one.version, if is_old { " (old)" } else { "" });
        let until = moment(one.expire_time.as_ref());
        vec![version, format!("{}/{}", one.workflow, one.run), one.step.clone(), until]
    });
    match connection.holders.is_empty() {
        true => String::new(),
        false => table(&["version", "held by run", "step", "until"], rows.collect()),
    }
}

/// What a step gets, in words; empty if the broker cannot mint.
fn releases(connection: &pb::Connection) -> String {
    let text = match (connection.release(), connection.mintable) {
        (pb::Release::Minted, _) => "minted: a step gets a short-lived credential",
        (_, true) => "stored: a step gets the fields, although the broker could mint from them",
        (_, false) => "",
    };
    text.to_owned()
}

/// What is known of the refresh token, in words; empty if that is nothing.
fn refresh_token(connection: &pb::Connection) -> String {
    let Some(state) = &connection.refresh_token else { return String::new() };
    let time = moment(state.update_time.as_ref());
    match (state.reauthorization_required.as_str(), state.generation) {
        ("", count) => format!("replaced {count} time(s) by the upstream, last {time}"),
        (why, _) => format!("REAUTHORIZATION_REQUIRED since {time}: {why}"),
    }
}

/// The limits of what is sent; `None` if there are none.
pub fn send_limits(methods: Vec<String>, paths: Vec<String>) -> Option<pb::SendLimits> {
    let is_limited = !methods.is_empty() || !paths.is_empty();
    is_limited.then_some(pb::SendLimits { methods, paths })
}

/// The requests that it admits, in a line.
fn sends_only(send: &pb::SendLimits) -> String {
    let methods =
        if send.methods.is_empty() { "all methods".to_owned() } else { send.methods.join(", ") };
    let paths = if send.paths.is_empty() { "all paths".to_owned() } else { send.paths.join(", ") };
    format!("{methods} below {paths}").replace("below all paths", "to all paths")
}

/// For people.
pub fn describe(connection: &pb::Connection) -> String {
    let updated = moment(connection.update_time.as_ref());
    let max_ttl = connection.max_ttl.as_ref().map(|ttl| format!("{} s", ttl.seconds));
    let mut rows = vec![
        ("connection", short_name(&connection.name).to_owned()),
        ("kind", connection.kind.clone()),
        ("version", connection.version.to_string()),
        ("created", moment(connection.create_time.as_ref())),
        ("updated", format!("{updated} by {}", connection.updated_by)),
    ];
    let states = [(connection.default, "default"), (connection.disabled, "disabled")];
    let states = states.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word);
    let optional = [
        ("release", releases(connection)),
        ("refresh token", refresh_token(connection)),
        ("state", states.collect::<Vec<_>>().join(", ")),
        ("max lease", max_ttl.unwrap_or_default()),
        ("sends only", connection.send.as_ref().map(sends_only).unwrap_or_default()),
        ("tags", connection.tags.join(", ")),
        ("labels", pairs(&connection.labels, ", ")),
        ("member of", connection.groups.join(", ")),
    ];
    rows.extend(optional.into_iter().filter(|(_, text)| !text.is_empty()));
    rows.extend(access_rows(&connection.access));
    if let Some(end) = &connection.expire_time {
        rows.push(("expires", moment(Some(end))));
    }
    rows.extend(use_rows(&connection.uses));
    rows.push(("live leases", connection.live_leases.to_string()));
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
    let parts = [properties(&rows), fields, holders(connection)];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("\n\n")
}
