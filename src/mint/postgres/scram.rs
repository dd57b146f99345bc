//! SCRAM-SHA-256 (RFC 5802, RFC 7677): what a server stores in place of a password, and what is shown for one.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// How often a new password is hashed: the least that clients accept (RFC 7677), such as PostgreSQL's JDBC driver. Passwords
/// are random, so that more would protect nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// How a password is hashed.
pub(super) struct Rounds {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: NonZeroU32,
}

/// A hashed password.
pub(super) struct Salted(Zeroizing<[u8; digest::SHA256_OUTPUT_LEN]>);

/// The keys of a password, by salt and count.
pub(super) struct Keys(hmac::Key);

impl Salted {
    /// Hashes a password. It takes a millisecond for four thousand rounds.
    pub(super) fn of(password: &[u8], rounds: &Rounds) -> Self {
        let mut salted = Zeroizing::new([0; digest::SHA256_OUTPUT_LEN]);
        let (algorithm, Rounds { salt, iterations }) = (pbkdf2::PBKDF2_HMAC_SHA256, rounds);
        pbkdf2::derive(algorithm, *iterations, salt, password, &mut *salted);
        Self(salted)
    }

    pub(super) fn from_bytes(bytes: [u8; digest::SHA256_OUTPUT_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; digest::SHA256_OUTPUT_LEN] {
        &self.0
    }
}

impl Keys {
    pub(super) fn of(salted: &Salted) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, salted.bytes()))
    }

    fn client_key(&self) -> hmac::Tag {
        hmac::sign(&self.0, b"Client Key")
    }

    fn server_key(&self) -> hmac::Tag {
        hmac::sign(&self.0, b"Server Key")
    }

    fn stored_key(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, self.client_key().as_ref())
    }

    /// The proof that the client knows the password, for the messages of a login.
    pub(super) fn proof(&self, messages: &str) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.stored_key().as_ref());
        let signed = hmac::sign(&key, messages.as_bytes());
        self.client_key().as_ref().iter().zip(signed.as_ref()).map(|(a, b)| a ^ b).collect()
    }

    /// True if `signature` proves that the server has a verifier of the password, for the messages of a login.
    pub(super) fn is_servers(&self, messages: &str, signature: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.server_key().as_ref());
        hmac::verify(&key, messages.as_bytes(), signature).is_ok()
    }
}

/// The verifier of a password of ASCII characters, in the form that PostgreSQL stores. A statement with the password itself
/// would write it into the server's log, too.
pub(super) fn verifier(password: &str, salt: &[u8; 16]) -> Zeroizing<String> {
    let rounds = Rounds { salt: salt.to_vec(), iterations: ITERATIONS };
    let keys = Keys::of(&Salted::of(password.as_bytes(), &rounds));
    let (stored, server) = (keys.stored_key(), keys.server_key());
    let [salt, stored, server] =
        [salt, stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    Zeroizing::new(format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The salt of the example of RFC 7677, whose password is "pencil".
    fn salt() -> Vec<u8> {
        STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()
    }

    #[test]
    fn the_verifier_is_the_one_that_postgresql_makes() {
        let made = verifier("pencil", salt().as_slice().try_into().unwrap());
        assert_eq!(
            made.as_str(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn the_proofs_are_those_of_the_example_of_rfc_7677() {
        let rounds = Rounds { salt: salt(), iterations: ITERATIONS };
        let keys = Keys::of(&Salted::of(b"pencil", &rounds));
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let messages = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
        );
        let proof = STANDARD.encode(keys.proof(&messages));
        assert_eq!(proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let mut signature =
            STANDARD.decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(keys.is_servers(&messages, &signature));
        signature[0] ^= 1;
        assert!(!keys.is_servers(&messages, &signature) && !keys.is_servers(&messages, b""));
    }
}
