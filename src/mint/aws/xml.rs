//! The XML of STS.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The deepest element that is read.
const MAX_DEPTH: usize = 16;

/// The text of the first element at `path`, for example `ErrorResponse/Error/Code`. `None` if there is none, if it is no plain
/// text, or if the document is not well formed up to there.
pub fn text_at(document: &[u8], path: &str) -> Option<String> {
    let mut reader = Reader::from_str(std::str::from_utf8(document).ok()?);
    let mut open: Vec<String> = Vec::new();
    let mut found: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) if open.len() < MAX_DEPTH && found.is_none() => {
                open.push(element.local_name().into_inner().to_owned());
                found = (open.join("/") == path).then(String::new);
            }
            Event::Text(text) => {
                if let Some(found) = &mut found {
                    found.push_str(&text.into_inner());
                }
            }
            Event::End(_) if found.is_some() => return found,
            Event::End(_) => drop(open.pop()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) if found.is_none() => {}
            // No entities, no other document types, no nested elements where text belongs.
            _ => return None,
        }
    }
}
