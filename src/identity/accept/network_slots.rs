//! Bounds the unfinished handshakes over TCP, where only the address is known.
//!
//! An IPv4 address counts alone, an IPv6 address with its /64, which one host has to itself. A network is known for a
//! week after an operator has logged in from it. No client waits for a slot: a pending handshake gives way, or the new
//! client is refused.
//!
//! | bound | which handshake gives way |
//! |---|---|
//! | of a network | its own oldest silent handshake, or else its own oldest; each has a grace |
//! | of all | one of the network that has the most, if it has more than the new client's: a silent one first |
//!
//! Against another network, a handshake has its grace if it is the only one that its network has more. Two rules favour
//! known networks: the only handshake of one never gives way to an unknown network, and the first handshake of one takes
//! the slot of an unknown network at once.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::pending::{HandshakeSlot, PendingList};
use super::rate_limiter::{KeyedRates, millis_since};
use super::refused::ConnectionRefusal;
use crate::model::limits::MAX_TCP_HANDSHAKES_OF_NETWORK;
use crate::model::{RateLimit, Recent};

/// The bits of an IPv6 address that name its network.
const NETWORK_BITS: u128 = !(u64::MAX as u128);
/// How long a handshake keeps its slot: while its client is silent, and after bytes were received. A good client speaks
/// at once, and is done after a round trip.
const SILENT_GRACE: Duration = Duration::from_millis(100);
const SPOKEN_GRACE: Duration = Duration::from_secs(1);
/// The most known networks, and how long a network is known after a login.
const MAX_KNOWN: usize = 256;
const KNOWN_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// An IPv4 address, or the network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Network {
    fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_BITS).into(),
        })
    }
}

/// The slots of a TCP listener.
pub(crate) struct NetworkSlots {
    slots: usize,
    pending: PendingList<Network>,
    rates: KeyedRates<Network>,
    started: Instant,
    known: Mutex<Recent<Network>>,
}

impl NetworkSlots {
    /// So many slots, for networks that connect at this rate each.
    pub(crate) fn new(slots: u32, rate: RateLimit) -> Self {
        Self {
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
            pending: Arc::default(),
            rates: KeyedRates::new(rate),
            started: Instant::now(),
            known: Mutex::new(Recent::new(MAX_KNOWN, KNOWN_FOR)),
        }
    }

    /// Takes a slot for a new connection. `has_spoken` says that its client has sent bytes already.
    ///
    /// # Errors
    /// The refusal, if the network connects too often or no slot can be freed.
    pub(crate) fn admit(
        &self,
        address: SocketAddr,
        has_spoken: bool,
        now: Instant,
    ) -> Result<HandshakeSlot, ConnectionRefusal> {
        let network = Network::of(address);
        let is_known = |one: Network| self.known.lock().has(millis_since(self.started, now), &one);
        if self.rates.is_over(network, is_known(network), now) {
            return Err(ConnectionRefusal::TooOften);
        }
        let mut pending = self.pending.lock();
        let claims = pending.iter().map(|one| Claim {
            network: one.origin,
            has_spoken: one.has_spoken(),
            age: now.saturating_duration_since(one.since),
        });
        let claims: Vec<_> = claims.collect();
        if let Some(place) = giving_way(&claims, self.slots, network, is_known)? {
            pending.remove(place).ok_or(ConnectionRefusal::NoSlot)?.evict();
        }
        Ok(HandshakeSlot::take(&self.pending, &mut pending, network, has_spoken))
    }

    /// Notes that an operator has logged in from an address.
    pub(super) fn know(&self, address: SocketAddr, now: Instant) {
        self.known.lock().note(millis_since(self.started, now), Network::of(address));
    }
}

/// A pending handshake.
#[derive(Clone, Copy)]
struct Claim {
    network: Network,
    has_spoken: bool,
    age: Duration,
}

impl Claim {
    fn is_past_grace(&self) -> bool {
        self.age >= if self.has_spoken { SPOKEN_GRACE } else { SILENT_GRACE }
    }
}

