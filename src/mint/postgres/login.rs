//! The login of the admin role. The broker proves that it knows the password, and never sends it: neither in clear text nor
//! as an MD5 hash. A server that asks for those may be anybody, even behind a right certificate.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::refusal::failure;
use super::remembered;
use super::scram::{Keys, Rounds};
use super::wire::{Fault, Message, Wire};
use crate::egress::HostAndPort;
use crate::mint::failure::{Failure, FailureReason};
use crate::seal::random;

/// How often a password is hashed, as the server says. Fewer rounds would help whoever guesses passwords from a proof. More
/// would let any server use up this machine.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=100_000;
/// The mechanisms (RFC 7677), without and with the binding to the connection.
const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// How a login is bound to its connection, so that no machine in between can pass it on.
pub(super) enum Binding {
    /// There is no TLS to bind it to.
    Plain,
    /// It is bound if the server offers that: the server's name has been verified. Hosts of databases and poolers that end TLS
    /// themselves do not offer it. `None` if the certificate has no hash.
    IfOffered(Option<Vec<u8>>),
    /// It must be bound, by this hash of the certificate: any server with a certificate of the same issuer might have answered.
    Always(Vec<u8>),
}

/// An admin role.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a [u8],
    pub(super) database: &'a str,
}

/// What the server asks for next (its documentation, 53.7).
enum Asked {
    /// Nothing more.
    Nothing,
    ClearText,
    Md5,
    /// One of these mechanisms.
    Mechanisms(Vec<u8>),
    /// The answer to this.
    Challenge(Vec<u8>),
    /// Nothing; this proves the server's side.
    Proof(Vec<u8>),
    Other,
}

/// Logs in.
///
/// # Errors
/// If the server refuses, or asks for anything but SCRAM-SHA-256, or does not prove that it knows the password. A server whose
/// name is verified may ask for nothing.
pub(super) async fn log_in(
    wire: &mut Wire,
    login: &Login<'_>,
    binding: &Binding,
    at: &HostAndPort,
) -> Result<(), Failure> {
    let broken = |fault| failure(at, &fault);
    let parameters = [
        ("client_encoding", "UTF8"),
        ("user", login.user),
        ("database", login.database),
        ("application_name", "keyhatch"),
        // A database's or a role's own settings are weaker.
        ("options", "-c default_transaction_read_only=off -c role=none"),
    ];
    wire.start(&parameters).await.map_err(broken)?;
    match asked(wire).await.map_err(broken)? {
        Asked::Nothing if matches!(binding, Binding::Always(_)) => return Err(not_bound(at)),
        Asked::Nothing if matches!(binding, Binding::Plain) => return Err(refused(at, NO_PROOF)),
        Asked::Nothing => {}
        Asked::Mechanisms(offered) => {
            let chosen = Chosen::of(&offered, binding, at)?;
            chosen.exchange(wire, login.password, at).await?;
            match asked(wire).await.map_err(broken)? {
                Asked::Nothing => {}
                _ => return Err(broken(Fault::NoProtocol)),
            }
        }
        Asked::ClearText => return Err(refused(at, CLEAR_TEXT)),
        Asked::Md5 => return Err(refused(at, MD5)),
        Asked::Challenge(_) | Asked::Proof(_) => return Err(broken(Fault::NoProtocol)),
        Asked::Other => return Err(refused(at, OTHER)),
    }
    match wire.receive().await.map_err(broken)? {
        // Ready for statements.
        Message { kind: b'Z', .. } => Ok(()),
        _ => Err(broken(Fault::NoProtocol)),
    }
}

async fn asked(wire: &mut Wire) -> Result<Asked, Fault> {
    let Message { kind: b'R', body } = wire.receive().await? else { return Err(Fault::NoProtocol) };
    let (code, rest) = body.split_first_chunk().ok_or(Fault::NoProtocol)?;
    let rest = rest.to_vec();
    Ok(match u32::from_be_bytes(*code) {
        0 => Asked::Nothing,
        3 => Asked::ClearText,
        5 => Asked::Md5,
        10 => Asked::Mechanisms(rest),
        11 => Asked::Challenge(rest),
        12 => Asked::Proof(rest),
        _ => Asked::Other,
    })
}

