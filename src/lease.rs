//! Leases: for how long a credential is handed out. Pure functions: time is an argument, and the caller keeps the
//! journal.
//!
//! The TTL is the least of the TTL asked for, the connection's maximum, the server's maximum, the remaining life of the
//! step and the remaining life of the credential upstream. A lease never outlives its opening or its credential.

mod of_resource;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{
    Action, ConnectionRef, GroupRef, Id, IdMap, IdSet, IntegrationName, Invalid, Reference,
    ResourceName, SecretRef, Timestamp, WorkflowName, parsed,
};
use of_resource::OfResource;

/// The bound that limits the TTL of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtlLimit {
    /// The connection's own maximum.
    Connection,
    /// Nothing: the TTL is as asked for, or the default.
    None,
    /// The server's maximum.
    Server,
    /// The end of the step.
    Step,
    /// The end of the credential that the upstream has made.
    Upstream,
}

/// The target of a lease, as the step asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseTarget {
    /// A connection, written `connections/INTEGRATION/NAME`.
    Connection(ConnectionRef),
    /// The default connection of an integration, written `default:INTEGRATION`.
    Default(IntegrationName),
    /// A member of a group, written `group:NAME:KEY=VALUE,…`.
    Group(GroupRef),
    /// A secret of the step's workflow, written `workflows/WORKFLOW/secrets/NAME`.
    Secret(SecretRef),
}

impl LeaseTarget {
    /// The target that a step of this workflow asks for.
    pub fn of(workflow: &WorkflowName, asked: &Reference) -> Self {
        match asked {
            Reference::Connection(name) => Self::Connection(name.clone()),
            Reference::Default(integration) => Self::Default(integration.clone()),
            Reference::Group(group) => Self::Group(group.clone()),
            Reference::Secret(name) => {
                Self::Secret(SecretRef { workflow: workflow.clone(), name: name.clone() })
            }
        }
    }

    /// The reference that the step asked with.
    pub fn reference(&self) -> Reference {
        match self {
            Self::Connection(name) => Reference::Connection(name.clone()),
            Self::Default(integration) => Reference::Default(integration.clone()),
            Self::Group(group) => Reference::Group(group.clone()),
            Self::Secret(secret) => Reference::Secret(secret.name.clone()),
        }
    }

    /// The target as text, in one piece: every line of a decision contains it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Connection(name) => ResourceName::Connection(name.clone()).to_text(),
            Self::Secret(secret) => ResourceName::Secret(secret.clone()).to_text(),
            Self::Default(_) | Self::Group(_) => self.reference().to_text(),
        }
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("group:") {
            return text.parse().map(Self::Group);
        }
        if let Some(integration) = text.strip_prefix("default:") {
            return IntegrationName::parse(integration).map(Self::Default);
        }
        match text.parse()? {
            ResourceName::Connection(name) => Ok(Self::Connection(name)),
            ResourceName::Secret(secret) => Ok(Self::Secret(secret)),
            _ => Err(Invalid::new("lease target", text, "a lease is on a connection or a secret")),
        }
    }
}

impl Serialize for LeaseTarget {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for LeaseTarget {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, Self::parse)
    }
}

/// The request that a lease answers. If the same opening asks for the same again, it gets the same live lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The target.
    pub target: LeaseTarget,
    /// The fields asked for, by the names used; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The TTL asked for, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_millis: Option<u64>,
    /// What the broker does with the credential; `None` if the step gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

/// A credential that an upstream has made, as lines and leases name it. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintedCredential {
    /// The mint that made it.
    pub mint: Id,
    /// Its name in the upstream's audit log, if it has one: an access key ID, a token's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// When it counts as ended.
    pub credential_expire_time: Timestamp,
    /// True if the upstream has told this end: it accepts the credential no longer. A line that does not
    /// say so costs one more call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_told: bool,
    /// True if one opening has it for itself, and nothing can end it: it outlives the opening, until it expires.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlives: bool,
    /// True if the broker owes it an ending: the upstream can end it, and the store keeps what that needs. Nobody gets it any
    /// more once that ending has begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owed: bool,
}

