//! YAML documents, and positions in a file. Errors never repeat the text.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_saphyr::{Location, Spanned};

/// A position in a file: path, line and column.
#[derive(Clone)]
pub struct FilePosition {
    file: Arc<str>,
    line: u64,
    column: u64,
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The name of a file in messages.
pub struct FileLabel(Arc<str>);

impl FileLabel {
    /// The label of a file of this name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// A position in the file; its beginning if there is no location.
    pub fn at(&self, location: Option<Location>) -> FilePosition {
        FilePosition {
            file: Arc::clone(&self.0),
            line: location.map_or(1, |at| at.line()),
            column: location.map_or(1, |at| at.column()),
        }
    }

    /// The documents of its text; for each that is wrong, the problem and its position.
    pub fn documents<T: DeserializeOwned>(&self, text: &str) -> Vec<Result<Spanned<T>, String>> {
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        let mut bytes = text.as_bytes();
        let documents = serde_saphyr::read_with_options::<_, Spanned<T>>(&mut bytes, options);
        let wrong = |error: serde_saphyr::Error| {
            format!("{}: {}", self.at(error.location()), explain(&error))
        };
        documents.map(|document| document.map_err(wrong)).collect()
    }
}

impl fmt::Display for FileLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The problem of an error, without the part of the message that may show a value.
pub fn explain(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let shows_value = message.contains("invalid type") || message.contains("invalid value");
    // In a broken flow mapping, a piece of a value can become a key.
    let shows_key = message.contains("unknown field") || message.contains("duplicate");
    let message = match message.split_once("expected ") {
        Some((_, expected)) if shows_value => format!("expected {expected}"),
        Some((before, expected)) if shows_key => match nearest_key(before, expected) {
            Some(key) => format!("unknown key; did you mean {key}?"),
            None => format!("unknown key, expected {expected}"),
        },
        None if shows_key => "a key that is repeated or unknown".to_owned(),
        _ => message,
    };
    let first = message.lines().next().unwrap_or_default();
    // The position is shown before it.
    let first = first.split(" at line ").next().unwrap_or(first);
    first.replace("sequence start", "a list, such as [NAME]")
}

/// The expected key that is nearest to the key in the message; `None` if none is near. The key itself is not shown.
fn nearest_key<'a>(before: &str, expected: &'a str) -> Option<&'a str> {
    let key = before.split('`').nth(1)?.to_lowercase();
    let known = expected
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| *word != "one" && *word != "of");
    let near = known.filter_map(|word| {
        let distance = strsim::damerau_levenshtein(&key, &word.to_lowercase());
        (distance <= 2 && distance < word.len()).then_some((distance, word))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}