/// A mechanism, with the first part of its messages.
struct Chosen {
    mechanism: &'static str,
    /// Says whether the login is bound (RFC 5802, 6).
    header: &'static str,
    /// The hash that binds it; empty if it is not bound.
    hash: Vec<u8>,
}

impl Chosen {
    fn of(offered: &[u8], binding: &Binding, at: &HostAndPort) -> Result<Self, Failure> {
        let offers =
            |name: &str| offered.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
        let bound = |hash: &[u8]| {
            let header = "p=tls-server-end-point,,";
            Ok(Self { mechanism: SCRAM_PLUS, header, hash: hash.to_vec() })
        };
        let header = match binding {
            Binding::IfOffered(Some(hash)) | Binding::Always(hash) if offers(SCRAM_PLUS) => {
                return bound(hash);
            }
            Binding::Always(_) => return Err(not_bound(at)),
            // A server that has offered it notices that its offer was lost on the way.
            Binding::IfOffered(Some(_)) => "y,,",
            Binding::IfOffered(None) | Binding::Plain => "n,,",
        };
        match offers(SCRAM) {
            true => Ok(Self { mechanism: SCRAM, header, hash: Vec::new() }),
            false => Err(refused(at, OTHER)),
        }
    }

    /// Proves that the broker knows the password, and has the server prove it, too.
    async fn exchange(
        &self,
        wire: &mut Wire,
        password: &[u8],
        at: &HostAndPort,
    ) -> Result<(), Failure> {
        let broken = |fault| failure(at, &fault);
        let nonce = random::<18>()
            .map_err(|_| Failure::new(FailureReason::Unavailable, "there are no random numbers"))?;
        let nonce = STANDARD.encode(nonce);
        let first = format!("n=,r={nonce}");
        wire.send(b'p', &self.initial(&first)).await.map_err(broken)?;
        let Asked::Challenge(challenge) = asked(wire).await.map_err(broken)? else {
            return Err(broken(Fault::NoProtocol));
        };
        let challenge = String::from_utf8(challenge).map_err(|_| broken(Fault::NoProtocol))?;
        let Challenge { nonce, salt, iterations } =
            Challenge::parse(&challenge, &nonce).ok_or_else(|| broken(Fault::NoProtocol))?;
        let iterations = NonZeroU32::new(iterations).filter(|n| ITERATIONS.contains(&n.get()));
        let iterations = iterations.ok_or_else(|| refused(at, ROUNDS))?;
        let keys = keys(password, Rounds { salt, iterations }).await.map_err(broken)?;
        let bound = STANDARD.encode([self.header.as_bytes(), &self.hash].concat());
        let last = format!("c={bound},r={nonce}");
        let messages = format!("{first},{challenge},{last}");
        let proof = STANDARD.encode(keys.proof(&messages));
        wire.send(b'p', format!("{last},p={proof}").as_bytes()).await.map_err(broken)?;
        let Asked::Proof(proof) = asked(wire).await.map_err(broken)? else {
            return Err(broken(Fault::NoProtocol));
        };
        let signature = proof.strip_prefix(b"v=").and_then(|text| STANDARD.decode(text).ok());
        match signature.is_some_and(|signature| keys.is_servers(&messages, &signature)) {
            true => Ok(()),
            false => Err(refused(at, IMPOSTOR)),
        }
    }

    /// The first answer: the mechanism, and the first message behind its length.
    fn initial(&self, first: &str) -> Vec<u8> {
        let message = format!("{}{first}", self.header);
        let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
        [self.mechanism.as_bytes(), b"\0", &length, message.as_bytes()].concat()
    }
}

/// What a server says of its verifier.
struct Challenge<'a> {
    /// The broker's nonce, and the server's after it.
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> Challenge<'a> {
    /// `None` if it is malformed, or does not begin with the broker's nonce.
    fn parse(text: &'a str, nonce: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let mut next = |name: &str| parts.next()?.strip_prefix(name);
        let both = next("r=").filter(|both| both.len() > nonce.len() && both.starts_with(nonce))?;
        let salt = STANDARD.decode(next("s=")?).ok()?;
        let iterations = next("i=")?.parse().ok()?;
        Some(Self { nonce: both, salt, iterations })
    }
}