impl MintedCredential {
    /// When the upstream no longer accepts it, if the upstream has told that.
    pub fn told_end(&self) -> Option<Timestamp> {
        self.end_told.then_some(self.credential_expire_time)
    }
}

/// How far the credential of a lease is made, if an upstream makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MintState {
    /// The upstream has not answered: nothing was handed out.
    Awaited,
    /// It is made.
    Minted(Arc<MintedCredential>),
}

/// The credential that a lease is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The uid of the resource.
    pub resource: Id,
    /// The version of the resource.
    pub version: u64,
    /// The mint, if an upstream has made the credential.
    pub mint: Option<Id>,
}

impl Edition {
    /// Whether both are of the same version of the same resource, whichever mint has made them.
    pub fn is_same_version(&self, other: &Self) -> bool {
        (self.resource, self.version) == (other.resource, other.version)
    }
}

/// When a lease expires, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The first moment at which the lease has expired.
    pub expire_time: Timestamp,
    /// The bound that limits it.
    pub limited_by: TtlLimit,
}

/// One lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// A random id.
    pub id: Id,
    /// The opening that holds it.
    pub opening: Id,
    /// The uid of the resource.
    pub resource: Id,
    /// The version that was handed out.
    pub version: u64,
    /// The request.
    pub ask: Arc<Ask>,
    /// Whether it belongs to a Watch, and so is not given to any other request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_watch: bool,
    /// When it was issued.
    pub issue_time: Timestamp,
    /// The first moment at which it has expired.
    pub expire_time: Timestamp,
    /// The bound that limits it.
    pub limited_by: TtlLimit,
    /// The credential, if an upstream makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<MintState>,
    /// True if the broker's action is over. The lease goes on for the sake of the credential, which the upstream would end
    /// without a lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_done: bool,
}

impl Lease {
    /// Whether another request for the same may get it: it is neither a Watch's nor an action's.
    fn is_shared(&self) -> bool {
        !self.is_watch && self.ask.action.is_none()
    }

    /// Whether a request for `ask`, for this credential, may get this lease again. A lease whose credential is awaited
    /// is for its own request alone.
    pub fn is_for(&self, ask: &Ask, edition: Edition) -> bool {
        let is_minted = match &self.mint {
            None => edition.mint.is_none(),
            Some(MintState::Awaited) => false,
            Some(MintState::Minted(credential)) => edition.mint == Some(credential.mint),
        };
        let same = (self.resource, self.version) == (edition.resource, edition.version);
        same && is_minted && self.is_shared() && *self.ask == *ask
    }

    /// What was handed out under it.
    pub fn edition(&self) -> Edition {
        let mint = self.credential().map(|credential| credential.mint);
        Edition { resource: self.resource, version: self.version, mint }
    }

    /// Whether the upstream has not answered yet.
    pub fn is_awaited(&self) -> bool {
        self.mint == Some(MintState::Awaited)
    }

    /// The credential that an upstream has made for it, if so.
    pub fn credential(&self) -> Option<&Arc<MintedCredential>> {
        match &self.mint {
            Some(MintState::Minted(credential)) => Some(credential),
            Some(MintState::Awaited) | None => None,
        }
    }

    /// When the credential ends upstream, if an upstream has made it.
    pub fn credential_expire_time(&self) -> Option<Timestamp> {
        self.credential().map(|credential| credential.credential_expire_time)
    }

    /// Whether the holder uses this credential of the same connection, or gets it when it asks again: the lease is on it, on
    /// one that it replaces, or awaits one.
    pub fn may_move_to(&self, credential: &MintedCredential) -> bool {
        match &self.mint {
            None => false,
            Some(MintState::Awaited) => true,
            Some(MintState::Minted(own)) => {
                own.mint == credential.mint
                    || own.credential_expire_time < credential.credential_expire_time
            }
        }
    }

    /// The terms of this lease on a credential: it ends with the credential at the latest.
    pub fn terms_on(&self, credential: &MintedCredential) -> Terms {
        let end = credential.credential_expire_time;
        match end < self.expire_time {
            true => Terms { expire_time: end, limited_by: TtlLimit::Upstream },
            false => Terms { expire_time: self.expire_time, limited_by: self.limited_by },
        }
    }
}

