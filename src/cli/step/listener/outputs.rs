//! The outputs and the state of a step, kept for the life of the command.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value as Json;

/// The most bytes of JSON that are kept.
const MAX_BYTES: usize = 16 * 1024 * 1024;

#[derive(Clone)]
pub struct StepOutput {
    pub value: Json,
    /// Whether the metadata calls it sensitive.
    pub sensitive: bool,
}

#[derive(Default)]
struct KeptOutputs {
    outputs: BTreeMap<String, StepOutput>,
    state: BTreeMap<String, Json>,
    bytes: usize,
}

/// The outputs and the state of a step.
#[derive(Default)]
pub struct StepOutputs(Mutex<KeptOutputs>);

impl StepOutputs {
    /// Keeps an output in place of the one before. Returns false if there is no room.
    pub fn set(&self, name: String, value: Json) -> bool {
        let mut kept = self.0.lock();
        let sensitive = kept.outputs.get(&name).is_some_and(|output| output.sensitive);
        let has_room = kept.has_room(&name, &value);
        if has_room {
            kept.outputs.insert(name, StepOutput { value, sensitive });
        }
        has_room
    }

    /// Sets whether an output is sensitive. Returns false if there is no such output.
    pub fn set_sensitive(&self, name: &str, sensitive: bool) -> bool {
        let mut kept = self.0.lock();
        let output = kept.outputs.get_mut(name);
        output.map(|output| output.sensitive = sensitive).is_some()
    }

    pub fn get(&self, name: &str) -> Option<StepOutput> {
        self.0.lock().outputs.get(name).cloned()
    }

    pub fn all(&self) -> BTreeMap<String, Json> {
        let kept = self.0.lock();
        kept.outputs.iter().map(|(name, output)| (name.clone(), output.value.clone())).collect()
    }

    /// Keeps a value of the state. Returns false if there is no room.
    pub fn set_state(&self, name: String, value: Json) -> bool {
        let mut kept = self.0.lock();
        let has_room = kept.has_room(&name, &value);
        if has_room {
            kept.state.insert(name, value);
        }
        has_room
    }

    pub fn state(&self, name: &str) -> Option<Json> {
        self.0.lock().state.get(name).cloned()
    }
}

impl KeptOutputs {
    /// Counts every value that was ever kept, so that a command cannot write without end.
    fn has_room(&mut self, name: &str, value: &Json) -> bool {
        let bytes = self.bytes + name.len() + value.to_string().len();
        let has_room = bytes <= MAX_BYTES;
        if has_room {
            self.bytes = bytes;
        }
        has_room
    }
}