/// Hashes the password away from the threads that serve others.
async fn keys(password: &[u8], rounds: Rounds) -> Result<Keys, Fault> {
    // Servers prepare their passwords like that, or take those that have no such form as they are (RFC 4013).
    let prepared =
        std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    let prepared =
        prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes());
    let prepared = Zeroizing::new(prepared);
    let hashing = move || Keys::of(&remembered::hash(&prepared, &rounds));
    // It fails only if the daemon stops.
    tokio::task::spawn_blocking(hashing).await.map_err(|_| Fault::Broken)
}

fn refused(at: &HostAndPort, text: &str) -> Failure {
    Failure::new(FailureReason::Refused, format!("{at}: {text}"))
}

/// The login cannot be bound to its connection, but must be.
pub(super) fn not_bound(at: &HostAndPort) -> Failure {
    refused(at, NOT_BOUND)
}

const CLEAR_TEXT: &str = "the server asks for the admin password in clear text, which the broker never sends; let the server's \
                          pg_hba.conf ask the admin role for scram-sha-256";
const MD5: &str = "the server asks for an MD5 hash of the admin password, which the broker never sends; set \
                   password_encryption = 'scram-sha-256', set the admin role's password again, and let pg_hba.conf ask the \
                   admin role for scram-sha-256";
const OTHER: &str = "the server asks for a login other than a password; let its pg_hba.conf ask the admin role for \
                     scram-sha-256";
const NOT_BOUND: &str = "the server does not bind the login to the TLS connection (SCRAM-SHA-256-PLUS), which sslmode verify-ca \
                         needs because any server of that authority could have answered; write sslmode verify-full";
const NO_PROOF: &str = "the server asks for no password, so that it proves nothing, and without TLS any machine may answer in its \
                        place; let its pg_hba.conf ask the admin role for scram-sha-256, or use sslmode verify-full";
const ROUNDS: &str = "the server wants the admin password hashed in fewer than 4096 or more than 100000 rounds; set \
                      scram_iterations, and set the admin role's password again";
const IMPOSTOR: &str = "the server does not prove that it knows the admin password, so that another machine may answer in its \
                        place; check host, port and network";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_begins_with_the_brokers_nonce() {
        let parse = |text| Challenge::parse(text, "abc");
        let read = parse("r=abcXYZ,s=c2FsdA==,i=4096").unwrap();
        assert_eq!(
            (read.nonce, read.salt.as_slice(), read.iterations),
            ("abcXYZ", &b"salt"[..], 4096)
        );
        for odd in [
            "",
            "r=abc,s=c2FsdA==,i=4096",
            "r=xyzabc,s=c2FsdA==,i=4096",
            "r=abcXYZ,s=c2FsdA==",
            "r=abcXYZ,s=?,i=4096",
            "r=abcXYZ,s=c2FsdA==,i=99999999999",
            "m=ext,r=abcXYZ,s=c2FsdA==,i=4096",
        ] {
            assert!(parse(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn a_login_is_bound_where_it_can_be() {
        let at: HostAndPort = "db.example:5432".parse().unwrap();
        let hash = || vec![7];
        let chosen = |offered: &str, binding: &Binding| {
            let chosen = Chosen::of(offered.as_bytes(), binding, &at).ok()?;
            Some(format!("{} {}", chosen.mechanism, chosen.header))
        };
        let (both, plain) = ("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", "SCRAM-SHA-256\0\0");
        let bound = "SCRAM-SHA-256-PLUS p=tls-server-end-point,,";
        for (offered, binding, expected) in [
            (both, Binding::IfOffered(Some(hash())), Some(bound)),
            (both, Binding::IfOffered(None), Some("SCRAM-SHA-256 n,,")),
            (both, Binding::Always(hash()), Some(bound)),
            (both, Binding::Plain, Some("SCRAM-SHA-256 n,,")),
            (plain, Binding::IfOffered(Some(hash())), Some("SCRAM-SHA-256 y,,")),
            (plain, Binding::Always(hash()), None),
            ("OAUTHBEARER\0\0", Binding::Plain, None),
            ("", Binding::IfOffered(Some(hash())), None),
        ] {
            assert_eq!(chosen(offered, &binding).as_deref(), expected, "{offered}");
        }
    }
}
