//! Workflows of Datadog, as its API and its pages write them: their steps name connections by labels.
//!
//! ```text
//! data.attributes {name, spec {steps [{name, actionId, connectionLabel}],
//!     connectionEnvs [{connections [{label, connectionId}], connectionGroups [{label, connectionGroupId, tags}]}]}}
//! ```
//!
//! An action is called `com.datadoghq.INTEGRATION.…`. A connection has no name but its id, which is the name here.

use super::reference::SpecReference;
use super::spec::plain_text;
use super::yaml::Node;

/// The beginning of the id of an action, before the integration's name.
pub(super) const ACTIONS: &str = "com.datadoghq.";

/// The workflow in a Datadog file, if it is one.
pub(super) fn workflow(document: &Node) -> Option<&Node> {
    attributes(document).get("spec").filter(|spec| spec.get("steps").is_some())
}

/// The name of the workflow in a Datadog file, if it is one.
pub(super) fn name(document: &Node) -> Option<&Node> {
    workflow(document).and_then(|_| attributes(document).get("name"))
}

fn attributes(document: &Node) -> &Node {
    document.get("data").and_then(|data| data.get("attributes")).unwrap_or(document)
}

/// True if the node is an action that sends one HTTP request, which a broker can send for it.
pub(super) fn is_request(action: &Node) -> bool {
    integration(action).is_some_and(|kind| kind == "http")
}

/// The integration of an action.
fn integration(action: &Node) -> Option<&str> {
    let action = ["actionId", "fqn"].iter().find_map(|key| action.get(key)?.text())?;
    action.strip_prefix(ACTIONS)?.split('.').next()
}

/// The connection that a node names by its id, with the integration of an action.
pub(super) fn connection(node: &Node, action: &Node) -> Option<SpecReference> {
    let name = node.get("connectionId").and_then(plain_text)?.to_owned();
    let kind = integration(action)?.to_owned();
    Some(SpecReference::Connection { kind, name })
}
