//! The resolver with name servers that a test scripts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// What a name server does with a question.
pub(in crate::egress) enum Script {
    /// Answers with these texts: an address or an alias.
    Says(Vec<&'static str>),
    Code(RCODE),
    Silent,
    /// Says over UDP that the answer is too long.
    TooLong(Vec<&'static str>),
    /// Sends a datagram of somebody else before the answer.
    Forged(Vec<&'static str>),
    Garbage,
}

/// A name server on loopback.
pub(in crate::egress) struct NameServer {
    directory: tempfile::TempDir,
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Answers questions for a name and the number of the question, by a script.
    pub(in crate::egress) async fn start(
        script: impl Fn(&str, usize) -> Script + Send + Sync + 'static,
    ) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(script);
        let counted = Arc::clone(&asked);
        let by_tcp = Arc::clone(&script);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let question = &buffer[..length];
                let count = counted.fetch_add(1, Ordering::SeqCst);
                for message in answers(question, &script(&name_in(question), count), false) {
                    udp.send_to(&message, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.unwrap();
                for message in answers(&question, &by_tcp(&name_in(&question), 0), true) {
                    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
                    stream.write_all(&message).await.unwrap();
                }
            }
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hosts"), "203.0.113.1 listed.example listed\n")
            .unwrap();
        let server = Self { directory, port, asked };
        server.configure("nameserver 127.0.0.1\n");
        server
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.directory.path().join("resolv.conf"), text).unwrap();
    }

    /// A resolver that asks this server only.
    pub(in crate::egress) fn resolver(&self) -> Resolver {
        let path = |name: &str| self.directory.path().join(name);
        Resolver::new(path("hosts"), path("resolv.conf"), self.port)
    }

    /// The number of questions so far, over UDP.
    pub(in crate::egress) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn look_up(&self, name: &str) -> Result<Vec<String>, EgressError> {
        let at = HostAndPort { host: name.parse().unwrap(), port: 443 };
        let found = self.resolver().look_up(name, &at).await;
        found.map(|found| found.iter().map(ToString::to_string).collect())
    }
}

fn name_in(question: &[u8]) -> String {
    Packet::parse(question).unwrap().questions[0].qname.to_string()
}

fn answers(question: &[u8], script: &Script, is_tcp: bool) -> Vec<Vec<u8>> {
    let asked = Packet::parse(question).unwrap();
    let bytes = |packet: &Packet<'_>| packet.build_bytes_vec_compressed().unwrap();
    let mut reply = Packet::new_reply(asked.id());
    reply.questions = asked.questions.clone();
    match script {
        Script::Silent => Vec::new(),
        Script::Garbage => vec![vec![0xff; 40], b"x".to_vec(), Vec::new(), bomb(asked.id())],
        Script::Code(code) => {
            *reply.rcode_mut() = *code;
            vec![bytes(&reply)]
        }
        Script::TooLong(_) if !is_tcp => {
            reply.set_flags(PacketFlag::TRUNCATION);
            vec![bytes(&reply)]
        }
        Script::Says(texts) | Script::TooLong(texts) => {
            add_records(&mut reply, texts);
            vec![bytes(&reply)]
        }
        Script::Forged(texts) => {
            let mut forged = reply.clone();
            forged.set_id(asked.id().wrapping_add(1));
            add_records(&mut forged, &["127.0.0.66"]);
            let mut other = reply.clone();
            other.questions[0].qname = Name::new("other.example").unwrap();
            add_records(&mut other, &["127.0.0.67"]);
            add_records(&mut reply, texts);
            vec![bytes(&forged), bytes(&other), bytes(&reply)]
        }
    }
}

/// A message that announces far more records than it has.
fn bomb(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat()
}

fn add_records<'a>(reply: &mut Packet<'a>, texts: &[&'a str]) {
    let asked = reply.questions[0].clone();
    let mut name = asked.qname;
    for text in texts {
        let data = match text.parse() {
            Ok(IpAddr::V4(address)) if asked.qtype == QTYPE::TYPE(TYPE::A) => {
                RData::A(A { address: address.to_bits() })
            }
            Ok(IpAddr::V6(address)) if asked.qtype == QTYPE::TYPE(TYPE::AAAA) => {
                RData::AAAA(AAAA { address: address.to_bits() })
            }
            Ok(_) => continue,
            Err(_) => RData::CNAME(CNAME(Name::new(text).unwrap())),
        };
        reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, data));
        if text.parse::<IpAddr>().is_err() {
            name = Name::new(text).unwrap();
        }
    }
}

