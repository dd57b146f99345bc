//! What is shown of a connection.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::cli::io::output::say;
use crate::cli::io::text::{properties, table};
use crate::cli::io::time::moment;
use crate::cli::operator::check::command;
use crate::grpc::pb;
use crate::model::{ConnectionRef, ResourceName};

/// Bindings for the relations that name anybody.
pub fn bindings(
    relations: impl IntoIterator<Item = (pb::Relation, Vec<String>)>,
) -> Vec<pb::AccessBinding> {
    let named = relations.into_iter().filter(|(_, principals)| !principals.is_empty());
    named
        .map(|(relation, principals)| pb::AccessBinding { relation: relation.into(), principals })
        .collect()
}

/// A connection's full name.
pub fn resource_name(reference: &ConnectionRef) -> String {
    ResourceName::Connection(reference.clone()).to_string()
}

/// A connection as people write it.
pub fn reference_of(connection: &pb::Connection) -> String {
    connection.name.strip_prefix("connections/").unwrap_or(&connection.name).to_owned()
}

/// A connection or group, by its full name, as commands take it.
pub fn argument_of(name: &str) -> String {
    match name.split_once('/') {
        Some(("groups", name)) => format!("group:{name}"),
        Some((_, rest)) => rest.to_owned(),
        None => name.to_owned(),
    }
}

/// A relation by its name.
pub fn relation_name(relation: pb::Relation) -> &'static str {
    match relation {
        pb::Relation::Editor => "editor",
        pb::Relation::Resolver => "resolver",
        pb::Relation::Viewer => "viewer",
        pb::Relation::Unspecified => "unknown",
    }
}

/// Whether some step has this relation. A user, team, role or service account admits nobody without a workflow.
pub fn is_for_steps(access: &[pb::AccessBinding], relation: pb::Relation) -> bool {
    let is_steps = |principal: &String| principal.starts_with("workflow:");
    let is_enough = |one: &&pb::AccessBinding| one.relation >= i32::from(relation);
    access.iter().filter(is_enough).any(|one| one.principals.iter().any(is_steps))
}

/// Says so, with the command that mends it, if no step has this relation on what was created.
pub fn tell_if_nobodys(name: &str, access: &[pb::AccessBinding], relation: pb::Relation) {
    if is_for_steps(access, relation) {
        return;
    }
    let (reference, relation_name) = (argument_of(name), relation_name(relation));
    let verb = if relation == pb::Relation::Viewer { "use" } else { "resolve" };
    let words = ["access", "add", &reference, "--relation", relation_name, "--principal"];
    say(&format!("no step may {verb} it yet: {} workflow:NAME", command(&words)));
}

/// Who has which relation, by its name.
pub fn access_of(access: &[pb::AccessBinding]) -> BTreeMap<&'static str, BTreeSet<&str>> {
    access
        .iter()
        .map(|one| {
            let principals = one.principals.iter().map(String::as_str).collect();
            (relation_name(one.relation()), principals)
        })
        .collect()
}

/// `key=value, …`
pub fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

/// As scripts read it.
pub fn to_json(connection: &pb::Connection) -> serde_json::Value {
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
        "labels": connection.labels,
        "groups": connection.groups,
        "access": access_of(&connection.access),
        "disabled": connection.disabled,
        "default": connection.default,
        "max_ttl_seconds": connection.max_ttl.as_ref().map(|ttl| ttl.seconds),
        "live_leases": connection.live_leases,
        "expires": connection.expires.as_ref().map(|time| moment(Some(time))),
        "expire_time": connection.expire_time.as_ref().map(|time| moment(Some(time))),
        "last_use_time": connection.last_use_time.as_ref().map(|time| moment(Some(time))),
        "use_count": connection.use_count,
        "create_time": moment(connection.create_time.as_ref()),
        "update_time": moment(connection.update_time.as_ref()),
        "updated_by": connection.updated_by,
        "etag": connection.etag,
    })
}

/// The same with who uses it.
pub fn in_use_to_json(connection: &pb::Connection) -> serde_json::Value {
    let uses = connection.uses.iter().map(|one| {
        json!({
            "workflow": one.workflow,
            "use_count": one.use_count,
            "last_use_time": moment(one.last_use_time.as_ref()),
        })
    });
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
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("uses".to_owned(), uses.collect());
        answer.insert("holders".to_owned(), holders.collect());
    }
    answer
}

/// Which live runs hold which version, for people; nothing if none does.
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

/// What is special about a connection, in a word or two.
pub fn state(connection: &pb::Connection) -> String {
    let words = [(connection.default, "default"), (connection.disabled, "disabled")];
    let words = words.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word);
    words.collect::<Vec<_>>().join(", ")
}

/// As people read it.
pub fn describe(connection: &pb::Connection) -> String {
    let updated = moment(connection.update_time.as_ref());
    let max_ttl = connection.max_ttl.as_ref().map(|ttl| format!("{} s", ttl.seconds));
    let mut rows = vec![
        ("connection", reference_of(connection)),
        ("kind", connection.kind.clone()),
        ("version", connection.version.to_string()),
        ("created", moment(connection.create_time.as_ref())),
        ("updated", format!("{updated} by {}", connection.updated_by)),
    ];
    let optional = [
        ("state", state(connection)),
        ("max lease", max_ttl.unwrap_or_default()),
        ("tags", connection.tags.join(", ")),
        ("labels", pairs(&connection.labels)),
        ("member of", connection.groups.join(", ")),
    ];
    rows.extend(optional.into_iter().filter(|(_, text)| !text.is_empty()));
    for (relation, principals) in access_of(&connection.access) {
        rows.push((relation, principals.into_iter().collect::<Vec<_>>().join(", ")));
    }
    if let Some(end) = &connection.expire_time {
        rows.push(("expires", moment(Some(end))));
    }
    for one in &connection.uses {
        let last = moment(one.last_use_time.as_ref());
        let uses = format!("workflow {}, {} time(s), last {last}", one.workflow, one.use_count);
        rows.push(("used by", uses));
    }
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
