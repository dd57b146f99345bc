//! Asks name servers over UDP, and over TCP if an answer is too long.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{Family, Reading, question, read};
use super::resolv_conf::ResolvConf;

/// The longest answer over UDP, in bytes.
const MAX_DATAGRAM_BYTES: usize = 4096;

/// A name server's answer.
pub(super) enum Answer {
    /// The addresses of the name; there may be none.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
}

/// Why there is no address.
pub(super) enum Failure {
    /// The servers know none.
    NoAddress,
    /// Each server that answered says that it cannot.
    Refused,
    /// No server answered.
    Silent,
    /// The system does not let us ask.
    System(io::Error),
}

/// Asks the servers in order for a full name's addresses of both families, until one answers.
///
/// # Errors
/// If no server answers.
pub(super) async fn ask(config: &ResolvConf, name: &str, port: u16) -> Result<Answer, Failure> {
    let mut failure = Failure::Silent;
    for server in (0..config.attempts).flat_map(|_| &config.servers) {
        let server = SocketAddr::new(*server, port);
        let asked = |family| ask_server(config, server, name, family);
        let (four, six) = tokio::join!(asked(Family::V4), asked(Family::V6));
        match (four, six) {
            (Ok(Answer::NoName), Ok(Answer::NoName)) => return Ok(Answer::NoName),
            // A server that fails for one family knows the other's addresses all the same.
            (Ok(four), Err(_)) if !four.is_empty() => return Ok(four),
            (Err(_), Ok(six)) if !six.is_empty() => return Ok(six),
            (Ok(four), Ok(six)) => {
                let addresses = [four.into_addresses(), six.into_addresses()].concat();
                return Ok(Answer::Addresses(addresses));
            }
            (Err(fault), _) | (_, Err(fault)) => failure = fault,
        }
    }
    Err(failure)
}

impl Answer {
    fn is_empty(&self) -> bool {
        matches!(self, Self::NoName) || matches!(self, Self::Addresses(found) if found.is_empty())
    }

    fn into_addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::NoName => Vec::new(),
        }
    }
}

async fn ask_server(
    config: &ResolvConf,
    server: SocketAddr,
    name: &str,
    family: Family,
) -> Result<Answer, Failure> {
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(|_| Failure::Silent)?;
    let id = u16::from_be_bytes(id);
    // A name that cannot be asked for, such as one that is too long with a searched domain, does not exist.
    let Some(question) = question(id, name, family) else { return Ok(Answer::NoName) };
    let read = |bytes: &[u8]| read(bytes, id, name, family);
    let mut reading = Reading::Truncated;
    if !config.is_tcp_only {
        reading = in_time(config.wait, over_udp(server, &question, read)).await?;
    }
    if reading == Reading::Truncated {
        reading = in_time(config.wait, over_tcp(server, &question, read)).await?;
    }
    match reading {
        Reading::Addresses(addresses) => Ok(Answer::Addresses(addresses)),
        Reading::NoName => Ok(Answer::NoName),
        Reading::Other | Reading::Refused | Reading::Truncated => Err(Failure::Refused),
    }
}

async fn in_time(
    wait: Duration,
    asking: impl Future<Output = io::Result<Reading>>,
) -> Result<Reading, Failure> {
    match tokio::time::timeout(wait, asking).await {
        Err(_) => Err(Failure::Silent),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Failure::Silent),
        Ok(asked) => asked.map_err(Failure::System),
    }
}

/// The kernel chooses a random port, and lets in datagrams of this server only.
async fn over_udp(
    server: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Reading,
) -> io::Result<Reading> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match read(buffer.get(..length).unwrap_or_default()) {
            // Somebody guesses, or an answer is late.
            Reading::Other => {}
            reading => return Ok(reading),
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Reading,
) -> io::Result<Reading> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(read(&answer))
}
