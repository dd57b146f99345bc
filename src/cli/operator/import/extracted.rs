//! What a reader makes of a file: documents to apply, what it leaves out, and what is wrong.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use crate::cli::operator::bindings::bindings;
use crate::grpc::document_name;
use crate::grpc::pb;
use crate::grpc::pb::apply_request::Document;

/// What a file holds. Nothing here but the documents holds a value.
#[derive(Default)]
pub struct Extracted {
    /// What is to be applied.
    pub entries: Vec<Entry>,
    /// What is left out.
    pub skipped: Vec<Skipped>,
    /// What is wrong, and where: with one of these nothing is applied.
    pub problems: Vec<String>,
}

/// A document, and where it comes from.
pub struct Entry {
    /// File, place in it, names of the values.
    pub from: String,
    /// By which names its source calls it, the one that no other has first; of a connection that it does not name, the
    /// integration.
    pub called: Vec<String>,
    /// What it becomes.
    pub document: Document,
}

/// Something that is left out, and why.
pub struct Skipped {
    /// Its name and where it is.
    pub what: String,
    /// Why, and what to do if it is wanted.
    pub why: String,
}

impl Extracted {
    /// A file that is wrong as a whole.
    pub fn problem(text: impl Into<String>) -> Self {
        Self { problems: vec![text.into()], ..Self::default() }
    }

    /// Leaves something out.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { what: what.into(), why: why.into() });
    }

    /// Adds what another part of the file holds.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.skipped.extend(other.skipped);
        self.problems.extend(other.problems);
    }

    /// The same, with its place said before everything.
    pub fn within(mut self, place: &str) -> Self {
        let place = |text: &mut String| *text = format!("{place}: {text}");
        self.entries.iter_mut().for_each(|entry| place(&mut entry.from));
        self.skipped.iter_mut().for_each(|skipped| place(&mut skipped.what));
        self.problems.iter_mut().for_each(place);
        self
    }

    /// Refuses two documents of one resource: which of them would be there afterwards is not to be seen.
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

/// What several files hold, or several parts of one.
impl FromIterator<Self> for Extracted {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.add(part);
            all
        })
    }
}

/// A place in a file, before what is said of it.
pub fn at_line(line: u64, text: &str) -> String {
    format!("line {line}: {text}")
}

/// A document of a connection that these principals may resolve. Its name is checked when it is certain.
pub fn connection(
    reference: (&str, &str),
    kind: &str,
    fields: impl IntoIterator<Item = (String, Vec<u8>)>,
    resolvers: &[String],
) -> Document {
    let (integration, name) = reference;
    Document::Connection(pb::ConnectionDocument {
        integration: integration.to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        fields: fields.into_iter().collect(),
        access: bindings([(pb::Relation::Resolver, resolvers.to_vec())]),
        ..Default::default()
    })
}
