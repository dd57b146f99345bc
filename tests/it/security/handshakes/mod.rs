//! Hundreds of wrong handshakes at both doors. The forger has the CA's own keys.

mod client;
mod ended;
mod forge;
mod hello;
mod hellos;
mod identities;
mod openssl;
mod world;

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::client::{Offer, Outcome, ask, client_hello, handshake, over, send_raw};
use self::forge::{Leaf, below};
use self::hello::{Hello, cut};
use self::world::{Door, World};
use crate::harness::{report, scale};

/// A series of attempts, and the attempts that were wrongly admitted.
struct Trial {
    world: World,
    refused: usize,
    faults: Vec<String>,
    /// The number of good requests that were served.
    served: usize,
}

impl Trial {
    fn start() -> Self {
        let mut trial = Self { world: World::start(), refused: 0, faults: Vec::new(), served: 0 };
        trial.is_alive();
        trial
    }

    /// The control: each door admits its good identity.
    fn is_alive(&mut self) {
        for door in Door::BOTH {
            let outcome = self.world.attempt(door, self.world.good(door));
            assert!(matches!(outcome, Outcome::Served), "{door:?}: {outcome:?}");
        }
        self.served += 1;
    }

    /// Notes the outcome of an attempt. After `came_before` the refusal may be that of a request.
    fn note(&mut self, what: &str, door: Door, came_before: bool, outcome: &Outcome) {
        let (is_refused, why) = match outcome {
            Outcome::Handshake(why) => (true, why.as_str()),
            Outcome::Request(reason) => (came_before, reason.as_str()),
            Outcome::Served => (false, "served"),
        };
        match is_refused {
            true => self.refused += 1,
            false => self.faults.push(format!("{door:?}, {what}: {why}")),
        }
    }

    fn attempt(&mut self, what: &str, door: Door, offer: Offer) {
        let outcome = self.world.attempt(door, offer);
        self.note(what, door, false, &outcome);
    }

    fn send(&mut self, what: &str, door: Door, bytes: &[u8], is_alert_due: bool) {
        let said = self.world.runtime.block_on(send_raw(&self.world.socket(door), bytes));
        match !is_alert_due || said.first() == Some(&21) {
            true => self.refused += 1,
            false => {
                self.faults.push(format!("{door:?}, {what}: no alert but {} bytes", said.len()));
            }
        }
    }

    /// Checks that nothing was admitted, that good clients still are, and that the daemon is alive.
    fn end(mut self, what: &str) {
        self.is_alive();
        assert!(
            self.faults.is_empty(),
            "{} of them:\n{}",
            self.faults.len(),
            self.faults.join("\n")
        );
        assert_eq!(self.world.decided(), self.served, "a request was looked at");
        let log = self.world.serving.log();
        assert!(!log.contains("panicked"), "{log}");
        let refused = self.refused;
        report(what, refused, format!("{refused} refused, 0 requests served, server alive"), "-");
        assert!(self.world.serving.terminate());
    }
}

#[test]
fn a_wrong_certificate_is_refused_at_both_doors() {
    let mut trial = Trial::start();
    for door in Door::BOTH {
        trial.attempt("nobody", door, Offer::nobody());
        for (what, change) in identities::CHANGES {
            let mut leaf = Leaf::of(door);
            change(&mut leaf);
            let offer = leaf.offer(&trial.world, door);
            trial.attempt(what, door, offer);
        }
        for id in identities::malformed_ids(door) {
            let offer = Leaf::with_id(door, &id).offer(&trial.world, door);
            let what = String::from_utf8_lossy(&id[..id.len().min(100)]).into_owned();
            trial.attempt(&what, door, offer);
        }
        for id in identities::others_ids(door) {
            let offer = Leaf::with_id(door, id.as_bytes()).offer(&trial.world, door);
            trial.attempt(&id, door, offer);
        }
    }
    trial.end("hostile handshakes: certificates");
}

#[test]
fn a_wrong_chain_is_refused_at_both_doors() {
    let mut trial = Trial::start();
    for door in Door::BOTH {
        for (what, offer) in chains(&trial.world, door) {
            trial.attempt(what, door, offer);
        }
    }
    trial.end("hostile handshakes: chains");
}

