//! ListConnections: which connections are on a page, and what the journal knows of them.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockWriteGuard};

use super::{ListedConnection, TimeFilter};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::choice::{Candidate, Choice};
use crate::broker::list::scan::{Look, Scan};
use crate::broker::list::{ListPage, Order, OrderBy, PageQuery, Position, Total};
use crate::broker::registry::operators::require_operator;
use crate::catalog::{Catalog, Connection, ConnectionIndex, ConnectionMetadata, Filter};
use crate::journal::Live;
use crate::model::{ConnectionRef, ResourceName, Timestamp};

/// The connections that an operator asks for.
pub struct ConnectionQuery {
    /// Which connections.
    pub filter: Filter<ConnectionMetadata>,
    /// Which of them by time.
    pub times: TimeFilter,
    /// Which page.
    pub page: PageQuery<ConnectionRef>,
}

/// The connections side by side, for lists that scan. No step waits for its lock.
#[derive(Default)]
pub(crate) struct SharedIndex(RwLock<ConnectionIndex>);

impl SharedIndex {
    /// Reads an index that has at least what the catalogue has.
    pub(crate) fn read<T>(&self, catalog: &Catalog, read: impl FnOnce(&ConnectionIndex) -> T) -> T {
        let index = self.0.read();
        if index.has(catalog) {
            return read(&index);
        }
        drop(index);
        let mut index = self.0.write();
        index.follow(catalog);
        read(&RwLockWriteGuard::downgrade(index))
    }
}

/// A connection that is chosen for a page, and its place.
pub(crate) type Chosen = (Arc<Connection>, Position<ConnectionRef>);

impl Broker {
    /// A page of the connections that the filters admit.
    ///
    /// # Errors
    /// If the caller is no operator, or is gone.
    pub fn connections(
        &self,
        caller: &Principal,
        query: &ConnectionQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<ListedConnection, ConnectionRef>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let catalog = &snapshot.catalog;
        let (chosen, has_more, total) = match query.is_plain() {
            true => all_by_name(catalog, &query.page),
            false => self.lists.connections.read(catalog, |index| {
                self.chosen_by_scan((catalog, index), query, None, is_cancelled)
            })?,
        };
        let looks = self.looks(&chosen, |live, (one, _)| look(live, &one.metadata));
        let items = chosen.into_iter().zip(looks).map(|((connection, position), look)| {
            (listed(catalog, connection.metadata.clone(), &look), position)
        });
        Ok(ListPage { items: items.collect(), has_more, total })
    }

    /// The page that a query asks for, of connections that `also` admits.
    pub(crate) fn chosen_by_scan(
        &self,
        (catalog, index): (&Catalog, &ConnectionIndex),
        query: &ConnectionQuery,
        also: Option<&dyn Fn(&ConnectionMetadata) -> bool>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(Vec<Chosen>, bool, Total), Error> {
        let ConnectionQuery { filter, times, page } = query;
        let (order, by) = (page.order, page.order.by);
        let mut bound = filter.bind(catalog);
        let is_of_all = query.is_of_all() && also.is_none();
        let mut admits = |(_, one): (usize, &Arc<Connection>)| {
            let end = || one.metadata.expire_time();
            times.expires_before.is_none_or(|limit| end().is_some_and(|end| end < limit))
                && bound.admits(&one.metadata)
                && also.is_none_or(|also| also(&one.metadata))
        };
        let look = |live: &Live, (_, one): (usize, &Arc<Connection>)| look(live, &one.metadata);
        let candidate = |(place, one): (usize, &Arc<Connection>), look: &Look| {
            let time = time_of(by, &one.metadata, look);
            // Places of connections are odd: a place between two is even.
            let candidate = Candidate { item: place, name: 2 * place + 1, time };
            query.admits(&one.metadata, look).then_some(candidate)
        };
        let (from, after) = start(index, page);
        let mut choice = Choice::new(order, after, page.size);
        let scan = Scan {
            admits: &mut admits,
            look: query.needs_look().then_some(&look as &dyn Fn(&Live, _) -> Look),
            candidate: &candidate,
            is_sorted: by == OrderBy::Name,
            counts: page.after.is_none() && !is_of_all,
        };
        let all = index.all().iter().enumerate();
        let counted = match (by, order.is_descending) {
            (OrderBy::Name, false) => self.scan(all.skip(from), scan, &mut choice, is_cancelled),
            (OrderBy::Name, true) => {
                let ahead = index.all().len() - from;
                self.scan(all.rev().skip(ahead), scan, &mut choice, is_cancelled)
            }
            _ => self.scan(all, scan, &mut choice, is_cancelled),
        }?;
        let counted = if is_of_all { count_of(catalog) } else { counted };
        let total = page.total(counted);
        let (found, has_more) = choice.finish();
        let chosen = found.into_iter().filter_map(|one| {
            let connection = index.all().get(one.item)?;
            let position = Position { name: connection.metadata.reference(), time: one.time };
            Some((Arc::clone(connection), position))
        });
        Ok((chosen.collect(), has_more, total))
    }

    /// A connection with what the journal knows of it now.
    pub(super) fn listed(&self, metadata: ConnectionMetadata) -> ListedConnection {
        let look = self.journal.with_live(|live| look(live, &metadata));
        listed(&self.snapshot().catalog, metadata, &look.unwrap_or_default())
    }
}

impl ConnectionQuery {
    /// True if it asks for all connections by name: no scan is needed.
    fn is_plain(&self) -> bool {
        let by_name = Order { by: OrderBy::Name, is_descending: false };
        self.is_of_all() && self.page.order == by_name
    }