/// Which of the handshakes, the oldest first, gives way to a new one; `None` if there is room for it.
///
/// # Errors
/// [`ConnectionRefusal::NoSlot`] if none may.
fn giving_way(
    claims: &[Claim],
    slots: usize,
    newcomer: Network,
    is_known: impl Fn(Network) -> bool,
) -> Result<Option<usize>, ConnectionRefusal> {
    let count = |network| claims.iter().filter(|one| one.network == network).count();
    let own = count(newcomer);
    let is_full = claims.len() >= slots;
    if own < MAX_TCP_HANDSHAKES_OF_NETWORK && !is_full {
        return Ok(None);
    }
    let takes_own = |one: &Claim| one.network == newcomer && one.is_past_grace();
    let takes_of_other = |one: &Claim| {
        let theirs = count(one.network);
        let (known, unknown) = (own == 0 && is_known(newcomer), !is_known(one.network));
        let is_free = theirs > own + 1 || (known && unknown) || one.is_past_grace();
        theirs > own && is_free && (theirs > 1 || known || unknown)
    };
    let find = |may_go: &dyn Fn(&Claim) -> bool| {
        let places = claims.iter().enumerate().filter(|(_, one)| may_go(one));
        places
            .min_by_key(|(_, one)| (Reverse(count(one.network)), one.has_spoken))
            .map(|(place, _)| place)
    };
    let of_others =
        || if own < MAX_TCP_HANDSHAKES_OF_NETWORK { find(&takes_of_other) } else { None };
    let place = of_others().or_else(|| find(&takes_own));
    place.map(Some).ok_or(ConnectionRefusal::NoSlot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::accept::rate_limiter::MAX_KEYS;
    use crate::model::limits::MAX_TCP_HANDSHAKES;

    const RATE: RateLimit = RateLimit { per_second: 1_000, burst: 1_000 };

    fn slots() -> NetworkSlots {
        NetworkSlots::new(u32::try_from(MAX_TCP_HANDSHAKES).unwrap(), RATE)
    }

    fn address(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 1)
    }

    fn connect(slots: &NetworkSlots, ip: &str, has_spoken: bool) -> Option<HandshakeSlot> {
        slots.admit(address(ip), has_spoken, Instant::now()).ok()
    }

    #[test]
    fn a_network_holds_eight_slots_and_no_more() {
        let slots = slots();
        let taken: Vec<_> =
            std::iter::from_fn(|| connect(&slots, "192.0.2.1", true)).take(100).collect();
        assert_eq!(taken.len(), MAX_TCP_HANDSHAKES_OF_NETWORK);
        assert!(connect(&slots, "::ffff:192.0.2.1", true).is_none(), "it is the same address");
        assert!(connect(&slots, "192.0.2.2", true).is_some());
        let of_host = |n: usize| connect(&slots, &format!("2001:db8::{n:x}"), true);
        let one_host: Vec<_> = (0..100).map_while(of_host).collect();
        assert_eq!(one_host.len(), MAX_TCP_HANDSHAKES_OF_NETWORK, "a /64 is one network");
        assert!(connect(&slots, "2001:db8:0:1::1", true).is_some());
        drop(taken);
        assert!(connect(&slots, "192.0.2.1", true).is_some());
    }

    #[test]
    fn the_heaviest_network_loses_a_slot_when_all_are_taken() {
        let slots = slots();
        let of_network =
            |n: usize, has_spoken| connect(&slots, &format!("192.0.2.{n}"), has_spoken);
        let mut taken = Vec::new();
        for n in 0..MAX_TCP_HANDSHAKES / MAX_TCP_HANDSHAKES_OF_NETWORK {
            taken
                .extend((0..MAX_TCP_HANDSHAKES_OF_NETWORK).map(|_| of_network(n, n != 3).unwrap()));
        }
        assert_eq!(taken.len(), MAX_TCP_HANDSHAKES);
        let evicted = |taken: &[HandshakeSlot]| {
            taken.iter().filter(|slot| slot.evicted.is_cancelled()).count()
        };
        let newcomer = of_network(200, true).unwrap();
        assert_eq!(evicted(&taken), 1);
        assert!(taken[3 * MAX_TCP_HANDSHAKES_OF_NETWORK].evicted.is_cancelled(), "a silent one");
        // The newcomer's network may take from the others as long as they have more.
        let more: Vec<_> = std::iter::from_fn(|| of_network(200, true)).collect();
        assert_eq!(evicted(&taken), 1 + more.len());
        assert!(more.len() < MAX_TCP_HANDSHAKES_OF_NETWORK);
        assert!(!newcomer.evicted.is_cancelled());
        assert_eq!(slots.pending.lock().len(), MAX_TCP_HANDSHAKES);
    }

    /// Handshakes as `NETWORK:AGE` in milliseconds, the oldest first; a capital is a network that is known, and `!` says
    /// that the client has spoken.
    fn claims(text: &str) -> Vec<Claim> {
        let one = |one: &str| {
            let (network, age) = one.split_once(':').unwrap();
            let age = Duration::from_millis(age.trim_end_matches('!').parse().unwrap());
            Claim { network: named(network), has_spoken: one.ends_with('!'), age }
        };
        text.split_whitespace().map(one).collect()
    }

    fn named(network: &str) -> Network {
        Network(Ipv6Addr::from_bits(network.bytes().next().unwrap().into()).into())
    }

    #[test]
    fn a_handshake_gives_way_by_grace_number_and_acquaintance() {
        let is_known = |network| ('A'..='Z').any(|name| network == named(&name.to_string()));
        let eight = |age: &str| vec![format!("a:{age}"); 8].join(" ");
        let one_spoken = format!("a:2000! {}", ["a:150"; 7].join(" "));
        for (why, slots, held, newcomer, gives_way) in [
            ("there is room", 4, "a:0 b:0!", "a", Ok(None)),
            ("its own silent one after a grace", 64, &eight("100"), "a", Ok(Some(0))),
            ("its own silent one goes first", 64, &one_spoken, "a", Ok(Some(1))),
            ("its own spoken one after a longer grace", 64, &eight("1000!"), "a", Ok(Some(0))),
            ("its own have their grace", 64, &eight("999!"), "a", Err(())),
            ("its own silent ones have theirs", 64, &eight("99"), "a", Err(())),
            ("eight of one do not bind another", 64, &eight("0"), "b", Ok(None)),
            ("a crowd has no grace", 3, "a:9 b:0! b:0!", "c", Ok(Some(1))),
            ("nor a silent one of a crowd", 3, "a:9! b:0! b:0", "c", Ok(Some(2))),
            ("single ones have a grace", 3, "a:999! b:99 c:70!", "d", Err(())),
            ("the oldest silent one after it", 3, "a:1500! b:200 c:150", "d", Ok(Some(1))),
            ("the oldest spoken one after it", 3, "a:1500! b:1200! c:9", "d", Ok(Some(0))),
            ("nobody takes of an equal", 2, "a:9000! b:50", "b", Err(())),
            ("but its own", 2, "a:9000! b:150", "b", Ok(Some(1))),
            ("a known network keeps one", 2, "A:2900! b:50", "c", Err(())),
            ("and no more than one", 3, "b:9 A:9! A:9!", "c", Ok(Some(1))),
            ("a known network takes an unknown one's", 2, "a:9! b:9!", "C", Ok(Some(0))),
            ("not twice", 3, "C:9! a:9! b:9!", "C", Err(())),
            ("nor a known one's before its grace", 2, "A:9! B:9!", "C", Err(())),
            ("but after it", 2, "A:1000! B:9!", "C", Ok(Some(0))),
        ] {
            let found = giving_way(&claims(held), slots, named(newcomer), is_known).map_err(drop);
            assert_eq!(found, gives_way, "{why}: {held} {newcomer}");
        }
    }

    #[test]
    fn no_crowd_of_networks_takes_the_rates_of_all() {
        let slots = NetworkSlots::new(64, RateLimit { per_second: 1, burst: 2 });
        let now = Instant::now();
        let is_let_in = |ip: &str| slots.admit(address(ip), true, now).is_ok();
        slots.know(address("192.0.2.1"), now);
        for n in 0..MAX_KEYS {
            assert!(is_let_in(&format!("2001:db8:0:{n:x}::1")));
        }
        let unknown = (0..9).filter(|n| is_let_in(&format!("198.51.100.{n}"))).count();
        assert_eq!(unknown, 2, "networks without an entry share one");
        assert!(is_let_in("192.0.2.1"), "a known network has its own");
    }
}
