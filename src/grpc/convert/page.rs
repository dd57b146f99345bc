//! Pages of lists. A page token is the position of the last item, encoded so that clients do not build tokens.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::broker::Error;
use crate::model::limits::MAX_PAGE_BYTES;

/// The most items on one page, and how many if the client does not say.
const PAGE_SIZES: (i32, i32) = (1000, 100);

/// Which page a client asks for.
pub struct PageRequest<T> {
    /// The last item of the page before; `None` for the first page.
    pub(crate) after: Option<T>,
    /// The most items on the page.
    pub(crate) size: usize,
}

impl<T: FromStr> PageRequest<T> {
    /// Parses `page_size` and `page_token`.
    ///
    /// # Errors
    /// [`Error::PageTokenInvalid`] if no page of such a list ends with this token.
    pub(crate) fn parse(size: i32, token: &str) -> Result<Self, Error> {
        let (most, default) = PAGE_SIZES;
        let size = if size <= 0 { default } else { size.min(most) };
        let size = usize::try_from(size).unwrap_or(1);
        if token.is_empty() {
            return Ok(Self { after: None, size });
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let after = text.and_then(|text| text.parse().ok()).ok_or(Error::PageTokenInvalid)?;
        Ok(Self { after: Some(after), size })
    }
}

/// The page with these messages, and the token of the next page: empty if this page is the last.
///
/// `has_more` says that the list goes on after them. A page ends early where a client could not take more bytes.
pub(crate) fn page<T: prost::Message>(
    messages: impl IntoIterator<Item = T>,
    mut has_more: bool,
    position: impl Fn(&T) -> &str,
) -> (Vec<T>, String) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for message in messages {
        bytes += message.encoded_len();
        if bytes > MAX_PAGE_BYTES && !page.is_empty() {
            has_more = true;
            break;
        }
        page.push(message);
    }
    let last = page.last().filter(|_| has_more);
    let next = last.map(|last| URL_SAFE_NO_PAD.encode(position(last)));
    (page, next.unwrap_or_default())
}

/// The page of a list that is all in memory, sorted by `name`.
pub(crate) fn page_of<T: prost::Message>(
    all: impl IntoIterator<Item = T>,
    request: &PageRequest<String>,
    name: impl Fn(&T) -> &str,
) -> (Vec<T>, String) {
    let is_after = |one: &T| request.after.as_ref().is_none_or(|after| name(one) > after.as_str());
    let mut rest: Vec<T> = all.into_iter().filter(is_after).collect();
    let has_more = rest.len() > request.size;
    rest.truncate(request.size);
    page(rest, has_more, name)
}

/// A name without its collection: the position of an item in its list.
pub(crate) fn in_collection<'n>(name: &'n str, collection: &str) -> &'n str {
    name.strip_prefix(collection).unwrap_or(name)
}
