//! Questions and answers of DNS (RFC 1035), by simple-dns.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

/// The shortest question and record, in bytes.
const MIN_ENTRY_BYTES: usize = 5;
const HEADER_BYTES: usize = 12;
/// The most aliases that are followed.
const MAX_ALIASES: usize = 16;

/// The kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn record(self) -> TYPE {
        match self {
            Self::V4 => TYPE::A,
            Self::V6 => TYPE::AAAA,
        }
    }
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Addresses; there may be none.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// It is no answer to this question.
    Other,
    /// The server does not answer the question.
    Refused,
    /// It is not complete.
    Truncated,
}

/// The question for a name's addresses of a family. `None` if no name has this form.
pub(super) fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let record = family.record().into();
    packet.questions.push(Question::new(Name::new(name).ok()?, record, CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// Reads an answer to this question.
pub(super) fn read(bytes: &[u8], id: u16, name: &str, family: Family) -> Reading {
    // The library makes room for as many entries as the header announces.
    let counts = bytes.get(4..HEADER_BYTES).unwrap_or_default().chunks_exact(2);
    let announced = counts.map(|count| match count {
        [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let room = bytes.len().saturating_sub(HEADER_BYTES) / MIN_ENTRY_BYTES;
    let (Ok(name), true) = (Name::new(name), announced.sum::<usize>() <= room) else {
        return Reading::Other;
    };
    let Some(packet) = Packet::parse(bytes).ok().filter(|packet| packet.id() == id) else {
        return Reading::Other;
    };
    let is_asked = |asked: &Question<'_>| {
        asked.qname == name
            && asked.qtype == family.record().into()
            && asked.qclass == CLASS::IN.into()
    };
    let is_answer = packet.has_flags(PacketFlag::RESPONSE);
    if !is_answer || packet.questions.len() != 1 || !packet.questions.iter().all(is_asked) {
        return Reading::Other;
    }
    match packet.rcode() {
        _ if packet.has_flags(PacketFlag::TRUNCATION) => Reading::Truncated,
        RCODE::NoError => Reading::Addresses(addresses(&packet, name, family)),
        RCODE::NameError => Reading::NoName,
        _ => Reading::Refused,
    }
}

/// The addresses of a name, and of the names that it is an alias of.
fn addresses(packet: &Packet<'_>, mut name: Name<'_>, family: Family) -> Vec<IpAddr> {
    for _ in 0..MAX_ALIASES {
        let of_name = || packet.answers.iter().filter(|record| record.name == name);
        let addresses = of_name().filter_map(|record| match (&record.rdata, family) {
            (RData::A(found), Family::V4) => Some(Ipv4Addr::from_bits(found.address).into()),
            (RData::AAAA(found), Family::V6) => Some(Ipv6Addr::from_bits(found.address).into()),
            _ => None,
        });
        let addresses: Vec<IpAddr> = addresses.collect();
        let alias = of_name().find_map(|record| match &record.rdata {
            RData::CNAME(alias) => Some(alias.0.clone().into_owned()),
            _ => None,
        });
        match alias {
            Some(alias) if addresses.is_empty() => name = alias,
            _ => return addresses,
        }
    }
    Vec::new()
}
