//! Workflows of Datadog, as its API and its pages write them: the same steps, with connections by labels.
//!
//! ```text
//! data.attributes {name, spec {steps [{name, actionId, connectionLabel}],
//!     connectionEnvs [{connections [{label, connectionId}], connectionGroups [{label, connectionGroupId, tags}]}]}}
//! ```
//!
//! An action is called `com.datadoghq.INTEGRATION.…`. A connection has no other name than its id, so that is the name
//! which is asked for here.

use std::collections::{BTreeSet, HashMap};

use super::SpecError;
use super::spec::plain_text;
use super::workflow::{Finder, MAX_USES, UseTarget, items};
use super::yaml::Node;

const ACTIONS: &str = "com.datadoghq.";

/// The workflow in a file that has more than that.
pub(super) fn workflow(document: &Node) -> Option<&Node> {
    attributes(document).get("spec").filter(|spec| spec.get("steps").is_some())
}

/// The name of the workflow in a file that has more than that.
pub(super) fn name(document: &Node) -> Option<&Node> {
    workflow(document).and_then(|_| attributes(document).get("name"))
}

fn attributes(document: &Node) -> &Node {
    document.get("data").and_then(|data| data.get("attributes")).unwrap_or(document)
}

/// The connection that a node names by its id, for an action.
pub(super) fn connection(node: &Node, action: &Node) -> Option<UseTarget> {
    let name = node.get("connectionId").and_then(plain_text)?.to_owned();
    let action = ["actionId", "fqn"].iter().find_map(|key| action.get(key)?.text())?;
    let kind = action.strip_prefix(ACTIONS)?.split('.').next()?.to_owned();
    Some(UseTarget::Connection { kind, name })
}

impl Finder {
    /// What steps name by a label.
    pub(super) fn environments(&mut self, workflow: &Node) {
        let mut users = HashMap::<&str, Vec<&Node>>::new();
        for step in workflow.get("steps").map(items).unwrap_or_default() {
            if let Some(label) = step.get("connectionLabel").and_then(Node::text) {
                users.entry(label).or_default().push(step);
            }
        }
        let mut labels = BTreeSet::new();
        for environment in workflow.get("connectionEnvs").map(items).unwrap_or_default() {
            for key in ["connectionGroups", "connections"] {
                for named in environment.get(key).map(items).unwrap_or_default() {
                    let label = named.get("label").and_then(Node::text);
                    labels.extend(label);
                    let users = label.and_then(|label| users.get(label));
                    self.labelled(named, key, users.map(Vec::as_slice).unwrap_or_default());
                }
            }
        }
        for (label, users) in users {
            let nodes = users.iter().filter_map(|user| user.get("connectionLabel"));
            for node in nodes.filter(|_| !labels.contains(label)) {
                let problem = "no connectionEnvs has this connectionLabel";
                self.problems.push(SpecError::new(node.at, problem));
            }
        }
    }

    /// A connection or group with a label, for the steps that have it; a group that no step has is told of, too.
    fn labelled(&mut self, named: &Node, key: &str, users: &[&Node]) {
        if users.is_empty() && key == "connectionGroups" {
            self.group(named);
        }
        for user in users {
            if self.found.len() >= MAX_USES {
                return;
            }
            self.step = user.get("name").and_then(Node::text).map(ToOwned::to_owned);
            match (key, connection(named, user)) {
                ("connectionGroups", _) => self.group(named),
                (_, Some(target)) => self.add(named.at, target),
                (_, None) => {
                    let problem = format!(
                        "a connection wants a connectionId, and its step an actionId {ACTIONS}INTEGRATION.…"
                    );
                    self.problems.push(SpecError::new(named.at, problem));
                }
            }
        }
        self.step = None;
    }
}
