//! Access bindings as commands write and show them.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::io::output::say;
use crate::cli::io::text::{command_line, short_name};
use crate::grpc::pb;
use crate::integration;
use crate::model::IntegrationName;

/// Bindings for the relations that name a principal.
pub fn bindings(
    relations: impl IntoIterator<Item = (pb::Relation, Vec<String>)>,
) -> Vec<pb::AccessBinding> {
    let named = relations.into_iter().filter(|(_, principals)| !principals.is_empty());
    named
        .map(|(relation, principals)| pb::AccessBinding { relation: relation.into(), principals })
        .collect()
}

/// The principals of each relation, by its name.
pub fn access_of(access: &[pb::AccessBinding]) -> BTreeMap<&'static str, BTreeSet<&str>> {
    access
        .iter()
        .map(|one| {
            let principals = one.principals.iter().map(String::as_str).collect();
            (relation_name(one.relation()), principals)
        })
        .collect()
}

/// The same as properties, one for each relation.
pub fn access_rows(access: &[pb::AccessBinding]) -> impl Iterator<Item = (&'static str, String)> {
    let joined = |principals: BTreeSet<&str>| principals.into_iter().collect::<Vec<_>>().join(", ");
    access_of(access).into_iter().map(move |(relation, all)| (relation, joined(all)))
}

/// A relation by its name.
pub fn relation_name(relation: pb::Relation) -> &'static str {
    match relation {
        pb::Relation::Editor => "editor",
        pb::Relation::Resolver => "resolver",
        pb::Relation::User => "user",
        pb::Relation::Viewer => "viewer",
        pb::Relation::Unspecified => "unknown",
    }
}

/// A connection or group, by its full name, as arguments name it: `aws/prod`, `group:accounts`.
pub fn argument_of(name: &str) -> String {
    match name.split_once('/') {
        Some(("groups", name)) => format!("group:{name}"),
        Some((_, rest)) => rest.to_owned(),
        None => name.to_owned(),
    }
}

/// The command that gives a principal a relation to a connection or group.
pub fn grant_command(name: &str, relation: pb::Relation, principal: &str) -> String {
    access_command("add", name, relation, principal)
}

/// The same, or `remove` to take the relation back.
pub fn access_command(verb: &str, name: &str, relation: pb::Relation, principal: &str) -> String {
    let (reference, relation) = (argument_of(name), relation_name(relation));
    command_line(&["access", verb, &reference, "--relation", relation, "--principal", principal])
}

/// The commands by which a step goes on that was refused values and may use the connection: the broker acts for it. Empty if
/// something else is refused, too, or the broker does not act with this integration.
pub fn ways_without_values(explained: &pb::ExplainResponse) -> Vec<String> {
    let is_user_only = |one: &pb::ExaminedResource| {
        one.needed() == pb::Relation::Resolver && one.held() == pb::Relation::User
    };
    let mut refused = explained.resources.iter().filter(|one| !one.allowed).peekable();
    if refused.peek().is_none() || !refused.all(is_user_only) {
        return Vec::new();
    }
    let integration = short_name(&explained.connection).split('/').next().unwrap_or_default();
    let found = IntegrationName::parse(integration).ok();
    let Some(found) = found.as_ref().and_then(integration::find) else { return Vec::new() };
    let target = &explained.target;
    let serve = |what: &str| {
        command_line(&["exec", "--serve", &format!("{what}={target}"), "--", "COMMAND"])
    };
    let has = |service: &str| found.kinds.iter().any(|kind| kind.send(service).is_some());
    let api = has("").then(|| [command_line(&["send", target, "GET", "/PATH"]), serve("http")]);
    let git = has("git").then(|| serve("git"));
    let ssh = (integration == "ssh").then(|| serve("ssh"));
    api.into_iter().flatten().chain(git).chain(ssh).collect()
}

/// True if a relation is another, or includes it. The numbers of relations do not say their order.
pub fn includes(relation: pb::Relation, other: pb::Relation) -> bool {
    use pb::Relation::{Editor, Resolver, Unspecified, User, Viewer};
    let place = |relation| match relation {
        Unspecified => 0,
        Viewer => 1,
        User => 2,
        Resolver => 3,
        Editor => 4,
    };
    place(relation) >= place(other)
}

/// True if some step has this relation. Only a workflow admits steps; a user, team, role or service account does not.
pub fn admits_steps(access: &[pb::AccessBinding], relation: pb::Relation) -> bool {
    let is_workflow = |principal: &String| principal.starts_with("workflow:");
    let is_enough = |one: &&pb::AccessBinding| includes(one.relation(), relation);
    access.iter().filter(is_enough).any(|one| one.principals.iter().any(is_workflow))
}

/// Says on stderr that no step can use a new connection or group yet, with the command that changes that.
pub fn warn_if_no_step(name: &str, access: &[pb::AccessBinding]) {
    let (least, usual, verb) = match name.starts_with("groups/") {
        true => (pb::Relation::Viewer, pb::Relation::Viewer, "use"),
        false => (pb::Relation::User, pb::Relation::Resolver, "resolve"),
    };
    if !admits_steps(access, least) {
        let command = grant_command(name, usual, "workflow:NAME");
        say(&format!("no step may {verb} it yet: {command}"));
    }
}
