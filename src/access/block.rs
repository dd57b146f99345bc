//! Blocks: what nobody may use for now, whatever the bindings say.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::principal::Principal;
use crate::model::{
    Because, ConnectionRef, Id, IdMap, Invalid, ResourceName, Timestamp, WorkflowPath,
    read_from_text,
};

/// The target of a block, as lines name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockTarget {
    /// A connection, written `connections/INTEGRATION/NAME`.
    Connection(ConnectionRef),
    /// A workflow, run or step, written as a [`WorkflowPath`].
    Steps(WorkflowPath),
}

impl fmt::Display for BlockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(name) => {
                f.write_str(&ResourceName::Connection(name.clone()).to_text())
            }
            Self::Steps(path) => path.fmt(f),
        }
    }
}

impl FromStr for BlockTarget {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("workflow:") {
            return text.parse().map(Self::Steps);
        }
        match text.parse()? {
            ResourceName::Connection(name) => Ok(Self::Connection(name)),
            _ => {
                Err(Invalid::new("target of a block", text, "a connection, workflow, run or step"))
            }
        }
    }
}

impl Serialize for BlockTarget {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

read_from_text!(BlockTarget, str::parse);

/// A block, and who has set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// What it is on. A connection may have another name since.
    pub target: BlockTarget,
    /// The uid of the connection; `None` if the block is on steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Id>,
    /// The operator.
    pub principal: String,
    /// Why, in the operator's words.
    pub reason: Because,
    /// Since when.
    pub time: Timestamp,
}

impl Block {
    /// The block as the rule that refuses a step.
    pub fn as_rule(&self) -> String {
        format!("blocked {}", self.target)
    }
}

/// All blocks that are in force.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    connections: IdMap<Block>,
    steps: HashMap<WorkflowPath, Block>,
}

impl Blocks {
    /// How many there are on connections.
    pub fn of_connections(&self) -> usize {
        self.connections.len()
    }

    /// How many there are on workflows, runs and steps.
    pub fn of_steps(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.steps.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.connections.values().chain(self.steps.values())
    }

    /// Sets a block. A block on the same stays as it is.
    pub fn insert(&mut self, block: Block) {
        match (&block.target, block.uid) {
            (BlockTarget::Steps(path), _) => {
                self.steps.entry(path.clone()).or_insert(block);
            }
            (BlockTarget::Connection(_), Some(uid)) => {
                self.connections.entry(uid).or_insert(block);
            }
            // No version writes it.
            (BlockTarget::Connection(_), None) => {}
        }
    }

    /// Lifts a block.
    pub fn remove(&mut self, block: &Block) {
        match (&block.target, block.uid) {
            (BlockTarget::Steps(path), _) => drop(self.steps.remove(path)),
            (BlockTarget::Connection(_), Some(uid)) => drop(self.connections.remove(&uid)),
            (BlockTarget::Connection(_), None) => {}
        }
    }

    /// The block on exactly this connection.
    pub fn on_connection(&self, uid: Id) -> Option<&Block> {
        self.connections.get(&uid)
    }

    /// The block on exactly this workflow, run or step.
    pub fn on_steps(&self, path: &WorkflowPath) -> Option<&Block> {
        self.steps.get(path)
    }

    /// The block that a step is under: its own, its run's or its workflow's.
    pub fn over(&self, step: &WorkflowPath) -> Option<&Block> {
        if self.steps.is_empty() {
            return None;
        }
        let run = WorkflowPath { step: None, ..step.clone() };
        let workflow = WorkflowPath { run: None, ..run.clone() };
        [&workflow, &run, step].into_iter().find_map(|path| self.steps.get(path))
    }

    /// The block that keeps a principal from a connection, if there is one; without a connection, from everything.
    pub fn between(&self, principal: &Principal, connection: Option<Id>) -> Option<&Block> {
        let Principal::Step { workflow, run, step, .. } = principal else { return None };
        let of_step = match self.steps.is_empty() {
            true => None,
            false => self.over(&WorkflowPath::of_step(workflow, run, step)),
        };
        of_step.or_else(|| self.on_connection(connection?))
    }
}

impl FromIterator<Block> for Blocks {
    fn from_iter<I: IntoIterator<Item = Block>>(all: I) -> Self {
        let mut blocks = Self::default();
        all.into_iter().for_each(|block| blocks.insert(block));
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(target: &str) -> Block {
        Block {
            target: target.parse().unwrap(),
            uid: target.starts_with("connections/").then(|| Id::from_bytes([7; Id::BYTES])),
            principal: "operator:a".to_owned(),
            reason: "leaked".parse().unwrap(),
            time: Timestamp::from_millis(0),
        }
    }

    fn step(workflow: &str, run: &str, step: &str) -> Principal {
        Principal::Step {
            workflow: workflow.parse().unwrap(),
            run: run.parse().unwrap(),
            step: step.parse().unwrap(),
            run_as: [].into(),
        }
    }

    #[test]
    fn a_block_keeps_back_exactly_what_it_is_on() {
        let cases = [
            ("workflow:w", [true, true, true, false]),
            ("workflow:w/run:1", [true, true, false, false]),
            ("workflow:w/run:1/step:s", [true, false, false, false]),
        ];
        let steps = [("w", "1", "s"), ("w", "1", "t"), ("w", "2", "s"), ("x", "1", "s")];
        for (target, expected) in cases {
            let mut blocks = Blocks::default();
            blocks.insert(block(target));
            for ((workflow, run, name), expected) in steps.into_iter().zip(expected) {
                let caller = step(workflow, run, name);
                let kept = blocks.between(&caller, None).is_some();
                assert_eq!(kept, expected, "{target}: {workflow} {run} {name}");
            }
            blocks.remove(&block(target));
            assert!(blocks.is_empty());
        }
    }

    #[test]
    fn a_blocked_connection_is_kept_back_from_all_steps() {
        let (mut blocks, uid) = (Blocks::default(), Id::from_bytes([7; Id::BYTES]));
        blocks.insert(block("connections/aws/prod"));
        let caller = step("w", "1", "s");
        assert!(blocks.between(&caller, Some(uid)).is_some());
        assert!(blocks.between(&caller, Some(Id::from_bytes([8; Id::BYTES]))).is_none());
        assert!(blocks.between(&caller, None).is_none());
        let operator =
            Principal::Operator("a".parse().unwrap(), crate::access::Role::Operator, uid);
        assert!(blocks.between(&operator, Some(uid)).is_none());
    }
}
