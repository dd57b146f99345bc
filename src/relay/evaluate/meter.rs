//! The budget of one evaluation. A spec of a few lines can ask for more than any memory holds.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::error::{EvaluationError, Result};
use crate::relay::yaml::MAX_COST;

/// The cost of a list, a mapping or a scalar beside its text: about the memory that it takes.
const NODE_COST: usize = 16;

/// What is left of the budget: bytes of texts, [`NODE_COST`] for each value, and steps of `=~`, all together.
pub struct Meter {
    left: usize,
}

impl Meter {
    /// A whole budget of [`MAX_COST`].
    pub fn new() -> Self {
        Self { left: MAX_COST }
    }

    /// Takes a cost from the budget, before the work is done.
    ///
    /// # Errors
    /// If less is left.
    pub fn pay(&mut self, cost: usize) -> Result<()> {
        self.left = self.left.checked_sub(cost).ok_or_else(exhausted)?;
        Ok(())
    }

    /// A copy of a value.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn copy(&mut self, value: &Json) -> Result<Json> {
        self.pay(cost(value))?;
        Ok(value.clone())
    }

    /// A value that a function has made.
    ///
    /// # Errors
    /// As [`Meter::pay`].
    pub fn made(&mut self, value: Json) -> Result<Json> {
        self.pay(cost(&value))?;
        Ok(value)
    }

    /// A value as part of a text: a text as it is, anything else as JSON, indented with tabs as Relay's is.
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
        // The writer fails for want of room alone.
        value.serialize(&mut writer).map_err(|_| exhausted())?;
        self.pay(written.bytes.len())?;
        String::from_utf8(written.bytes).map_err(|_| EvaluationError::new("not UTF-8"))
    }
}

/// What a value takes.
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

/// A text that ends at a length.
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