#[tokio::test]
async fn both_families_are_asked_and_answer_in_turn() {
    let server =
        NameServer::start(|_, _| Script::Says(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"])).await;
    assert_eq!(
        server.look_up("a.example").await.unwrap(),
        ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    );
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn the_file_of_hosts_comes_before_name_servers() {
    let server = NameServer::start(|_, _| Script::Says(vec!["192.0.2.1"])).await;
    assert_eq!(server.look_up("listed.example").await.unwrap(), ["203.0.113.1"]);
    assert_eq!(server.look_up("localhost").await.unwrap(), ["::1", "127.0.0.1"]);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_asked_for_over_tcp() {
    let server = NameServer::start(|_, _| Script::TooLong(vec!["192.0.2.1"])).await;
    assert_eq!(server.look_up("a.example").await.unwrap(), ["192.0.2.1"]);
    server.configure("nameserver 127.0.0.1\noptions use-vc\n");
    assert_eq!(server.look_up("a.example").await.unwrap(), ["192.0.2.1"]);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn aliases_are_followed_and_a_circle_of_them_ends() {
    let server = NameServer::start(|name, _| match name {
        "a.example" => Script::Says(vec!["b.example", "c.example", "192.0.2.1"]),
        _ => Script::Says(vec!["circle.example", "other.example", "circle.example"]),
    })
    .await;
    assert_eq!(server.look_up("a.example").await.unwrap(), ["192.0.2.1"]);
    assert!(server.look_up("circle.example").await.is_err());
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_not_taken() {
    let server = NameServer::start(|_, _| Script::Forged(vec!["192.0.2.1"])).await;
    assert_eq!(server.look_up("a.example").await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn domains_are_searched_until_a_name_has_an_address() {
    let server = NameServer::start(|name, _| match name {
        "vault.b.example" => Script::Says(vec!["192.0.2.1"]),
        "vault.a.example" => Script::Says(vec![]),
        _ => Script::Code(RCODE::NameError),
    })
    .await;
    server.configure("nameserver 127.0.0.1\nsearch x.example a.example b.example\n");
    assert_eq!(server.look_up("vault").await.unwrap(), ["192.0.2.1"]);
    server.configure("nameserver 127.0.0.1\n");
    let told = server.look_up("vault").await.unwrap_err().to_string();
    assert_eq!(told, "vault:443: the name has no address");
}

#[tokio::test]
async fn a_silent_zone_leaves_others_their_places() {
    let server = NameServer::start(|name, _| match name {
        "silent.example" => Script::Silent,
        _ => Script::Says(vec!["192.0.2.1"]),
    })
    .await;
    let (resolver, port) = (server.resolver(), 443);
    let at = HostAndPort { host: "silent.example".parse().unwrap(), port };
    let silent = (0..2 * LOOK_UPS).map(|_| resolver.look_up("silent.example", &at));
    let silent = futures_util::future::select_all(silent.map(Box::pin));
    tokio::select! {
        biased;
        _ = silent => panic!("the other name waits for the silent zone"),
        found = resolver.look_up("a.example", &at) => assert_eq!(found.unwrap().len(), 1),
    }
    assert_eq!(server.asked(), 4, "each name is asked for once, by both families");
}

#[tokio::test]
async fn a_server_that_fails_is_passed_over() {
    // Nobody listens at the first address.
    let server = NameServer::start(|_, count| match count {
        0 | 1 => Script::Code(RCODE::ServerFailure),
        _ => Script::Says(vec!["192.0.2.1"]),
    })
    .await;
    server.configure("nameserver 127.0.0.53\nnameserver 127.0.0.1\n");
    assert_eq!(server.look_up("a.example").await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_server_without_an_answer_is_told_from_a_name_without_one() {
    let server = NameServer::start(|name, _| match name {
        "garbage.example" => Script::Garbage,
        "refused.example" => Script::Code(RCODE::Refused),
        "six.example" => Script::Says(vec!["2001:db8::1"]),
        _ => Script::Silent,
    })
    .await;
    server.configure("nameserver 127.0.0.1\noptions attempts:1\n");
    for (name, expected) in [
        ("silent.example", "no name server of /etc/resolv.conf answers about the name"),
        ("garbage.example", "no name server of /etc/resolv.conf answers about the name"),
        ("refused.example", "the name servers fail to resolve the name"),
    ] {
        let told = server.look_up(name).await.unwrap_err().to_string();
        assert_eq!(told, format!("{name}:443: {expected}"));
    }
    assert_eq!(server.look_up("six.example").await.unwrap(), ["2001:db8::1"]);
}
