//! What a step puts out, and its state: kept for the life of the command.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value as Json;

/// How much of it is kept, in bytes of JSON.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One output.
#[derive(Clone)]
pub struct StepOutput {
    /// What was put out.
    pub value: Json,
    /// Its metadata says so.
    pub sensitive: bool,
}

#[derive(Default)]
struct KeptOutputs {
    outputs: BTreeMap<String, StepOutput>,
    state: BTreeMap<String, Json>,
    bytes: usize,
}

/// Everything kept.
#[derive(Default)]
pub struct StepOutputs(Mutex<KeptOutputs>);

impl StepOutputs {
    /// Keeps an output, in place of the one before. Says whether there was room.
    pub fn set(&self, name: String, value: Json) -> bool {
        let mut kept = self.0.lock();
        let sensitive = kept.outputs.get(&name).is_some_and(|output| output.sensitive);
        kept.has_room(&name, &value) && {
            kept.outputs.insert(name, StepOutput { value, sensitive });
            true
        }
    }

    /// Says whether an output is sensitive. Says whether there is such an output.
    pub fn set_sensitive(&self, name: &str, sensitive: bool) -> bool {
        let mut kept = self.0.lock();
        let output = kept.outputs.get_mut(name);
        output.map(|output| output.sensitive = sensitive).is_some()
    }

    /// An output.
    pub fn get(&self, name: &str) -> Option<StepOutput> {
        self.0.lock().outputs.get(name).cloned()
    }

    /// Every output.
    pub fn all(&self) -> BTreeMap<String, Json> {
        let kept = self.0.lock();
        kept.outputs.iter().map(|(name, output)| (name.clone(), output.value.clone())).collect()
    }

    /// Keeps a part of the state. Says whether there was room.
    pub fn set_state(&self, name: String, value: Json) -> bool {
        let mut kept = self.0.lock();
        kept.has_room(&name, &value) && {
            kept.state.insert(name, value);
            true
        }
    }

    /// A part of the state.
    pub fn state(&self, name: &str) -> Option<Json> {
        self.0.lock().state.get(name).cloned()
    }
}

impl KeptOutputs {
    /// Counts everything that was ever kept: a command that writes without end is not what this is for.
    fn has_room(&mut self, name: &str, value: &Json) -> bool {
        let bytes = self.bytes + name.len() + value.to_string().len();
        let has_room = bytes <= MAX_BYTES;
        if has_room {
            self.bytes = bytes;
        }
        has_room
    }
}
