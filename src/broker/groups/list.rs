//! ListGroups: which groups are on a page, and what the journal knows of them.

use std::sync::Arc;

use super::ListedGroup;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::choice::{Candidate, Choice};
use crate::broker::list::scan::{Look, Scan};
use crate::broker::list::{ListPage, OrderBy, PageQuery, Position, Total};
use crate::broker::registry::operators::require_operator;
use crate::catalog::{Filter, Group, GroupMetadata};
use crate::journal::Live;
use crate::model::GroupName;

/// The groups that an operator asks for.
pub struct GroupQuery {
    /// Which groups.
    pub filter: Filter<GroupMetadata>,
    /// Which page.
    pub page: PageQuery<GroupName>,
}

impl Broker {
    /// A page of the groups that the filter admits.
    ///
    /// # Errors
    /// If the caller is no operator, or is gone.
    pub fn groups(
        &self,
        caller: &Principal,
        query: &GroupQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<ListedGroup, GroupName>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let GroupQuery { filter, page } = query;
        let by = page.order.by;
        let mut bound = filter.bind(&snapshot.catalog);
        let look = |live: &Live, group: &Arc<Group>| {
            let used = live.usage().use_of_group(&group.metadata.name);
            Look { is_known: true, used, ..Look::default() }
        };
        let candidate = |item: _, look: &Look| {
            let metadata: &Arc<GroupMetadata> = &Arc::<Group>::as_ref(item).metadata;
            let time = match by {
                OrderBy::CreateTime => Some(metadata.create_time),
                OrderBy::LastUseTime => look.used.map(|used| used.last),
                OrderBy::UpdateTime => Some(metadata.update_time),
                _ => None,
            };
            Some(Candidate { item, name: &metadata.name, time })
        };
        let is_by_name = by == OrderBy::Name && !page.order.is_descending;
        // By name, groups before the page are skipped in the tree.
        let first = page.after.as_ref().filter(|_| is_by_name);
        let all = snapshot.catalog.groups_after(first.map(|(position, _)| &position.name));
        let all: Vec<&Arc<Group>> = all.collect();
        let mut choice = Choice::of_page(page, |name| name);
        let scan = Scan {
            admits: &mut |group: &Arc<Group>| bound.admits(&group.metadata),
            look: (by == OrderBy::LastUseTime).then_some(&look as &dyn Fn(&Live, _) -> Look),
            candidate: &candidate,
            is_sorted: is_by_name,
            counts: page.after.is_none() && !filter.is_empty(),
        };
        let counted = self.scan(all.into_iter(), scan, &mut choice, is_cancelled)?;
        let counted = match filter.is_empty() {
            true => Total { size: snapshot.catalog.group_count(), is_estimate: false },
            false => counted,
        };
        let total = page.total(counted);
        let (found, has_more) = choice.finish();
        let looks = self.looks(&found, |live, one| look(live, one.item));
        let items = found.into_iter().zip(looks).map(|(one, Look { used, .. })| {
            let listed = ListedGroup { used, ..ListedGroup::from(one.item.as_ref()) };
            (listed, Position { name: one.name.clone(), time: one.time })
        });
        Ok(ListPage { items: items.collect(), has_more, total })
    }
}
