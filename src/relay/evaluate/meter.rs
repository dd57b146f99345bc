//! The budget of one evaluation: a spec of a few lines can make a value that no memory holds.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::error::{EvaluationError, Result};
use crate::relay::yaml::MAX_COST;

/// The cost of a list, a mapping or a scalar without its text: about the memory that it takes.
const NODE_COST: usize = 16;

/// The rest of the budget: bytes of texts, [`NODE_COST`] for each value, and steps of `=~` together.
pub struct Meter {
    left: usize,
}

impl Meter {
    /// The full budget of [`MAX_COST`].
    pub fn new() -> Self {
        Self { left: MAX_COST }
    }

    /// Takes a cost from the budget, before the work is done.
    ///
    /// # Errors
    /// If the rest is smaller.
    pub fn pay(&mut self, cost: usize) -> Result<()> {
        self.left = self.left.checked_sub(cost).ok_or_else(exhausted)?;
        Ok(())
    }

    /// Copies a value.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn copy(&mut self, value: &Json) -> Result<Json> {
        self.pay(cost(value))?;
        Ok(value.clone())
    }

    /// Takes the cost of a value that a function has made, and returns it.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn made(&mut self, value: Json) -> Result<Json> {
        self.pay(cost(&value))?;
        Ok(value)
    }

    /// A value as part of a text: a text unchanged, any other value as JSON that is indented with tabs, as in Relay.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn text(&mut self, value: &Json) -> Result<String> {
        match value {
            Json::String(text) => {
                self.pay(text.len())?;
                Ok(text.clone())
            }
            value => self.write(value, PrettyFormatter::with_indent(b"\t")),
        }
    }

    /// A value as JSON on one line.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn json(&mut self, value: &Json) -> Result<String> {
        self.write(value, CompactFormatter)
    }

    fn write(&mut self, value: &Json, formatter: impl Formatter) -> Result<String> {
        let mut written = Bounded { bytes: Vec::new(), most: self.left };
        let mut writer = Serializer::with_formatter(&mut written, formatter);
        // The writer only fails if the budget is spent.
        value.serialize(&mut writer).map_err(|_| exhausted())?;
        self.pay(written.bytes.len())?;
        String::from_utf8(written.bytes).map_err(|_| EvaluationError::new("not UTF-8"))
    }
}

/// The cost of a value.
fn cost(value: &Json) -> usize {
    let within = match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(cost).sum(),
        Json::Object(entries) => entries.iter().map(|(key, value)| key.len() + cost(value)).sum(),
    };
    NODE_COST + within
}

fn exhausted() -> EvaluationError {
    let most = MAX_COST / (1024 * 1024);
    EvaluationError::new(format!(
        "the answer takes more than {most} MiB of texts, lists and steps of =~; ask for a part of it"
    ))
}

/// A buffer with a maximum length.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