/// The bounds of a TTL, by the configuration and the resource.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The TTL by default.
    pub default: Duration,
    /// The server's maximum.
    pub server: Duration,
    /// The connection's maximum, if it has one.
    pub connection: Option<Duration>,
    /// The end of the step.
    pub step_end: Timestamp,
    /// The end of the credential upstream, if an upstream has made it.
    pub credential_end: Option<Timestamp>,
}

/// Proposes the terms of a new lease.
pub fn propose(asked: Option<Duration>, bounds: &Bounds, now: Timestamp) -> Terms {
    let mut ttl = asked.unwrap_or(bounds.default);
    let mut limited_by = TtlLimit::None;
    let limits = [
        (TtlLimit::Connection, bounds.connection),
        (TtlLimit::Server, Some(bounds.server)),
        (TtlLimit::Step, Some(bounds.step_end.since(now))),
        (TtlLimit::Upstream, bounds.credential_end.map(|end| end.since(now))),
    ];
    for (limit, most) in limits {
        if let Some(most) = most.filter(|most| *most < ttl) {
            ttl = most;
            limited_by = limit;
        }
    }
    Terms { expire_time: now.after(ttl), limited_by }
}

/// Proposes the terms of a renewal: the TTL counts from `now`, the maxima from the lease's issue. A renewal never
/// shortens a lease.
pub fn renew(lease: &Lease, asked: Option<Duration>, bounds: &Bounds, now: Timestamp) -> Terms {
    let current = Terms { expire_time: lease.expire_time, limited_by: lease.limited_by };
    let wanted = now.after(asked.unwrap_or(bounds.default));
    let (end, limit) = hard_end(lease.issue_time, bounds);
    let proposed = match end < wanted {
        true => Terms { expire_time: end, limited_by: limit },
        false => Terms { expire_time: wanted, limited_by: TtlLimit::None },
    };
    if proposed.expire_time > current.expire_time { proposed } else { current }
}

/// Whether a lease with these times could be renewed to expire later.
pub fn is_renewable(issue_time: Timestamp, expire_time: Timestamp, bounds: &Bounds) -> bool {
    hard_end(issue_time, bounds).0 > expire_time
}

/// The latest moment to which a lease can be renewed, and what sets it.
fn hard_end(issue_time: Timestamp, bounds: &Bounds) -> (Timestamp, TtlLimit) {
    let connection = bounds.connection.map(|most| (issue_time.after(most), TtlLimit::Connection));
    let others =
        [(issue_time.after(bounds.server), TtlLimit::Server), (bounds.step_end, TtlLimit::Step)];
    let upstream = bounds.credential_end.map(|end| (end, TtlLimit::Upstream));
    let all = others.into_iter().chain(connection).chain(upstream);
    all.min_by_key(|(end, _)| *end).unwrap_or((bounds.step_end, TtlLimit::Step))
}

/// All live leases, by id, opening, resource and expiry.
#[derive(Debug, Default)]
pub struct LeaseTable {
    by_id: IdMap<Lease>,
    by_opening: IdMap<OfOpening>,
    by_resource: IdMap<OfResource>,
    by_expiry: BTreeSet<(Timestamp, Id)>,
    touched: IdSet,
}

#[derive(Debug, Default)]
struct OfOpening {
    all: IdSet,
    latest: HashMap<Arc<Ask>, Id>,
}

