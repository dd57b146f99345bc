//! The result of a reader: documents to apply, what it leaves out, and problems.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use crate::grpc::document_name;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// The contents of a file. Only the documents hold values.
#[derive(Default)]
pub struct Extracted {
    /// The documents.
    pub entries: Vec<Entry>,
    /// Objects and values that are left out.
    pub skipped: Vec<Skipped>,
    /// Problems with their positions: if there is one, nothing is applied.
    pub problems: Vec<String>,
}

/// A document, and where it comes from.
pub struct Entry {
    /// The file, the position in it, or the names of the values.
    pub from: String,
    /// Its names in the file, the most specific first; the integration of a connection without a name.
    pub called: Vec<String>,
    /// The document.
    pub document: Document,
}

/// Something that is left out.
pub struct Skipped {
    /// Its name and position.
    pub what: String,
    /// The reason, and how to import it anyway.
    pub why: String,
}

impl Extracted {
    /// The result for a file that cannot be read.
    pub fn problem(text: impl Into<String>) -> Self {
        Self { problems: vec![text.into()], ..Self::default() }
    }

    /// Leaves something out.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { what: what.into(), why: why.into() });
    }

    /// Adds the contents of another part.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.skipped.extend(other.skipped);
        self.problems.extend(other.problems);
    }

    /// The same, with its place before every text.
    pub fn within(mut self, place: &str) -> Self {
        let place = |text: &mut String| *text = format!("{place}: {text}");
        self.entries.iter_mut().for_each(|entry| place(&mut entry.from));
        self.skipped.iter_mut().for_each(|skipped| place(&mut skipped.what));
        self.problems.iter_mut().for_each(place);
        self
    }

    /// Refuses two documents of one resource: the file does not say which of them counts.
    pub fn refuse_doubles(&mut self) {
        let mut first: BTreeMap<String, &str> = BTreeMap::new();
        for entry in &self.entries {
            match first.entry(document_name(&entry.document)) {
                Slot::Vacant(slot) => drop(slot.insert(&entry.from)),
                Slot::Occupied(slot) => {
                    let called = entry.called.first().map(String::as_str).unwrap_or_default();
                    self.problems.push(format!(
                        "{}: {} would come from {}, too; name it otherwise: --name '{called}=NEW', or import one alone: \
                         --only NAME",
                        entry.from,
                        slot.key(),
                        slot.get()
                    ));
                }
            }
        }
    }
}

/// The contents of several files, or of several parts of one.
impl FromIterator<Self> for Extracted {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.add(part);
            all
        })
    }
}

/// A text about a line.
pub fn at_line(line: u64, text: &str) -> String {
    format!("line {line}: {text}")
}

/// The document of a connection with this access. The name is checked later, when it is final.
pub fn connection(
    reference: (&str, &str),
    kind: &str,
    fields: impl IntoIterator<Item = (String, Vec<u8>)>,
    access: Vec<pb::AccessBinding>,
) -> Document {
    let (integration, name) = reference;
    Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        fields: fields.into_iter().collect(),
        access,
        ..Default::default()
    })
}
