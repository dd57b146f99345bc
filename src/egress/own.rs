//! Whether an address is this host's.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use rustix::io::Errno;

use crate::sys::input;

/// Addresses for documentation (RFC 5737, RFC 3849), which no host has.
const NOBODYS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODYS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The kernel's lists of this host's addresses, and the longest that is read, in bytes.
const LIST_V4: &str = "/proc/net/fib_trie";
const LIST_V6: &str = "/proc/net/if_inet6";
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// True if the address is one of this host's, now. A socket can be bound to those only, so the kernel is asked by binding
/// one. It needs no rights, and it knows addresses that no interface lists.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn is_own(address: IpAddr) -> io::Result<bool> {
    if !can_bind(address)? {
        return Ok(false);
    }
    let nobodys = match address {
        IpAddr::V4(_) => NOBODYS_V4.into(),
        IpAddr::V6(_) => NOBODYS_V6.into(),
    };
    // With the setting ip_nonlocal_bind, a socket can be bound to every address.
    if address == nobodys || can_bind(nobodys)? {
        return is_listed(address);
    }
    Ok(true)
}

fn can_bind(address: IpAddr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Ok(false),
        // A process without this family has no address of it, and cannot dial one.
        Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_listed(address: IpAddr) -> io::Result<bool> {
    let read = |path: &str| input::text(input::file(Path::new(path), MAX_LIST_BYTES)?);
    Ok(match address {
        IpAddr::V4(address) => is_in_trie(&read(LIST_V4)?, address),
        IpAddr::V6(address) => is_in_interfaces(&read(LIST_V6)?, address),
    })
}

/// The list has a line `|-- ADDRESS`, and below that lines such as `/32 host LOCAL`.
fn is_in_trie(list: &str, address: Ipv4Addr) -> bool {
    let mut first = None;
    list.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["|--", address] = words.as_slice() {
            first = address.parse::<Ipv4Addr>().ok();
        }
        let bits = match words.as_slice() {
            [bits, .., "LOCAL"] => bits.strip_prefix('/').and_then(|bits| bits.parse::<u32>().ok()),
            _ => None,
        };
        let (Some(first), Some(bits)) = (first, bits) else { return false };
        let differing = first.to_bits() ^ address.to_bits();
        differing.checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0) == 0
    })
}

/// Each line begins with an address of 32 digits.
fn is_in_interfaces(list: &str, address: Ipv6Addr) -> bool {
    list.lines()
        .filter_map(|line| line.get(..32))
        .any(|digits| u128::from_str_radix(digits, 16).is_ok_and(|bits| bits == address.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_this_host_are_known() {
        for own in ["127.0.0.1", "127.200.3.4"] {
            assert!(is_own(own.parse().unwrap()).unwrap(), "{own}");
        }
        for other in ["192.0.2.77", "8.8.8.8"] {
            assert!(!is_own(other.parse().unwrap()).unwrap(), "{other}");
        }
        // The address from which this host would reach the Internet, if it has a way there.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.77:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_own(own).unwrap() && is_listed(own).unwrap(), "{own}");
        }
    }

    #[test]
    fn the_kernels_lists_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    \u{20}    |-- 10.1.0.0\n        /16 host LOCAL\n     |-- 172.17.0.2\n        /32 host LOCAL\n\
                    \u{20}    |-- 172.17.255.255\n        /32 link BROADCAST\n";
        for (address, expected) in [
            ("10.1.200.9", true),
            ("172.17.0.2", true),
            ("10.2.0.1", false),
            ("172.17.255.255", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_in_trie(trie, address.parse().unwrap()), expected, "{address}");
        }
        let interfaces = "fe80000000000000001122fffe334455 02 40 20 80 eth0\n\
                          20010db8000000000000000000000005 02 40 00 80 eth0\n";
        for (address, expected) in [("2001:db8::5", true), ("2001:db8::6", false)] {
            assert_eq!(
                is_in_interfaces(interfaces, address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
