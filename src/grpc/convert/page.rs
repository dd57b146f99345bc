//! Pages of lists. A page token is the position of the last item, encoded so that clients do not build tokens.
//!
//! The token of a list that is filtered or ordered has also a mark of the query, and the total. The mark tells a token of another
//! query.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::broker::{Error, ListPage, Order, PageQuery, Position, Total};
use crate::grpc::convert;
use crate::model::Timestamp;
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
        let size = page_size(size);
        if token.is_empty() {
            return Ok(Self { after: None, size });
        }
        let text = decoded(token)?;
        let after = text.parse().map_err(|_| Error::PageTokenInvalid)?;
        Ok(Self { after: Some(after), size })
    }
}

fn page_size(size: i32) -> usize {
    let (most, default) = PAGE_SIZES;
    let size = if size <= 0 { default } else { size.min(most) };
    usize::try_from(size).unwrap_or(1)
}

fn decoded(token: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageTokenInvalid)?;
    String::from_utf8(bytes).map_err(|_| Error::PageTokenInvalid)
}

/// Which page of a filtered and ordered list a client asks for.
pub struct ListRequest<N> {
    /// The page.
    pub(crate) page: PageQuery<N>,
    /// A mark of the whole query but its page.
    mark: u64,
}

/// The items of a page as messages.
pub struct ListAnswer<M> {
    pub(crate) messages: Vec<M>,
    pub(crate) next_page_token: String,
    pub(crate) total_size: i32,
    pub(crate) total_size_estimated: bool,
}

impl<N: FromStr + Display> ListRequest<N> {
    /// Parses `page_size` and `page_token`. `query` is everything else that decides what is on the list.
    ///
    /// # Errors
    /// [`Error::PageTokenInvalid`] if no page of this query ends with this token.
    pub(crate) fn parse(
        size: i32,
        token: &str,
        order: Order,
        query: impl Hash,
    ) -> Result<Self, Error> {
        let mut mark = DefaultHasher::new();
        (order, query).hash(&mut mark);
        let (mark, size) = (mark.finish(), page_size(size));
        let after = match token {
            "" => None,
            token => Some(position(&decoded(token)?, mark).ok_or(Error::PageTokenInvalid)?),
        };
        Ok(Self { page: PageQuery { order, after, size }, mark })
    }

    /// The answer with these items as messages. A page ends early where a client could not take more bytes.
    pub(crate) fn answer<T, M: prost::Message>(
        &self,
        found: &ListPage<T, N>,
        message: impl Fn(&T) -> M,
    ) -> ListAnswer<M> {
        let messages = found.items.iter().map(|(item, _)| message(item));
        let (messages, is_cut) = cut(messages, MAX_PAGE_BYTES);
        let last = messages.len().checked_sub(1).and_then(|last| found.items.get(last));
        let last = last.filter(|_| is_cut || found.has_more);
        let token = last.map(|(_, position)| token(self.mark, position, found.total));
        ListAnswer {
            messages,
            next_page_token: token.unwrap_or_default(),
            total_size: convert::count_i32(found.total.size),
            total_size_estimated: found.total.is_estimate,
        }
    }
}

/// `MARK.TOTAL.TIME.NAME`: the total ends with `~` if it is an estimate, and the time is `-` if there is none.
fn token<N: Display>(mark: u64, position: &Position<N>, total: Total) -> String {
    let time = position.time.map_or_else(|| "-".to_owned(), |time| time.millis().to_string());
    let about = if total.is_estimate { "~" } else { "" };
    URL_SAFE_NO_PAD.encode(format!("{mark:016x}.{}{about}.{time}.{}", total.size, position.name))
}

/// The position in a token of the query with this mark.
fn position<N: FromStr>(text: &str, mark: u64) -> Option<(Position<N>, Total)> {
    let mut parts = text.splitn(4, '.');
    let (own, total, time, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if own != format!("{mark:016x}") {
        return None;
    }
    let (size, is_estimate) = match total.strip_suffix('~') {
        Some(size) => (size, true),
        None => (total, false),
    };
    let time = match time {
        "-" => None,
        millis => Some(Timestamp::from_millis(millis.parse().ok()?)),
    };
    let total = Total { size: size.parse().ok()?, is_estimate };
    Some((Position { name: name.parse().ok()?, time }, total))
}

/// The page with these messages, and the token of the next page: empty if this page is the last.
///
/// `has_more` says that the list goes on after them. A page ends early where a client could not take more bytes.
pub(crate) fn page<T: prost::Message>(
    messages: impl IntoIterator<Item = T>,
    has_more: bool,
    position: impl Fn(&T) -> &str,
) -> (Vec<T>, String) {
    let (page, is_cut) = cut(messages, MAX_PAGE_BYTES);
    let last = page.last().filter(|_| has_more || is_cut);
    let next = last.map(|last| URL_SAFE_NO_PAD.encode(position(last)));
    (page, next.unwrap_or_default())
}

/// As many messages as have at most so many bytes, and whether that is not all of them.
pub(crate) fn cut<T: prost::Message>(
    messages: impl IntoIterator<Item = T>,
    most: usize,
) -> (Vec<T>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for message in messages {
        bytes += message.encoded_len();
        if bytes > most && !page.is_empty() {
            return (page, true);
        }
        page.push(message);
    }
    (page, false)
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