impl LeaseTable {
    /// How many leases are live.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no lease is live.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The lease of this id.
    pub fn find(&self, id: Id) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// Changes when a lease expires.
    pub fn extend(&mut self, id: Id, terms: Terms) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            self.by_expiry.remove(&(lease.expire_time, id));
            (lease.expire_time, lease.limited_by) = (terms.expire_time, terms.limited_by);
            self.by_expiry.insert((lease.expire_time, id));
        }
    }

    /// Notes the credential that an upstream has made for a lease. The lease ends with it at the latest.
    pub fn bind(&mut self, id: Id, credential: &Arc<MintedCredential>) {
        let Some(lease) = self.by_id.get_mut(&id) else { return };
        self.touched.insert(lease.opening);
        lease.mint = Some(MintState::Minted(Arc::clone(credential)));
        let terms = lease.terms_on(credential);
        self.extend(id, terms);
    }

    /// Takes in that the broker's action under a lease is over. The lease ends, unless it is the opening's last on a
    /// credential that the upstream would end without it.
    pub fn finish(&mut self, id: Id) {
        let Some(lease) = self.by_id.get(&id).filter(|lease| !lease.is_done) else { return };
        let owed = lease.credential().filter(|made| made.owed).map(|made| made.mint);
        let has_another = |mint| {
            let others = self.held_by(lease.opening).filter(|other| other.id != id);
            others.filter_map(Lease::credential).any(|made| made.mint == mint)
        };
        match owed {
            Some(mint) if !has_another(mint) => {
                if let Some(lease) = self.by_id.get_mut(&id) {
                    lease.is_done = true;
                }
            }
            _ => drop(self.remove(id)),
        }
    }

    /// The openings that have lost a lease on a minted credential, or got one on another, since this was asked last.
    pub fn take_touched(&mut self) -> IdSet {
        std::mem::take(&mut self.touched)
    }

    /// The leases of one opening, in order of their ids.
    pub fn of_opening(&self, opening: Id) -> Vec<Id> {
        let ids = self.by_opening.get(&opening).map(|of| of.all.iter().copied().collect());
        let mut ids: Vec<Id> = ids.unwrap_or_default();
        ids.sort_unstable();
        ids
    }

    /// The leases that an opening holds, in no order.
    pub fn held_by(&self, opening: Id) -> impl Iterator<Item = &Lease> {
        let ids = self.by_opening.get(&opening).into_iter().flat_map(|of| &of.all);
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// How many leases this opening holds.
    pub fn count_of(&self, opening: Id) -> usize {
        self.by_opening.get(&opening).map_or(0, |of| of.all.len())
    }

    /// All leases, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_id.values()
    }

    /// The lease to give again for the same ask: live, for this credential, and within two thirds of its life.
    pub fn reusable(
        &self,
        opening: Id,
        ask: &Ask,
        edition: Edition,
        now: Timestamp,
    ) -> Option<&Lease> {
        let id = self.by_opening.get(&opening)?.latest.get(ask)?;
        let lease = self.by_id.get(id)?;
        let fresh = now < lease.issue_time.two_thirds_to(lease.expire_time);
        (fresh && lease.is_for(ask, edition)).then_some(lease)
    }

    /// Inserts a lease.
    pub fn insert(&mut self, lease: Lease) {
        let of = self.by_opening.entry(lease.opening).or_default();
        of.all.insert(lease.id);
        if lease.is_shared() {
            of.latest.insert(Arc::clone(&lease.ask), lease.id);
        }
        self.by_resource.entry(lease.resource).or_default().insert(&lease);
        self.by_expiry.insert((lease.expire_time, lease.id));
        self.by_id.insert(lease.id, lease);
    }

    /// Removes a lease.
    pub fn remove(&mut self, id: Id) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_expiry.remove(&(lease.expire_time, id));
        if lease.mint.is_some() {
            self.touched.insert(lease.opening);
        }
        if let Some(of) = self.by_opening.get_mut(&lease.opening) {
            of.all.remove(&id);
            if of.latest.get(&lease.ask) == Some(&id) {
                of.latest.remove(&lease.ask);
            }
            if of.all.is_empty() {
                self.by_opening.remove(&lease.opening);
            }
        }
        if let Some(of) = self.by_resource.get_mut(&lease.resource) {
            of.remove(&lease);
            if of.all.is_empty() {
                self.by_resource.remove(&lease.resource);
            }
        }
        Some(lease)
    }

    /// Removes every lease of an opening, and returns their ids.
    pub fn remove_opening(&mut self, opening: Id) -> Vec<Id> {
        let ids = self.of_opening(opening);
        for id in &ids {
            self.remove(*id);
        }
        ids
    }

    /// The leases on one resource.
    pub fn of_resource(&self, resource: Id) -> impl Iterator<Item = &Lease> {
        let ids = self.by_resource.get(&resource).into_iter().flat_map(|of| &of.all);
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// The ids of the leases on one resource, in no order.
    pub fn ids_on(&self, resource: Id) -> impl Iterator<Item = Id> {
        self.by_resource.get(&resource).into_iter().flat_map(|of| &of.all).copied()
    }

    /// How many leases are on one resource.
    pub fn count_on(&self, resource: Id) -> usize {
        self.by_resource.get(&resource).map_or(0, |of| of.all.len())
    }

    /// How many leases are on a version of a resource before this.
    pub fn count_before(&self, resource: Id, version: u64) -> usize {
        self.by_resource.get(&resource).map_or(0, |of| of.count_before(version))
    }

    /// Removes the leases that have expired at `now`, and returns how many. Costs nothing for the others.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut expired = 0;
        while let Some(&(end, id)) = self.by_expiry.first() {
            if now < end {
                break;
            }
            self.remove(id);
            expired += 1;
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn lease(n: u8, expire: i64) -> Lease {
        Lease {
            id: Id::from_bytes([n; 16]),
            opening: Id::from_bytes([1; 16]),
            resource: Id::from_bytes([2; 16]),
            version: 1,
            ask: Arc::new(Ask {
                target: LeaseTarget::parse("connections/aws/a").unwrap(),
                fields: vec![],
                ttl_millis: None,
                action: None,
            }),
            is_watch: false,
            issue_time: at(0),
            expire_time: at(expire),
            limited_by: TtlLimit::None,
            mint: None,
            is_done: false,
        }
    }

    #[test]
    fn targets_of_leases_come_back_from_their_text() {
        for text in [
            "connections/aws/my account",
            "default:slack",
            "group:accounts:env=prod,region=eu/1",
            "group:accounts:",
            "workflows/owner/repo/secrets/token",
        ] {
            let target = LeaseTarget::parse(text).unwrap();
            assert_eq!(target.to_text(), text);
            let workflow = WorkflowName::parse("owner/repo").unwrap();
            assert_eq!(LeaseTarget::of(&workflow, &target.reference()), target);
        }
        for bad in ["aws/prod", "secret:token", "groups/accounts", "leases/1", ""] {
            assert!(LeaseTarget::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_ttl_is_the_least_of_its_bounds() {
        let bounds = Bounds {
            default: HOUR,
            server: HOUR * 24,
            connection: None,
            step_end: at(7200),
            credential_end: None,
        };
        let cases = [
            (None, 3600, TtlLimit::None),
            (Some(60), 60, TtlLimit::None),
            (Some(7200), 7200, TtlLimit::None),
            (Some(7201), 7200, TtlLimit::Step),
        ];
        for (asked, expected, limit) in cases {
            let terms = propose(asked.map(Duration::from_secs), &bounds, at(0));
            assert_eq!(terms, Terms { expire_time: at(expected), limited_by: limit });
        }
        let bounds = Bounds { connection: Some(HOUR / 2), server: HOUR / 4, ..bounds };
        let terms = propose(None, &bounds, at(0));
        assert_eq!(terms, Terms { expire_time: at(900), limited_by: TtlLimit::Server });
        assert_eq!(propose(None, &bounds, at(9000)).expire_time, at(9000));
        let bounds = Bounds { credential_end: Some(at(800)), ..bounds };
        let terms = propose(None, &bounds, at(0));
        assert_eq!(terms, Terms { expire_time: at(800), limited_by: TtlLimit::Upstream });
    }

    #[test]
    fn the_same_ask_reuses_a_lease_for_two_thirds_of_its_life() {
        let mut table = LeaseTable::default();
        let first = lease(9, 3000);
        table.insert(first.clone());
        let again = |table: &LeaseTable, version, now| {
            let edition = Edition { resource: first.resource, version, mint: None };
            table.reusable(first.opening, &first.ask, edition, at(now)).is_some()
        };
        assert!(again(&table, 1, 1999));
        assert!(!again(&table, 1, 2000));
        assert!(!again(&table, 2, 10));
    }

    #[test]
    fn a_renewal_never_shortens_and_never_passes_the_maximum() {
        let bounds = Bounds {
            default: HOUR,
            server: HOUR * 24,
            connection: Some(HOUR * 2),
            step_end: at(1_000_000),
            credential_end: None,
        };
        let lease = lease(1, 3600);
        let cases = [
            (Some(600), 3000, 3600, TtlLimit::None),
            (Some(601), 3000, 3601, TtlLimit::None),
            (None, 3000, 6600, TtlLimit::None),
            (None, 3600, 7200, TtlLimit::None),
            (None, 3601, 7200, TtlLimit::Connection),
            (Some(100_000), 0, 7200, TtlLimit::Connection),
        ];
        for (asked, now, expected, limit) in cases {
            let terms = renew(&lease, asked.map(Duration::from_secs), &bounds, at(now));
            assert_eq!(terms, Terms { expire_time: at(expected), limited_by: limit }, "{now}");
        }
        assert!(is_renewable(at(0), at(7199), &bounds) && !is_renewable(at(0), at(7200), &bounds));
        let ending = Bounds { step_end: at(4000), ..bounds };
        let terms = renew(&lease, None, &ending, at(3000));
        assert_eq!(terms, Terms { expire_time: at(4000), limited_by: TtlLimit::Step });
        let ending = Bounds { credential_end: Some(at(3700)), ..bounds };
        let terms = renew(&lease, None, &ending, at(3000));
        assert_eq!(terms, Terms { expire_time: at(3700), limited_by: TtlLimit::Upstream });
        assert!(!is_renewable(at(0), at(3700), &ending));
    }

    #[test]
    fn a_lease_on_a_minted_credential_is_for_that_mint_alone() {
        let mut table = LeaseTable::default();
        let stored = lease(1, 3000);
        let awaited = Lease { mint: Some(MintState::Awaited), ..stored.clone() };
        table.insert(awaited);
        let mint = |n| Id::from_bytes([n; 16]);
        let reusable = |table: &LeaseTable, mint| {
            let edition = Edition { resource: stored.resource, version: 1, mint };
            table.reusable(stored.opening, &stored.ask, edition, at(0)).cloned()
        };
        assert!(reusable(&table, None).is_none() && reusable(&table, Some(mint(7))).is_none());
        let credential_expire_time = at(900);
        let made = MintedCredential {
            mint: mint(7),
            handle: None,
            credential_expire_time,
            end_told: true,
            outlives: false,
            owed: false,
        };
        table.bind(stored.id, &Arc::new(made));
        assert!(reusable(&table, None).is_none() && reusable(&table, Some(mint(8))).is_none());
        let bound = reusable(&table, Some(mint(7))).unwrap();
        assert_eq!((bound.expire_time, bound.limited_by), (at(900), TtlLimit::Upstream));
        assert_eq!((table.expire(at(899)), table.expire(at(900))), (0, 1));
    }

    #[test]
    fn a_line_that_tells_no_end_is_not_trusted_for_one() {
        let old = r#"{"mint":"00000000000000000000000000000009","credential_expire_time":"2026-11-21T11:00:00Z"}"#;
        let read: MintedCredential = serde_json::from_str(old).unwrap();
        assert_eq!(read.told_end(), None);
        let told = MintedCredential { end_told: true, ..read };
        let written = serde_json::to_string(&told).unwrap();
        let again: MintedCredential = serde_json::from_str(&written).unwrap();
        assert_eq!(again.told_end(), Some(told.credential_expire_time));
    }

    #[test]
    fn expired_leases_are_removed_from_every_index() {
        let mut table = LeaseTable::default();
        table.insert(lease(1, 10));
        table.insert(lease(2, 20));
        assert_eq!(table.expire(at(9)), 0);
        assert_eq!(table.expire(at(10)), 1);
        assert_eq!(table.remove_opening(Id::from_bytes([1; 16])), [Id::from_bytes([2; 16])]);
        assert!(table.is_empty() && table.by_resource.is_empty() && table.by_expiry.is_empty());
        assert!(table.by_opening.is_empty());
    }
}
