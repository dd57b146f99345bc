//! The IPv4 addresses that an IPv6 address stands for. A translator or a tunnel on the way may take a packet to any of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address, and every IPv4 address within it. An IPv4-mapped address is its IPv4 address only.
pub fn readings(address: IpAddr) -> Vec<IpAddr> {
    let address = address.to_canonical();
    let mut readings = vec![address];
    if let IpAddr::V6(address) = address {
        readings.extend(embedded(address).into_iter().map(IpAddr::V4));
    }
    readings
}

fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [_, _, c, d, e, f, g, h, _, j, k, l, m, n, o, p] = address.octets();
    let last = Ipv4Addr::new(m, n, o, p);
    match address.segments() {
        // Unspecified and loopback are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Vec::new(),
        // IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765), and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            vec![last]
        }
        // NAT64 of a network's own (RFC 8215). Its prefix has 48, 56, 64 or 96 bits, and we do not know which. A reading
        // that begins with zero is of the wrong length, unless all readings do.
        [0x64, 0xff9b, 1, ..] => {
            let mut all = vec![
                last,
                Ipv4Addr::new(g, h, j, k),
                Ipv4Addr::new(h, j, k, l),
                Ipv4Addr::new(j, k, l, m),
            ];
            if all.iter().any(|reading| !is_zero_net(reading)) {
                all.retain(|reading| !is_zero_net(reading));
            }
            all
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![Ipv4Addr::new(c, d, e, f)],
        // Teredo (RFC 4380): the server, and the client with its bits turned round.
        [0x2001, 0, ..] => vec![Ipv4Addr::new(e, f, g, h), Ipv4Addr::from_bits(!last.to_bits())],
        _ => Vec::new(),
    }
}

fn is_zero_net(address: &Ipv4Addr) -> bool {
    address.octets().first() == Some(&0)
}
