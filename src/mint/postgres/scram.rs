//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), in the form that PostgreSQL stores. A statement with the password itself
//! would write it into the server's log, too.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// How often the password is hashed: the least that clients accept (RFC 7677).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// The verifier of a password of ASCII characters, which need no further preparation (RFC 4013).
pub(super) fn verifier(password: &str, salt: &[u8; 16]) -> Zeroizing<String> {
    let mut salted = Zeroizing::new([0; digest::SHA256_OUTPUT_LEN]);
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, ITERATIONS, salt, password.as_bytes(), &mut *salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    let [salt, stored, server] = [salt.as_slice(), stored_key.as_ref(), server_key.as_ref()]
        .map(|bytes| STANDARD.encode(bytes));
    Zeroizing::new(format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_the_one_that_postgresql_makes() {
        // The salt and keys of the example of RFC 7677, whose password is "pencil".
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = verifier("pencil", salt.as_slice().try_into().unwrap());
        assert_eq!(
            made.as_str(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
