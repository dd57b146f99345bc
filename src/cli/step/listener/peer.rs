//! The user at the other end of a connection on this machine: proc(5), `/proc/net/tcp` and `/proc/net/tcp6`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

/// Whether a connection is this user's. The kernel does not report the users of other networks: there the answer is
/// true, and the token alone protects. A peer at one of this machine's own addresses is not of another network.
pub fn is_of(uid: u32, peer: SocketAddr, own: SocketAddrV4) -> bool {
    let SocketAddr::V4(peer) = peer else { return false };
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return true };
    let find = |table: &str, mapped: &str| {
        owner(table, &format!("{mapped}{}", written(peer)), &format!("{mapped}{}", written(own)))
    };
    let found = find(&table, "").or_else(|| {
        // An IPv6 socket connects as ::ffff:a.b.c.d.
        let mapped = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff])];
        let mapped: String = mapped.iter().map(|word| format!("{word:08X}")).collect();
        find(&std::fs::read_to_string("/proc/net/tcp6").ok()?, &mapped)
    });
    match found {
        Some(owner) => owner == uid,
        None => !own.ip().is_loopback() && !is_own(*peer.ip()),
    }
}

/// An end as the kernel writes it: the address in the byte order of the machine, the port in network order.
fn written(end: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port())
}

/// Whether an address is this machine's own: only to those can a socket be bound, unless a sysctl allows others.
fn is_own(address: Ipv4Addr) -> bool {
    let any = std::fs::read_to_string("/proc/sys/net/ipv4/ip_nonlocal_bind");
    let is_strict = any.is_ok_and(|any| any.trim() == "0");
    address.is_loopback() || (is_strict && UdpSocket::bind((address, 0)).is_ok())
}

/// The user of the socket with these ends. None if it is not in the table.
fn owner(table: &str, local: &str, remote: &str) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let is_it = columns.next() == Some(local) && columns.next() == Some(remote);
        // State, queues, timer, retransmits, uid.
        if is_it { columns.nth(4)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_belongs_to_its_user_alone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let client = TcpStream::connect(address).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(is_of(own, client.local_addr().unwrap(), address));
        assert!(!is_of(own + 1, client.local_addr().unwrap(), address));
        // A connection that is not in the table, at this machine's own address and at a container's bridge.
        let nowhere = "172.17.0.2:1".parse().unwrap();
        assert!(!is_of(own, nowhere, address));
        assert!(is_of(own, nowhere, "172.17.0.1:80".parse().unwrap()));
        assert!(!is_of(own, "127.0.0.9:1".parse().unwrap(), "172.17.0.1:80".parse().unwrap()));
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:A0B1 01 00000000:00000000 00:00000000 00000000  1000        0 1 1\n";
        assert_eq!(owner(table, "0100007F:1F90", "0100007F:A0B1"), Some(1000));
        assert_eq!(owner(table, "0100007F:A0B1", "0100007F:1F90"), None);
    }

    #[test]
    fn a_connection_of_an_ipv6_socket_belongs_to_its_user() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { return };
        // Without IPv6 there is nothing to test.
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let Ok(_client) = TcpStream::connect((mapped, address.port())) else { return };
        let (_stream, peer) = listener.accept().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(is_of(own, peer, address) && !is_of(own + 1, peer, address));
    }
}
