//! Which connections fit into a group, and why the others do not.

use std::collections::HashMap;

use super::write::{absent, may_add};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::connections::list::ConnectionQuery;
use crate::broker::error::Error;
use crate::broker::list::ListPage;
use crate::broker::registry::operators::require_operator;
use crate::catalog::{Catalog, ConnectionMetadata, Group};
use crate::model::{
    ConnectionRef, GroupName, Identifiers, IntegrationName, ResourceName, Tag, TagKey, TagValue,
};

/// The candidates that an operator asks for.
pub struct CandidateQuery {
    /// The group; `None` for a group that does not exist yet.
    pub group: Option<GroupName>,
    /// Its integration, if it does not exist yet.
    pub integration: Option<IntegrationName>,
    /// The identifiers that it will have; `None` for those that it has.
    pub identifiers: Option<Identifiers>,
    /// Members that are chosen already.
    pub members: Vec<ConnectionRef>,
    /// True for connections that fit, and no others.
    pub fitting_only: bool,
    /// Which connections, and which page.
    pub connections: ConnectionQuery,
}

/// Why a connection does not fit into a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is a member, or chosen already.
    Member,
    /// It has no tag for this identifier.
    Missing(TagKey),
    /// The caller is neither a resolver nor an editor of it.
    NotResolver,
    /// It is of another integration.
    OtherIntegration,
    /// This member has the same values.
    SameValues(ConnectionRef),
}

/// A connection that may become a member.
pub struct CandidateConnection {
    /// Its name.
    pub name: ConnectionRef,
    /// Its values of the identifiers.
    pub values: Vec<Tag>,
    /// Why it does not fit; empty if it does.
    pub unfit: Vec<Unfit>,
}

/// A group as it will be, as far as candidates matter.
struct PlannedGroup<'c> {
    group: Option<&'c Group>,
    integration: IntegrationName,
    identifiers: Identifiers,
    /// Chosen members by their values. If the identifiers change, all members.
    taken: HashMap<Vec<TagValue>, ConnectionRef>,
    chosen: &'c [ConnectionRef],
    /// Whether the group's own index is by these identifiers.
    is_indexed: bool,
}

impl Broker {
    /// A page of candidates for a group.
    ///
    /// # Errors
    /// See `GroupService.ListCandidates`.
    pub fn candidates(
        &self,
        caller: &Principal,
        query: &CandidateQuery,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<ListPage<CandidateConnection, ConnectionRef>, Error> {
        require_operator(caller)?;
        let snapshot = self.snapshot();
        let catalog = &snapshot.catalog;
        let planned = PlannedGroup::of(catalog, query)?;
        let fits = |one: &ConnectionMetadata| planned.unfit(caller, one).is_empty();
        let also = query.fitting_only.then_some(&fits as &dyn Fn(&ConnectionMetadata) -> bool);
        let (chosen, has_more, total) = self.lists.connections.read(catalog, |index| {
            self.chosen_by_scan((catalog, index), &query.connections, also, is_cancelled)
        })?;
        let items = chosen.into_iter().map(|(connection, position)| {
            let metadata = &connection.metadata;
            let unfit = planned.unfit(caller, metadata);
            let name = metadata.reference();
            (CandidateConnection { name, values: planned.values(metadata), unfit }, position)
        });
        Ok(ListPage { items: items.collect(), has_more, total })
    }
}

impl<'c> PlannedGroup<'c> {
    fn of(catalog: &'c Catalog, query: &'c CandidateQuery) -> Result<Self, Error> {
        let CandidateQuery { group: name, integration, identifiers, members: chosen, .. } = query;
        let group = match name {
            Some(name) => Some(catalog.group(name).ok_or_else(|| absent(name).or_newer(catalog))?),
            None => None,
        };
        let own = group.map(|group| &group.metadata);
        let integration = own.map(|own| own.integration.clone()).or_else(|| integration.clone());
        let is_indexed =
            identifiers.is_none() || own.map(|own| &own.identifiers) == identifiers.as_ref();
        let identifiers = identifiers.clone().or_else(|| own.map(|own| own.identifiers.clone()));
        let (Some(integration), Some(identifiers)) = (integration, identifiers) else {
            let text = "name the group, or the integration and identifiers that it will have";
            return Err(Error::TargetInvalid(text.to_owned()));
        };
        if catalog.integration(&integration).is_none() {
            return Err(Error::IntegrationUnknown(integration));
        }
        let group = group.map(AsRef::as_ref);
        let taken = HashMap::new();
        let mut planned = Self { group, integration, identifiers, taken, chosen, is_indexed };
        if let Some(group) = group.filter(|_| !is_indexed) {
            group.members().for_each(|member| planned.take(&member.metadata));
        }
        for name in chosen {
            let found = catalog.connection(name);
            let resource = || ResourceName::Connection(name.clone());
            planned.take(&found.ok_or_else(|| Error::NotFound(resource()))?.metadata);
        }
        Ok(planned)
    }

    fn take(&mut self, member: &ConnectionMetadata) {
        if let Ok(values) = self.identifiers.select(&member.tags) {
            self.taken.entry(values).or_insert_with(|| member.reference());
        }
    }

    /// Every reason why a connection cannot be added.
    fn unfit(&self, caller: &Principal, one: &ConnectionMetadata) -> Vec<Unfit> {
        if one.integration != self.integration {
            return vec![Unfit::OtherIntegration];
        }
        let is_member = self.group.is_some_and(|group| one.groups.contains(&group.uid()));
        if is_member || self.chosen.contains(&one.reference()) {
            return vec![Unfit::Member];
        }
        let mut unfit = Vec::new();
        let missing = self.identifiers.iter().filter(|key| one.tags.value(key).is_none());
        unfit.extend(missing.cloned().map(Unfit::Missing));
        if let Ok(values) = self.identifiers.select(&one.tags) {
            let indexed = self.group.filter(|_| self.is_indexed);
            let member = indexed.and_then(|group| group.member_with(&values));
            let member = member.map(|member| member.metadata.reference());
            unfit
                .extend(member.or_else(|| self.taken.get(&values).cloned()).map(Unfit::SameValues));
        }
        if !may_add(caller, one) {
            unfit.push(Unfit::NotResolver);
        }
        unfit
    }

    fn values(&self, one: &ConnectionMetadata) -> Vec<Tag> {
        let of_key =
            |key: &TagKey| Some(Tag { key: key.clone(), value: one.tags.value(key)?.clone() });
        self.identifiers.iter().filter_map(of_key).collect()
    }
}