#[expect(clippy::too_many_lines, reason = "a table of chains")]
fn chains(world: &World, door: Door) -> Vec<(&'static str, Offer)> {
    let (home, other) = (world.home(door), world.home(door.other()));
    let good = || world.good(door);
    let (issuer, issuers) = below(world, door, 1);
    let leaf = || Leaf::of(door).signed_by(&issuer);
    let chain_of = |offer: Offer, more: &[CertificateDer<'static>]| {
        let chain = [&offer.chain[..], more].concat();
        offer.with_chain(chain)
    };
    let reversed = |offer: Offer| {
        let chain = offer.chain.iter().rev().cloned().collect();
        offer.with_chain(chain)
    };
    let (deep, many) = below(world, door, 20);
    let junk = vec![CertificateDer::from(vec![7; 10_000]); 105];
    let daemon = world.state().join("broker");
    vec![
        ("an issuer of its own, missing", leaf()),
        ("an issuer of its own", chain_of(leaf(), &issuers)),
        ("an issuer of its own, behind the root", {
            chain_of(leaf(), &[vec![world.root()], issuers.clone()].concat())
        }),
        ("20 issuers", chain_of(Leaf::of(door).signed_by(&deep), &many)),
        ("20 issuers without the first", { chain_of(Leaf::of(door).signed_by(&deep), &many[1..]) }),
        ("the issuer before the leaf", reversed(good())),
        ("no certificate at all", good().with_chain(Vec::new())),
        ("an empty certificate", good().with_chain(vec![CertificateDer::from(vec![])])),
        ("a certificate that is no DER", good().with_chain(junk[..1].to_vec())),
        ("1 MiB of certificates", chain_of(good(), &junk)),
        ("1 MiB of certificates before it", {
            good().with_chain([&junk[..], &good().chain].concat())
        }),
        ("a certificate of 1 MiB", {
            good().with_chain(vec![CertificateDer::from(vec![0x30; 1 << 20])])
        }),
        ("bytes behind the certificate", {
            let leaf = [good().chain[0].as_ref(), b"behind"].concat();
            good().with_chain(vec![CertificateDer::from(leaf)])
        }),
        ("a certificate that is cut off", {
            let leaf = good().chain[0].as_ref().to_vec();
            good().with_chain(vec![CertificateDer::from(leaf[..leaf.len() - 1].to_vec())])
        }),
        ("the key of another certificate", Offer::with_key_of(&home, &other)),
        ("the daemon's key", Offer::with_key_of(&home, &daemon)),
        ("the daemon's own certificate", Offer::in_directory(&daemon)),
        ("who is at home at the other door", Offer::in_directory(&other)),
        ("the root", world.member("root")),
        ("the door's own issuer", world.member(door.issuer())),
        ("the other door's issuer", world.member(door.other().issuer())),
        ("HTTP/1.1", good().speaking(&["http/1.1"])),
        ("no protocol", good().speaking(&[])),
    ]
}

/// The flips hit the name, the key and the signature.
#[test]
fn a_registered_certificate_with_one_bit_flipped_is_refused() {
    let mut trial = Trial::start();
    for door in Door::BOTH {
        let certificate = trial.world.good(door).chain[0].as_ref().to_vec();
        let step = (certificate.len() * 8).div_ceil(scale(60, 4000));
        for bit in (0..certificate.len() * 8).step_by(step) {
            let mut flipped = certificate.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let offer = trial.world.good(door).with_chain(vec![CertificateDer::from(flipped)]);
            let outcome = trial.world.attempt(door, offer);
            trial.note(&format!("bit {bit}"), door, false, &outcome);
        }
    }
    trial.end("hostile handshakes: bit flips of a certificate");
}

#[test]
fn a_wrong_hello_is_refused_at_both_doors() {
    let mut trial = Trial::start();
    for door in Door::BOTH {
        let bytes = client_hello(trial.world.root());
        let hello = Hello::parse(&bytes);
        assert_eq!(hello.bytes(), bytes, "the control: it is put together as it was");
        for (what, change) in hellos::REFUSED {
            let mut changed = hello.clone();
            change(&mut changed);
            trial.send(what, door, &changed.bytes(), true);
        }
        for (what, changed) in hellos::extensions_changed(&hello) {
            trial.send(&what, door, &changed.bytes(), false);
        }
        for (what, sent) in hellos::no_hellos(&bytes) {
            trial.send(what, door, &sent, false);
        }
        for (what, change) in hellos::PASSED_OVER {
            let offer = trial.world.good(door).edited(move |bytes| {
                let mut hello = Hello::parse(&bytes);
                change(&mut hello);
                hello.bytes()
            });
            trial.attempt(what, door, offer);
        }
    }
    trial.end("hostile handshakes: hellos");
}

#[test]
fn a_hello_that_ends_anywhere_ends_its_connection_only() {
    let mut trial = Trial::start();
    let bytes = client_hello(trial.world.root());
    let step = bytes.len().div_ceil(scale(50, 4000));
    for length in (0..bytes.len()).step_by(step) {
        for door in Door::BOTH {
            trial.send(&format!("{length} bytes"), door, &bytes[..length], false);
        }
    }
    trial.end("hostile handshakes: truncated hellos");
}

