//! ListSecrets: which secrets are on a page, and what the journal knows of them.

use std::sync::Arc;

use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::list::choice::{Candidate, Choice};
use crate::broker::list::scan::{Look, Scan};
use crate::broker::list::{ListPage, OrderBy, PageQuery, Position};
use crate::broker::registry::operators::require_operator;
use crate::catalog::{Filter, Secret, SecretMetadata};
use crate::journal::{Live, Use};
use crate::model::SecretRef;

/// The secrets that an operator asks for.
pub struct SecretQuery {
    /// Which secrets.
    pub filter: Filter<SecretMetadata>,
    /// Which page.
    pub page: PageQuery<SecretRef>,
}

/// A secret as an operator sees it.
pub struct ListedSecret {
    /// Without its value.
    pub metadata: SecretMetadata,
    /// How many leases on it are live.
    pub live_leases: usize,
    /// How often it was used, and when last; `None` if never.
    pub used: Option<Use>,
}

impl Broker {
    /// A page of the secrets that the filter admits.
    ///
    /// # Errors
    /// If the caller is no operator, or is gone.
    pub fn secrets(
        &self,
        caller: &Principal,
        query: &SecretQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<ListedSecret, SecretRef>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let SecretQuery { filter, page } = query;
        let by = page.order.by;
        let mut bound = filter.bind(&snapshot.catalog);
        let look_at = |live: &Live, secret: &Arc<Secret>| look(live, &secret.metadata);
        let candidate = |item: _, look: &Look| {
            let metadata = &Arc::<Secret>::as_ref(item).metadata;
            let time = match by {
                OrderBy::LastUseTime => look.used.map(|used| used.last),
                OrderBy::UpdateTime => Some(metadata.update_time),
                _ => None,
            };
            Some(Candidate { item, name: &metadata.name, time })
        };
        // They are in no order, so each page is chosen from all.
        let all: Vec<&Arc<Secret>> = snapshot.catalog.secrets().collect();
        let mut choice = Choice::of_page(page, |name| name);
        let scan = Scan {
            admits: &mut |secret: &Arc<Secret>| bound.admits(&secret.metadata),
            look: (by == OrderBy::LastUseTime).then_some(&look_at as &dyn Fn(&Live, _) -> Look),
            candidate: &candidate,
            is_sorted: false,
            counts: true,
        };
        let total = self.scan(all.into_iter(), scan, &mut choice, is_cancelled)?;
        let (found, has_more) = choice.finish();
        let looks = self.looks(&found, |live, one| look_at(live, one.item));
        let items = found.into_iter().zip(looks).map(|(one, look)| {
            let position = Position { name: one.name.clone(), time: one.time };
            (listed(one.item.metadata.clone(), &look), position)
        });
        Ok(ListPage { items: items.collect(), has_more, total })
    }

    /// A secret with what the journal knows of it now.
    pub(super) fn listed_secret(&self, metadata: SecretMetadata) -> ListedSecret {
        let look = self.journal.with_live(|live| look(live, &metadata)).unwrap_or_default();
        listed(metadata, &look)
    }
}

fn look(live: &Live, metadata: &SecretMetadata) -> Look {
    let (uid, leases) = (metadata.uid, live.leases());
    Look {
        is_known: true,
        used: live.usage().use_of(uid),
        live_leases: leases.count_on(uid),
        stale_leases: leases.count_before(uid, metadata.version),
    }
}

fn listed(metadata: SecretMetadata, look: &Look) -> ListedSecret {
    ListedSecret { metadata, live_leases: look.live_leases, used: look.used }
}
