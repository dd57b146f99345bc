//! Bounds the unfinished handshakes over TCP, where only the address is known.
//!
//! An IPv4 address counts alone, an IPv6 address with its /64, which one host has to itself. A network over its bound is
//! refused. Where all slots are taken, the network with the most pending handshakes loses one to a network that has
//! fewer: a silent handshake first, then the oldest. No client waits for a slot.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::pending::{HandshakeSlot, PendingList};
use super::rate_limiter::KeyedRates;
use super::refused::ConnectionRefusal;
use crate::model::RateLimit;
use crate::model::limits::{MAX_TCP_HANDSHAKES, MAX_TCP_HANDSHAKES_OF_NETWORK};

/// The bits of an IPv6 address that name its network.
const NETWORK_BITS: u128 = !(u64::MAX as u128);

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
    pending: PendingList<Network>,
    rates: KeyedRates<Network>,
}

impl NetworkSlots {
    /// Slots for networks that connect at this rate each.
    pub(crate) fn new(rate: RateLimit) -> Self {
        Self { pending: Arc::default(), rates: KeyedRates::new(rate) }
    }

    /// Takes a slot for a new connection. `has_spoken` says that its client has sent bytes already.
    ///
    /// # Errors
    /// The refusal, if the network connects too often, or has its most handshakes, or no slot can be freed.
    pub(crate) fn admit(
        &self,
        address: SocketAddr,
        has_spoken: bool,
    ) -> Result<HandshakeSlot, ConnectionRefusal> {
        let network = Network::of(address);
        if self.rates.is_over(network) {
            return Err(ConnectionRefusal::TooOften);
        }
        let mut pending = self.pending.lock();
        let mut counts: HashMap<Network, usize> = HashMap::new();
        pending.iter().for_each(|one| *counts.entry(one.origin).or_default() += 1);
        let own = counts.get(&network).copied().unwrap_or_default();
        if own >= MAX_TCP_HANDSHAKES_OF_NETWORK {
            return Err(ConnectionRefusal::NoSlot);
        }
        if pending.len() >= MAX_TCP_HANDSHAKES {
            let most = counts.values().copied().max().unwrap_or_default();
            if most <= own {
                return Err(ConnectionRefusal::NoSlot);
            }
            let is_heavy = |network: &Network| counts.get(network) == Some(&most);
            let silent = pending.iter().position(|one| is_heavy(&one.origin) && !one.has_spoken());
            let oldest = || pending.iter().position(|one| is_heavy(&one.origin));
            let loser = silent.or_else(oldest).and_then(|loser| pending.remove(loser));
            loser.ok_or(ConnectionRefusal::NoSlot)?.evict();
        }
        Ok(HandshakeSlot::take(&self.pending, &mut pending, network, has_spoken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> NetworkSlots {
        NetworkSlots::new(RateLimit { per_second: 1_000, burst: 1_000 })
    }

    fn connect(slots: &NetworkSlots, ip: &str, has_spoken: bool) -> Option<HandshakeSlot> {
        slots.admit(SocketAddr::new(ip.parse().unwrap(), 1), has_spoken).ok()
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
}