    /// Whether only the journal knows which connections it asks for, or their order.
    fn needs_look(&self) -> bool {
        self.page.order.by == OrderBy::LastUseTime
            || self.times.unused_since.is_some()
            || self.filter.is_stale().is_some()
    }

    /// True if it asks for all connections, in any order.
    fn is_of_all(&self) -> bool {
        let TimeFilter { unused_since, expires_before } = self.times;
        self.filter.is_empty() && unused_since.is_none() && expires_before.is_none()
    }

    /// Whether a connection is wanted by what the journal knows. While the journal hangs, use is unknown, and no connection
    /// is called unused or stale.
    fn admits(&self, metadata: &ConnectionMetadata, look: &Look) -> bool {
        let is_unused = |since| {
            let before = look.used.is_none_or(|used| used.last < since);
            look.is_known && metadata.create_time < since && before
        };
        self.times.unused_since.is_none_or(is_unused)
            && self.filter.is_stale().is_none_or(|wanted| wanted == (look.stale_leases > 0))
    }
}

/// The page of all connections by name, from the tree.
fn all_by_name(catalog: &Catalog, page: &PageQuery<ConnectionRef>) -> (Vec<Chosen>, bool, Total) {
    let after = page.after.as_ref().map(|(position, _)| &position.name);
    let mut found = catalog.connections_after(after);
    let chosen = found
        .by_ref()
        .take(page.size)
        .map(|one| (Arc::clone(one), Position { name: one.metadata.reference(), time: None }));
    let chosen: Vec<_> = chosen.collect();
    (chosen, found.next().is_some(), count_of(catalog))
}

fn count_of(catalog: &Catalog) -> Total {
    Total { size: catalog.connection_count(), is_estimate: false }
}

/// Time and place of the last connection of the page before.
type After = (Option<Timestamp>, usize);

/// Where a scan in the order of names starts, and what comes before the page.
fn start(index: &ConnectionIndex, page: &PageQuery<ConnectionRef>) -> (usize, Option<After>) {
    let Some((position, _)) = &page.after else {
        return (if page.order.is_descending { index.all().len() } else { 0 }, None);
    };
    let (before, up_to) = index.place_of(&position.name);
    let from = if page.order.is_descending { before } else { up_to };
    (from, Some((position.time, before + up_to)))
}

fn time_of(by: OrderBy, metadata: &ConnectionMetadata, look: &Look) -> Option<Timestamp> {
    match by {
        OrderBy::CreateTime => Some(metadata.create_time),
        OrderBy::ExpireTime => metadata.expire_time(),
        OrderBy::LastUseTime => look.used.map(|used| used.last),
        OrderBy::FirstTime | OrderBy::LastTime | OrderBy::Name => None,
        OrderBy::UpdateTime => Some(metadata.update_time),
    }
}

fn look(live: &Live, metadata: &ConnectionMetadata) -> Look {
    let (uid, leases) = (metadata.uid, live.leases());
    Look {
        is_known: true,
        used: live.usage().use_of(uid),
        live_leases: leases.count_on(uid),
        stale_leases: leases.count_before(uid, metadata.version),
    }
}

fn listed(catalog: &Catalog, metadata: ConnectionMetadata, look: &Look) -> ListedConnection {
    let groups = catalog.groups_of(&metadata);
    let groups = groups.map(|group| ResourceName::Group(group.metadata.name.clone())).collect();
    let Look { used, live_leases, stale_leases, .. } = *look;
    ListedConnection { metadata, groups, live_leases, stale_leases, used }
}
