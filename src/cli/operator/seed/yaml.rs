//! Documents as YAML, and where in a file something stands. What is said of a text never repeats it.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_saphyr::{Location, Spanned};

/// A place in a file.
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

/// A file as messages call it.
pub struct FileLabel(Arc<str>);

impl FileLabel {
    /// A file of this name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// A place in it; its beginning where no other is known.
    pub fn at(&self, location: Option<Location>) -> FilePosition {
        FilePosition {
            file: Arc::clone(&self.0),
            line: location.map_or(1, |at| at.line()),
            column: location.map_or(1, |at| at.column()),
        }
    }

    /// Its documents, or what is wrong with one and where.
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

/// What is wrong and where. What a message says of an unexpected value may show it, so that part goes.
pub fn explain(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let shows_value = message.contains("invalid type") || message.contains("invalid value");
    // Of a flow mapping gone wrong, a piece of a value can end up as a key.
    let shows_key = message.contains("unknown field") || message.contains("duplicate");
    let message = match message.split_once("expected ") {
        Some((_, expected)) if shows_value => format!("expected {expected}"),
        Some((before, expected)) if shows_key => match meant(before, expected) {
            Some(meant) => format!("unknown key; is {meant} meant?"),
            None => format!("unknown key, expected {expected}"),
        },
        None if shows_key => "a key that stands there twice, or is not known".to_owned(),
        _ => message,
    };
    let first = message.lines().next().unwrap_or_default();
    // The place is said already.
    let first = first.split(" at line ").next().unwrap_or(first);
    first.replace("sequence start", "a list, such as [NAME]")
}

/// Of the expected keys the one that somebody meant who has mistyped it. What was written is not shown: it is told by
/// what it comes near to.
fn meant<'a>(before: &str, expected: &'a str) -> Option<&'a str> {
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
