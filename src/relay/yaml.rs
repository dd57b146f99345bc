//! YAML as a tree with tags and positions.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Position, SpecError};

/// The largest document with its aliases written out: nodes and bytes of text together.
pub const MAX_COST: usize = 4 * 1024 * 1024;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The tag without its first `!`, such as `Connection`, or `!str` for YAML's own `!!str`.
    pub tag: Option<String>,
    /// The position of its beginning.
    pub at: Position,
    /// The content.
    pub content: Content,
}

/// The content of a node.
#[derive(Clone, Debug)]
pub enum Content {
    /// A text.
    Scalar {
        /// Without quotes and escapes.
        text: String,
        /// True if it has no quotes, so that it may be a number or null.
        is_plain: bool,
    },
    /// `[…]`, or lines with dashes.
    Sequence(Vec<Node>),
    /// `{…}`, or lines with colons. Keys are unique.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            Content::Sequence(_) | Content::Mapping(_) => None,
        }
    }

    /// The items of a sequence, or the values of a mapping.
    pub fn items(&self) -> Vec<&Node> {
        match &self.content {
            Content::Sequence(items) => items.iter().collect(),
            Content::Mapping(entries) => entries.iter().map(|(_, value)| value).collect(),
            Content::Scalar { .. } => Vec::new(),
        }
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Content::Mapping(entries) = &self.content else { return None };
        entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }
}

/// Parses the document of a text; a text without a document is an empty mapping.
///
/// # Errors
/// If it is not YAML, has a key twice, is too large or too deep, or has more than one document.
pub fn parse(text: &str) -> Result<Node, SpecError> {
    let mut reader = YamlReader {
        events: Parser::new_from_str_with_options(
            text,
            granit_parser::options! { emit_comments: false },
        ),
        anchors: HashMap::new(),
        cost: 0,
        deepest: 0,
    };
    let mut document = None;
    while let Some((event, at)) = reader.next()? {
        match event {
            Event::StreamStart
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::StreamEnd => {}
            _ if document.is_some() => {
                return Err(SpecError::new(at, "a second document; one is expected"));
            }
            event => document = Some(reader.node(event, at, 0)?),
        }
    }
    Ok(document.unwrap_or(Node {
        tag: None,
        at: Position { line: 1, column: 1 },
        content: Content::Mapping(Vec::new()),
    }))
}

/// The node of an anchor.
struct Anchored {
    node: Node,
    /// The cost of writing it out again.
    cost: usize,
    /// Its own depth.
    height: usize,
}

struct YamlReader<'input> {
    events: Parser<'input, granit_parser::StrInput<'input>>,
    anchors: HashMap<usize, Anchored>,
    cost: usize,
    /// The depth of the deepest node below the present one.
    deepest: usize,
}

impl<'input> YamlReader<'input> {
    fn next(&mut self) -> Result<Option<(Event<'input>, Position)>, SpecError> {
        let Some(next) = self.events.next_event() else { return Ok(None) };
        let (event, span) = next.map_err(|error| scan_error(&error))?;
        Ok(Some((event, position(&span.tag_start().unwrap_or(span.start)))))
    }

    fn node(
        &mut self,
        event: Event<'input>,
        at: Position,
        depth: usize,
    ) -> Result<Node, SpecError> {
        let before = self.cost;
        let deepest_before = std::mem::replace(&mut self.deepest, depth);
        self.reach(depth, at)?;
        self.pay(1, at)?;
        let (anchor, tag, content) = match event {
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                let known = known.map(|known| (known.node.clone(), known.cost, known.height));
                let (node, cost, height) = known
                    .ok_or_else(|| SpecError::new(at, "an alias of a node that contains it"))?;
                self.pay(cost, at)?;
                self.reach(depth + height, at)?;
                self.deepest = self.deepest.max(deepest_before);
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.pay(text.len(), at)?;
                let is_plain = style == ScalarStyle::Plain;
                (anchor, tag, Content::Scalar { text: text.into_owned(), is_plain })
            }
            Event::SequenceStart(_, anchor, tag) => {
                (anchor, tag, Content::Sequence(self.sequence(depth)?))
            }
            Event::MappingStart(_, anchor, tag) => {
                (anchor, tag, Content::Mapping(self.mapping(depth)?))
            }
            _ => return Err(SpecError::new(at, "a value is missing")),
        };
        let node = Node { tag: tag.as_deref().map(name_of), at, content };
        if anchor != 0 {
            let (cost, height) = (self.cost - before, self.deepest.saturating_sub(depth));
            // The copy for its aliases costs as much again.
            self.pay(cost, at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost, height });
        }
        self.deepest = self.deepest.max(deepest_before);
        Ok(node)
    }

    fn reach(&mut self, depth: usize, at: Position) -> Result<(), SpecError> {
        self.deepest = self.deepest.max(depth);
        match depth > MAX_DEPTH {
            true => Err(SpecError::new(at, format!("nested deeper than {MAX_DEPTH}"))),
            false => Ok(()),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, SpecError> {
        let mut items = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node(event, at, depth + 1)?);
        }
        Ok(items)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, SpecError> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut keys = HashSet::new();
        let mut merged = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, at, depth + 1)?;
            let Some((event, at)) = self.next()? else { break };
            let value = self.node(event, at, depth + 1)?;
            match key.content {
                Content::Scalar { ref text, is_plain: true } if text == "<<" => {
                    merged.extend(merged_entries(value)?);
                }
                Content::Scalar { ref text, .. } => {
                    if !keys.insert(text.clone()) {
                        return Err(SpecError::new(
                            key.at,
                            format!("the key {text:?} is given twice"),
                        ));
                    }
                    entries.push((key, value));
                }
                _ => return Err(SpecError::new(key.at, "a key must be a text")),
            }
        }
        // Keys of the mapping itself win, then those that were merged first.
        for (key, value) in merged {
            if key.text().is_some_and(|text| keys.insert(text.to_owned())) {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    fn pay(&mut self, cost: usize, at: Position) -> Result<(), SpecError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > MAX_COST {
            let text = format!("larger than {MAX_COST} bytes once its aliases are written out");
            return Err(SpecError::new(at, text));
        }
        Ok(())
    }
}

/// The entries that `<<: *anchor` or `<<: [*anchor, …]` adds to a mapping.
fn merged_entries(value: Node) -> Result<Vec<(Node, Node)>, SpecError> {
    match value.content {
        Content::Mapping(entries) => Ok(entries),
        Content::Sequence(items) => {
            let merged = items.into_iter().map(merged_entries);
            Ok(merged.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        Content::Scalar { .. } => Err(SpecError::new(value.at, "<< merges mappings only")),
    }
}

fn name_of(tag: &Tag) -> String {
    match tag.core_suffix() {
        Some(suffix) => format!("!{suffix}"),
        // !!binary is YAML 1.1's own, and not in the core schema of 1.2.
        None if tag.handle() == "tag:yaml.org,2002:" => format!("!{}", tag.suffix()),
        None => tag.suffix().to_owned(),
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn scan_error(error: &ScanError) -> SpecError {
    SpecError::new(position(error.marker()), error.info())
}
