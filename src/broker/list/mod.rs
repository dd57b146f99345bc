//! Lists that are filtered and ordered: which page is asked for, and how it is chosen.
//!
//! What is indexed: connections, groups and secrets by name. Everything else is scanned, on the threads of
//! [readers](super::insight::readers), in chunks of [`scan::CHUNK`]. What only the journal knows is looked up once a chunk, so
//! that no decision waits for a list. Between chunks the thread yields.

pub(super) mod choice;
pub(super) mod scan;

use super::error::Error;
use crate::model::Timestamp;

/// The most matches that a list counts if it need not look at all of them for another reason.
const EXACT_TOTAL: usize = 10_000;

/// What a list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderBy {
    /// When it was created.
    CreateTime,
    /// When the credential ends.
    ExpireTime,
    /// When it was first.
    FirstTime,
    /// When it was last.
    LastTime,
    /// When it was used last.
    LastUseTime,
    /// The name; of connections, integration and name; of secrets, workflow and name.
    Name,
    /// When it was changed last.
    UpdateTime,
}

impl OrderBy {
    /// What connections are ordered by.
    pub const OF_CONNECTIONS: [Self; 5] =
        [Self::Name, Self::CreateTime, Self::UpdateTime, Self::ExpireTime, Self::LastUseTime];
    /// What groups are ordered by.
    pub const OF_GROUPS: [Self; 4] =
        [Self::Name, Self::CreateTime, Self::UpdateTime, Self::LastUseTime];
    /// What runs and workflows are ordered by.
    pub const OF_RUNS: [Self; 3] = [Self::LastTime, Self::FirstTime, Self::Name];
    /// What secrets are ordered by.
    pub const OF_SECRETS: [Self; 3] = [Self::Name, Self::UpdateTime, Self::LastUseTime];

    fn as_str(self) -> &'static str {
        match self {
            Self::CreateTime => "create_time",
            Self::ExpireTime => "expire_time",
            Self::FirstTime => "first_time",
            Self::LastTime => "last_time",
            Self::LastUseTime => "last_use_time",
            Self::Name => "name",
            Self::UpdateTime => "update_time",
        }
    }
}

/// The order of a list. Equal times are in the order of names, and resources without the time come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// What it is ordered by.
    pub by: OrderBy,
    /// True for the highest first.
    pub is_descending: bool,
}

impl Order {
    /// Parses `FIELD` or `FIELD desc`; the empty text is the order of names.
    ///
    /// # Errors
    /// [`Error::OrderInvalid`] if it is not of these fields.
    pub fn parse(text: &str, fields: &[OrderBy]) -> Result<Self, Error> {
        let mut words = text.split_whitespace();
        let field = words.next().unwrap_or(OrderBy::Name.as_str());
        let by = fields.iter().find(|one| one.as_str() == field);
        match (by, words.next(), words.next()) {
            (Some(by), direction @ (None | Some("asc" | "desc")), None) => {
                Ok(Self { by: *by, is_descending: direction == Some("desc") })
            }
            _ => {
                let known: Vec<_> = fields.iter().map(|one| one.as_str()).collect();
                let text = text.chars().take(64).collect();
                Err(Error::OrderInvalid { text, known: known.join(", ") })
            }
        }
    }
}

/// The place of an item in an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position<N> {
    /// The name.
    pub name: N,
    /// The time by which the list is ordered; `None` for the order of names, and if it has no such time.
    pub time: Option<Timestamp>,
}

/// How many resources a filter admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// How many.
    pub size: usize,
    /// True if the number is an estimate.
    pub is_estimate: bool,
}

/// The page of a list that is asked for.
#[derive(Clone, Debug)]
pub struct PageQuery<N> {
    /// The order.
    pub order: Order,
    /// The place of the last item of the page before, and the total that it had; `None` for the first page.
    pub after: Option<(Position<N>, Total)>,
    /// The most items on the page.
    pub size: usize,
}

impl<N> PageQuery<N> {
    /// The total that all pages have: as it was counted for the first page.
    pub(super) fn total(&self, counted: Total) -> Total {
        self.after.as_ref().map_or(counted, |(_, total)| *total)
    }
}

/// One page of a list.
pub struct ListPage<T, N> {
    /// The items with their places.
    pub items: Vec<(T, Position<N>)>,
    /// Whether the list goes on.
    pub has_more: bool,
    /// How many there are in all.
    pub total: Total,
}
