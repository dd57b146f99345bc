//! What a client signs to log in with a public key: RFC 4252, section 7, and OpenSSH's form with the host's key in it
//! (PROTOCOL, 3.1).
//!
//! The broker signs nothing else. A signature of other bytes could be a commit, a file or another host's login.

use super::wire::{Malformed, Reader};

/// The longest request, in bytes.
pub const MAX_LOGIN_BYTES: usize = 16 * 1024;
/// The longest name of a user, in bytes. The journal has it in a line.
pub const MAX_USER_BYTES: usize = 256;
/// `SSH_MSG_USERAUTH_REQUEST`
const USERAUTH_REQUEST: u8 = 50;
/// The lengths of the hashes of key exchanges: SHA-1, SHA-256, SHA-384, SHA-512.
const SESSION_BYTES: [usize; 4] = [20, 32, 48, 64];
const PLAIN: &str = "publickey";
const HOST_BOUND: &str = "publickey-hostbound-v00@openssh.com";
/// The beginning of what `ssh-keygen -Y sign` and git sign: PROTOCOL.sshsig.
const SSHSIG: &[u8] = b"SSHSIG";

/// An algorithm of signatures. There is none with SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `ecdsa-sha2-nistp256`
    EcdsaP256,
    /// `ecdsa-sha2-nistp384`
    EcdsaP384,
    /// `ecdsa-sha2-nistp521`
    EcdsaP521,
    /// `ssh-ed25519`
    Ed25519,
    /// `rsa-sha2-256`
    RsaSha256,
    /// `rsa-sha2-512`
    RsaSha512,
}

impl Algorithm {
    const ALL: [Self; 6] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Ed25519,
        Self::RsaSha256,
        Self::RsaSha512,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::Ed25519 => "ssh-ed25519",
            Self::RsaSha256 => "rsa-sha2-256",
            Self::RsaSha512 => "rsa-sha2-512",
        }
    }

    /// The type of its keys.
    pub const fn key_type(self) -> &'static str {
        match self {
            Self::RsaSha256 | Self::RsaSha512 => "ssh-rsa",
            other => other.name(),
        }
    }
}

/// A request to log in that awaits its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    data: Vec<u8>,
    user: String,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    host_key: Option<Vec<u8>>,
}

/// Why bytes are no request that the broker signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALogin {
    /// They are a signature of `ssh-keygen -Y sign`.
    #[error(
        "the data is an SSHSIG, as git signs commits; the broker signs logins only, because a signature of anything \
         else says more than the operator has allowed"
    )]
    Sshsig,
    /// The signature would be one with SHA-1.
    #[error(
        "the login asks for ssh-rsa, which is a signature with SHA-1; use a client that knows rsa-sha2-256"
    )]
    Sha1,
    /// The key is a certificate.
    #[error("the login is with a certificate; the connection has a key alone")]
    Certificate,
    /// The user's name is longer than any account's.
    #[error("the login names a user of more than 256 bytes; log in as a user with a shorter name")]
    LongUser,
    /// They are something else.
    #[error(
        "the data is no SSH login by public key (RFC 4252, section 7); the broker signs nothing else"
    )]
    Other,
}

impl From<Malformed> for NotALogin {
    fn from(Malformed: Malformed) -> Self {
        Self::Other
    }
}

impl LoginRequest {
    /// What is signed: the whole request.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The user of the server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The algorithm of the signature.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The host's key, if the signature is for this host alone.
    pub fn host_key(&self) -> Option<&[u8]> {
        self.host_key.as_deref()
    }

    /// Parses the bytes that a client wants signed.
    ///
    /// # Errors
    /// If they are anything but one whole request, for `ssh-connection`, with a key and an algorithm that fit.
    pub fn parse(data: Vec<u8>) -> Result<Self, NotALogin> {
        if data.starts_with(SSHSIG) {
            return Err(NotALogin::Sshsig);
        }
        let mut reader = Reader::new(&data);
        let is_session = SESSION_BYTES.contains(&reader.string()?.len());
        let is_request = reader.byte()? == USERAUTH_REQUEST;
        let user = reader.text()?;
        let is_connection = reader.string()? == b"ssh-connection";
        let method = reader.text()?;
        let is_signed = reader.boolean()?;
        let algorithm = reader.text()?;
        let public_key = reader.string()?;
        let host_key = match method {
            PLAIN => None,
            HOST_BOUND => Some(reader.string()?).filter(|key| !key.is_empty()),
            _ => return Err(NotALogin::Other),
        };
        reader.end()?;
        let is_bound = method == PLAIN || host_key.is_some();
        let is_whole = is_session && is_request && is_connection && is_signed && is_bound;
        let is_short = data.len() <= MAX_LOGIN_BYTES;
        if !is_whole || !is_short || user.is_empty() || user.chars().any(char::is_control) {
            return Err(NotALogin::Other);
        }
        if user.len() > MAX_USER_BYTES {
            return Err(NotALogin::LongUser);
        }
        let key_type = Reader::new(public_key).text()?;
        if algorithm == "ssh-rsa" {
            return Err(NotALogin::Sha1);
        }
        if algorithm.contains("-cert-v01@") {
            return Err(NotALogin::Certificate);
        }
        let known = Algorithm::ALL.into_iter().find(|known| known.name() == algorithm);
        let algorithm =
            known.filter(|known| known.key_type() == key_type).ok_or(NotALogin::Other)?;
        let (user, public_key) = (user.to_owned(), public_key.to_vec());
        let host_key = host_key.map(<[u8]>::to_vec);
        Ok(Self { user, algorithm, public_key, host_key, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::put_string;
    use super::*;

    fn key(kind: &str) -> Vec<u8> {
        let mut key = Vec::new();
        put_string(&mut key, kind.as_bytes());
        put_string(&mut key, &[7; 32]);
        key
    }

    /// A request of these parts: session, number, user, service, method, signed, algorithm, key, host's key.
    struct Parts<'a> {
        session: usize,
        number: u8,
        user: &'a str,
        service: &'a str,
        method: &'a str,
        signed: u8,
        algorithm: &'a str,
        kind: &'a str,
        host_key: Option<&'a [u8]>,
    }

    const GOOD: Parts<'_> = Parts {
        session: 32,
        number: 50,
        user: "git",
        service: "ssh-connection",
        method: PLAIN,
        signed: 1,
        algorithm: "ssh-ed25519",
        kind: "ssh-ed25519",
        host_key: None,
    };

    impl Parts<'_> {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            put_string(&mut bytes, &vec![9; self.session]);
            bytes.push(self.number);
            put_string(&mut bytes, self.user.as_bytes());
            put_string(&mut bytes, self.service.as_bytes());
            put_string(&mut bytes, self.method.as_bytes());
            bytes.push(self.signed);
            put_string(&mut bytes, self.algorithm.as_bytes());
            put_string(&mut bytes, &key(self.kind));
            self.host_key.iter().for_each(|key| put_string(&mut bytes, key));
            bytes
        }

