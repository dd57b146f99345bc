//! Whose the other end of a connection on this machine is: proc(5), `/proc/net/tcp`.

use std::net::SocketAddr;

/// Whether it is this user's. Where the kernel does not say, the token has to do.
pub fn is_of(uid: u32, peer: SocketAddr, port: u16) -> bool {
    let SocketAddr::V4(peer) = peer else { return false };
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return true };
    // Addresses are written as the machine's own numbers, ports are not.
    let address = |port: u16| format!("{:08X}:{port:04X}", u32::from_ne_bytes(peer.ip().octets()));
    owner(&table, &address(peer.port()), &address(port)) == Some(uid)
}

/// The user of the socket with these ends.
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
    fn a_connection_is_its_users_and_nobody_elses() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(is_of(own, client.local_addr().unwrap(), port));
        assert!(!is_of(own + 1, client.local_addr().unwrap(), port));
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:A0B1 01 00000000:00000000 00:00000000 00000000  1000        0 1 1\n";
        assert_eq!(owner(table, "0100007F:1F90", "0100007F:A0B1"), Some(1000));
        assert_eq!(owner(table, "0100007F:A0B1", "0100007F:1F90"), None);
    }
}