/// The client has a good certificate, and continues as if its first message had arrived unchanged.
#[test]
fn a_hello_with_bits_flipped_on_its_way_is_refused() {
    let mut trial = Trial::start();
    let mut random = Random(0x5eed);
    // Some attempts wait until the handshake's deadline, so many run at a time.
    for _ in 0..scale(100, 20_000).div_ceil(50) {
        let attempts: Vec<_> = (0..50)
            .map(|_| {
                let (seed, door) = (random.next(), Door::BOTH[random.below(2)]);
                let offer = trial.world.good(door).edited(move |bytes| flip(bytes, seed));
                let (socket, root) = (trial.world.socket(door), trial.world.root());
                let attempt = async move { client::attempt(&socket, door, root, offer).await };
                (seed, door, trial.world.runtime.spawn(attempt))
            })
            .collect();
        for (seed, door, attempt) in attempts {
            let outcome = trial.world.runtime.block_on(attempt).unwrap();
            trial.note(&format!("mutation {seed:#x}"), door, false, &outcome);
        }
    }
    trial.end("hostile handshakes: bit flips of a hello");
}

/// Flips one to eight bits, but not in the version of the record, which servers ignore (RFC 8446, 5.1).
fn flip(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    for _ in 0..=random.below(8) {
        let bit = random.below(bytes.len() * 8);
        if !(1..3).contains(&(bit / 8)) {
            bytes[bit / 8] ^= 1 << (bit % 8);
        } else {
            bytes[0] ^= 1;
        }
    }
    bytes
}

/// xorshift64: the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

#[test]
fn a_hello_in_fragments_of_any_size_is_no_attack() {
    let mut trial = Trial::start();
    let length = client_hello(trial.world.root()).len() - 5;
    let step = length.div_ceil(scale(50, 4000));
    let mut cuts: Vec<Vec<usize>> = (1..length).step_by(step).map(|place| vec![place]).collect();
    // One record for each byte, and some larger sizes.
    cuts.extend([1, 2, 7, 100].map(|size| (size..length).step_by(size).collect()));
    for places in &cuts {
        for door in Door::BOTH {
            let places = places.clone();
            let edit = move |hello: Vec<u8>| cut(&hello, &places);
            let outcome = trial.world.attempt(door, trial.world.good(door).edited(edit));
            assert!(matches!(outcome, Outcome::Served), "{door:?}: {outcome:?}");
        }
        trial.served += 1;
    }
    let count = cuts.len() * 2;
    report("fragmented hellos of good clients", count, format!("{count} served"), "-");
    trial.end("hostile handshakes: none but fragments");
}

/// A hello is not accepted again after the handshake.
#[test]
fn a_second_hello_after_the_handshake_ends_the_connection() {
    let mut trial = Trial::start();
    let root = trial.world.root();
    let hello = client_hello(root.clone());
    for door in Door::BOTH {
        for (what, is_below_tls) in [("as a record", true), ("as application data", false)] {
            let socket = trial.world.socket(door);
            let shaken = handshake(&socket, root.clone(), trial.world.good(door));
            let mut stream = trial.world.runtime.block_on(shaken).unwrap();
            let ended = trial.world.runtime.block_on(async {
                // The server's SETTINGS show that it accepted the handshake.
                assert!(stream.read_u8().await.is_ok());
                if is_below_tls {
                    stream.get_mut().0.inner().write_all(&hello).await.unwrap();
                } else {
                    stream.write_all(&hello).await.unwrap();
                    stream.flush().await.unwrap();
                }
                let mut said = Vec::new();
                let read = stream.read_to_end(&mut said);
                let ended = tokio::time::timeout(Duration::from_secs(60), read).await.is_ok();
                (ended, over(stream))
            });
            assert!(ended.0, "{what}: the connection goes on");
            let outcome = trial.world.runtime.block_on(ask(door, ended.1));
            trial.note(what, door, false, &outcome);
        }
    }
    trial.end("hostile handshakes: a second hello");
}

/// A client must show its certificate on each connection, because there is no session to resume.
#[test]
fn no_session_is_given_that_could_be_resumed() {
    let trial = Trial::start();
    for door in Door::BOTH {
        for _ in 0..3 {
            let socket = trial.world.socket(door);
            let shaken = handshake(&socket, trial.world.root(), trial.world.good(door));
            let mut stream = trial.world.runtime.block_on(shaken).unwrap();
            assert!(trial.world.runtime.block_on(stream.read_u8()).is_ok());
            let tls = stream.get_ref().1;
            assert_eq!(tls.tls13_tickets_received(), 0);
            assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
    trial.end("hostile handshakes: none but resumption");
}