        fn fault(&self) -> Option<NotALogin> {
            LoginRequest::parse(self.bytes()).err()
        }
    }

    #[test]
    fn a_login_is_understood_with_and_without_its_host() {
        let plain = LoginRequest::parse(GOOD.bytes()).unwrap();
        assert_eq!((plain.user(), plain.algorithm()), ("git", Algorithm::Ed25519));
        assert_eq!((plain.public_key(), plain.host_key()), (&*key("ssh-ed25519"), None));
        assert_eq!(plain.data(), GOOD.bytes());
        let bound = Parts { method: HOST_BOUND, host_key: Some(b"host"), ..GOOD }.bytes();
        let bound = LoginRequest::parse(bound).unwrap();
        assert_eq!((bound.user(), bound.host_key()), ("git", Some(&b"host"[..])));
        let rsa = Parts { kind: "ssh-rsa", algorithm: "rsa-sha2-512", ..GOOD };
        assert_eq!(rsa.fault(), None);
    }

    #[test]
    fn nothing_but_a_login_is_signed() {
        use NotALogin::{Certificate, LongUser, Other, Sha1, Sshsig};
        let mut sshsig = SSHSIG.to_vec();
        put_string(&mut sshsig, b"git");
        assert_eq!(LoginRequest::parse(sshsig), Err(Sshsig));
        for any in [&b""[..], b"x", &[0; 64], b"\x00\x00\x00\x05hello"] {
            assert_eq!(LoginRequest::parse(any.to_vec()), Err(Other), "{any:?}");
        }
        for (parts, fault) in [
            (Parts { session: 0, ..GOOD }, Other),
            (Parts { session: 33, ..GOOD }, Other),
            (Parts { number: 51, ..GOOD }, Other),
            (Parts { user: "", ..GOOD }, Other),
            (Parts { user: "a\nb", ..GOOD }, Other),
            (Parts { service: "ssh-userauth", ..GOOD }, Other),
            (Parts { method: "password", ..GOOD }, Other),
            (Parts { method: "hostbased", ..GOOD }, Other),
            (Parts { method: HOST_BOUND, ..GOOD }, Other),
            (Parts { method: HOST_BOUND, host_key: Some(b""), ..GOOD }, Other),
            (Parts { host_key: Some(b"host"), ..GOOD }, Other),
            (Parts { signed: 0, ..GOOD }, Other),
            (Parts { signed: 2, ..GOOD }, Other),
            (Parts { algorithm: "ecdsa-sha2-nistp256", ..GOOD }, Other),
            (Parts { algorithm: "rsa-sha2-256", ..GOOD }, Other),
            (Parts { algorithm: "ssh-rsa", kind: "ssh-rsa", ..GOOD }, Sha1),
            (Parts { algorithm: "ssh-ed25519-cert-v01@openssh.com", ..GOOD }, Certificate),
            (Parts { kind: "ssh-ed25519-cert-v01@openssh.com", ..GOOD }, Other),
            (Parts { algorithm: "ssh-ed25519-cert", ..GOOD }, Other),
        ] {
            assert_eq!(parts.fault(), Some(fault), "{}", parts.method);
        }
        for (length, fault) in [
            (MAX_USER_BYTES, None),
            (MAX_USER_BYTES + 1, Some(LongUser)),
            (MAX_LOGIN_BYTES, Some(Other)),
        ] {
            assert_eq!(Parts { user: &"u".repeat(length), ..GOOD }.fault(), fault, "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_login_with_any_change_is_another_login_or_none(
            at in 0_usize..200, byte: u8, cut in 0_usize..200, more in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let good = Parts { method: HOST_BOUND, host_key: Some(b"host"), ..GOOD }.bytes();
            let mut changed = good.clone();
            changed.truncate(good.len().saturating_sub(cut % 4));
            changed.extend(&more);
            if let Some(old) = changed.get_mut(at) {
                *old = byte;
            }
            if let Ok(login) = LoginRequest::parse(changed.clone()) {
                // The parts alone make the same bytes, but for the session, which no parser knows.
                let host_key = login.host_key();
                let parts = Parts { method: HOST_BOUND, user: login.user(), host_key, ..GOOD };
                let tail = |bytes: &[u8]| bytes[4 + 32..].to_vec();
                prop_assert_eq!(tail(&changed).len(), tail(&parts.bytes()).len());
                if login.public_key() == key("ssh-ed25519") {
                    prop_assert_eq!(tail(&changed), tail(&parts.bytes()));
                }
            }
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = LoginRequest::parse(bytes);
        }
    }
}
