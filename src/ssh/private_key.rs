//! Private keys, and their signatures. The key is parsed for one signature and wiped: aws-lc-rs wipes its part, and the
//! allocator wipes every block that is freed.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::host_keys::decoded;
use super::login::Algorithm;
use super::remainder::modulo_one_less;
use super::wire::{Malformed, Reader, put_positive, put_string};
use crate::identity::private_key_der;

const BEGIN_OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END_OPENSSH: &str = "-----END OPENSSH PRIVATE KEY-----";
/// The beginning of OpenSSH's format, once decoded: PROTOCOL.key.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// What other formats have in them if the key is encrypted.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Why a key cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is encrypted.
    #[error("is encrypted with a passphrase; write it without: ssh-keygen -p -N '' -f FILE")]
    Encrypted,
    /// It is no key, or a damaged one.
    #[error("is no private key in OpenSSH's format, PKCS#8, PKCS#1 or SEC1, or it is damaged")]
    Malformed,
    /// Its type signs nothing here.
    #[error(
        "is of another type than ed25519, ECDSA on P-256, P-384 or P-521, and RSA of 2048 to 8192 bits"
    )]
    Unsupported,
}

impl From<Malformed> for KeyFault {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// A curve of ECDSA keys (RFC 5656, section 10.1).
#[derive(Clone, Copy)]
struct Curve {
    name: &'static str,
    signs: Algorithm,
    algorithm: &'static EcdsaSigningAlgorithm,
    /// The length of a private key, and of each half of a signature.
    bytes: usize,
}

const CURVES: [Curve; 3] = [
    Curve {
        name: "nistp256",
        signs: Algorithm::EcdsaP256,
        algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING,
        bytes: 32,
    },
    Curve {
        name: "nistp384",
        signs: Algorithm::EcdsaP384,
        algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING,
        bytes: 48,
    },
    Curve {
        name: "nistp521",
        signs: Algorithm::EcdsaP521,
        algorithm: &ECDSA_P521_SHA512_FIXED_SIGNING,
        bytes: 66,
    },
];

/// A private key that signs logins.
pub struct SigningKey(Pair);

enum Pair {
    Ecdsa(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Parses a private key: PEM in OpenSSH's format, PKCS#8, PKCS#1 or SEC1, or the Base64 of one.
    ///
    /// # Errors
    /// Why it cannot sign.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFault> {
        let text = decoded(text);
        let text = std::str::from_utf8(&text).map_err(|_| KeyFault::Malformed)?;
        if let Some((_, rest)) = text.split_once(BEGIN_OPENSSH) {
            let (encoded, _) = rest.split_once(END_OPENSSH).ok_or(KeyFault::Malformed)?;
            let lines: Zeroizing<String> = Zeroizing::new(encoded.split_whitespace().collect());
            let key = STANDARD.decode(lines.as_bytes()).map_err(|_| KeyFault::Malformed)?;
            return openssh(&Zeroizing::new(key)).map(Self);
        }
        if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
            return Err(KeyFault::Encrypted);
        }
        let der = private_key_der(text.as_bytes()).map_err(|_| KeyFault::Malformed)?;
        of_der(&der).map(Self).ok_or(KeyFault::Unsupported)
    }

    /// The public key, as SSH writes it (RFC 4253, section 6.6).
    ///
    /// # Errors
    /// If the crypto library has no public key of it.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyFault> {
        let mut key = Vec::new();
        match &self.0 {
            Pair::Ecdsa(curve, pair) => {
                put_string(&mut key, curve.signs.key_type().as_bytes());
                put_string(&mut key, curve.name.as_bytes());
                put_string(&mut key, pair.public_key().as_ref());
            }
            Pair::Ed25519(pair) => {
                put_string(&mut key, b"ssh-ed25519");
                put_string(&mut key, pair.public_key().as_ref());
            }
            Pair::Rsa(pair) => {
                let numbers = rsa_numbers(pair.public_key().as_ref());
                let (modulus, exponent) = numbers.ok_or(KeyFault::Malformed)?;
                put_string(&mut key, b"ssh-rsa");
                put_positive(&mut key, exponent);
                put_positive(&mut key, modulus);
            }
        }
        Ok(key)
    }

    /// The signature of `data` by an algorithm of this key's type, as SSH writes it.
    ///
    /// # Errors
    /// If the algorithm is of another type, or the crypto library fails.
    pub fn sign(&self, algorithm: Algorithm, data: &[u8]) -> Result<Vec<u8>, KeyFault> {
        let (random, failed) = (SystemRandom::new(), |_| KeyFault::Malformed);
        let mut bare = Vec::new();
        match (&self.0, algorithm) {
            (Pair::Ecdsa(curve, pair), _) if algorithm == curve.signs => {
                let both = pair.sign(&random, data).map_err(failed)?;
                let (r, s) = both.as_ref().split_at_checked(curve.bytes).ok_or(Malformed)?;
                put_positive(&mut bare, r);
                put_positive(&mut bare, s);
            }
            (Pair::Ed25519(pair), Algorithm::Ed25519) => bare.extend(pair.sign(data).as_ref()),
            (Pair::Rsa(pair), Algorithm::RsaSha256 | Algorithm::RsaSha512) => {
                bare.resize(pair.public_modulus_len(), 0);
                let padding = match algorithm {
                    Algorithm::RsaSha256 => &RSA_PKCS1_SHA256,
                    _ => &RSA_PKCS1_SHA512,
                };
                pair.sign(padding, &random, data, &mut bare).map_err(failed)?;
            }
            _ => return Err(KeyFault::Unsupported),
        }
        let mut signature = Vec::new();
        put_string(&mut signature, algorithm.name().as_bytes());
        put_string(&mut signature, &bare);
        Ok(signature)
    }
}

/// The key of a file in OpenSSH's format.
fn openssh(file: &[u8]) -> Result<Pair, KeyFault> {
    let mut reader = Reader::new(file.strip_prefix(MAGIC).ok_or(KeyFault::Malformed)?);
    let (cipher, derivation, _) = (reader.string()?, reader.string()?, reader.string()?);
    if (cipher, derivation) != (b"none", b"none") {
        return Err(KeyFault::Encrypted);
    }
    if reader.number()? != 1 {
        return Err(KeyFault::Unsupported);
    }
    let (public_key, private) = (reader.string()?, reader.string()?);
    reader.end()?;
    let mut reader = Reader::new(private);
    if reader.number()? != reader.number()? {
        return Err(KeyFault::Malformed);
    }
    let key_type = reader.text()?;
    let pair = match key_type {
        "ssh-ed25519" => ed25519(&mut reader)?,
        "ssh-rsa" => rsa(&mut reader)?,
        _ => {
            let curve = CURVES.into_iter().find(|curve| curve.signs.key_type() == key_type);
            ecdsa(curve.ok_or(KeyFault::Unsupported)?, &mut reader)?
        }
    };
    let _comment = reader.string()?;
    let is_padding = is_padding(reader.rest());
    let key = SigningKey(pair);
    if !is_padding || key.public_key()? != public_key {
        return Err(KeyFault::Malformed);
    }
    Ok(key.0)
}

/// True of the bytes 1, 2, 3 and so on, at most 255 of them.
fn is_padding(rest: &[u8]) -> bool {
    rest.iter().copied().eq((1..=u8::MAX).take(rest.len()))
}

fn ed25519(reader: &mut Reader<'_>) -> Result<Pair, KeyFault> {
    let (public, both) = (reader.string()?, reader.string()?);
    let (seed, again) = both.split_at_checked(32).ok_or(Malformed)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
    let pair = pair.map_err(|_| KeyFault::Malformed)?;
    if again == public { Ok(Pair::Ed25519(pair)) } else { Err(KeyFault::Malformed) }
}

fn ecdsa(curve: Curve, reader: &mut Reader<'_>) -> Result<Pair, KeyFault> {
    let (name, public, number) = (reader.text()?, reader.string()?, reader.positive()?);
    let missing = curve.bytes.checked_sub(number.len()).filter(|_| name == curve.name);
    let mut private = Zeroizing::new(vec![0; missing.ok_or(Malformed)?]);
    private.reserve_exact(number.len());
    private.extend(number);
    EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &private, public)
        .map(|pair| Pair::Ecdsa(curve, pair))
        .map_err(|_| KeyFault::Malformed)
}

fn rsa(reader: &mut Reader<'_>) -> Result<Pair, KeyFault> {
    let mut next = || reader.positive();
    let (n, e, d, inverse, p, q) = (next()?, next()?, next()?, next()?, next()?, next()?);
    // The remainders would take long for longer numbers.
    if n.len() > 1024 || [d, inverse, p, q].iter().any(|number| number.len() > n.len()) {
        return Err(KeyFault::Unsupported);
    }
    let (d_p, d_q) = (modulo_one_less(d, p), modulo_one_less(d, q));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: inverse,
    };
    // It also checks that the numbers belong together.
    RsaKeyPair::from_components(&components).map(Pair::Rsa).map_err(|_| KeyFault::Unsupported)
}

/// The key of PKCS#8, PKCS#1 or SEC1.
fn of_der(der: &[u8]) -> Option<Pair> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some(Pair::Ed25519(pair));
    }
    let rsa = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
    let ecdsa = |curve: Curve| {
        let pair = EcdsaKeyPair::from_private_key_der(curve.algorithm, der).ok()?;
        Some(Pair::Ecdsa(curve, pair))
    };
    rsa.ok().map(Pair::Rsa).or_else(|| CURVES.into_iter().find_map(ecdsa))
}

/// The modulus and the exponent of an `RSAPublicKey` (RFC 8017, appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (both, rest) = der_value(der, SEQUENCE)?;
    let (modulus, exponent) = der_value(both, INTEGER)?;
    let (exponent, last) = der_value(exponent, INTEGER)?;
    (rest.is_empty() && last.is_empty()).then_some((modulus, exponent))
}

/// The content of the first value, which has this tag, and the bytes after it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [first, short @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*short), rest),
        [first, 0x81, length, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high, low, rest @ ..] if *first == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A key that ssh-keygen has made with these arguments; `None` if it is not installed.
    fn made(directory: &Path, arguments: &[&str]) -> Option<(Vec<u8>, Vec<u8>)> {
        let path = directory.join("key");
        let (_, _) =
            (std::fs::remove_file(&path), std::fs::remove_file(path.with_extension("pub")));
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-C", "a comment"]).args(arguments).arg("-f").arg(&path);
        assert!(keygen.status().ok()?.success(), "{arguments:?}");
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let public = STANDARD.decode(line.split(' ').nth(1).unwrap()).unwrap();
        Some((std::fs::read(&path).unwrap(), public))
    }

    #[test]
    fn every_type_and_format_of_ssh_keygen_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for key_type in [
            &["-t", "ed25519"][..],
            &["-t", "ecdsa", "-b", "256"],
            &["-t", "ecdsa", "-b", "384"],
            &["-t", "ecdsa", "-b", "521"],
            &["-t", "rsa", "-b", "2048"],
        ] {
            for format in ["RFC4716", "PKCS8", "PEM"] {
                // OpenSSH writes ed25519 in its own format only.
                let is_own = key_type[1] == "ed25519" && format != "RFC4716";
                let format = if is_own { "RFC4716" } else { format };
                let arguments = [key_type, &["-m", format]].concat();
                let Some((private, public)) = made(directory.path(), &arguments) else { return };
                let key = SigningKey::parse(&private).ok().unwrap();
                assert!(key.public_key() == Ok(public.clone()), "{arguments:?}");
                let key = SigningKey::parse(STANDARD.encode(&private).as_bytes()).ok().unwrap();
                assert!(key.public_key() == Ok(public), "Base64 of {arguments:?}");
            }
        }
    }

    #[test]
    fn padding_counts_up_to_a_byte_and_no_further() {
        let all: Vec<u8> = (1..=255).collect();
        assert!((0..=255).all(|length| is_padding(&all[..length])));
        for next in [0, 1, 255] {
            assert!(!is_padding(&[&all[..], &[next]].concat()), "{next}");
        }
        assert!(!is_padding(&[2]) && !is_padding(&[1, 3]));
    }

    #[test]
    fn a_damaged_or_encrypted_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for key_type in [&["-t", "ed25519"][..], &["-t", "rsa", "-b", "2048"]] {
            let Some((private, _)) = made(directory.path(), key_type) else { return };
            let text = String::from_utf8(private).unwrap();
            let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            let whole = STANDARD.decode(lines).unwrap();
            assert!(openssh(&whole).is_ok());
            for at in (0..whole.len()).step_by(7) {
                assert!(openssh(&whole[..at]).is_err(), "cut at {at}");
                let mut changed = whole.clone();
                changed[at] ^= 0x10;
                // Only the comment may differ unseen.
                let is_comment = |at: usize| at + 40 > whole.len();
                assert!(openssh(&changed).is_err() || is_comment(at), "changed at {at}");
            }
        }
        let fault = |text: &str| SigningKey::parse(text.as_bytes()).err();
        assert_eq!(fault("no key"), Some(KeyFault::Malformed));
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(fault(encrypted), Some(KeyFault::Encrypted));
        let small = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(fault(small), Some(KeyFault::Unsupported));
        let path = directory.path().join("encrypted");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "passphrase", "-f"]).arg(&path);
        if keygen.status().is_ok_and(|made| made.success()) {
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(fault(&text), Some(KeyFault::Encrypted));
        }
    }

    #[test]
    fn the_signature_of_each_type_is_verified_by_its_public_key() {
        let directory = tempfile::tempdir().unwrap();
        let Some((private, public)) = made(directory.path(), &["-t", "ed25519"]) else { return };
        let key = SigningKey::parse(&private).ok().unwrap();
        let signature = key.sign(Algorithm::Ed25519, b"data").unwrap();
        let mut reader = Reader::new(&signature);
        assert_eq!(reader.text(), Ok("ssh-ed25519"));
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            &public[public.len() - 32..],
        );
        assert!(public.verify(b"data", reader.string().unwrap()).is_ok());
        for other in [Algorithm::RsaSha256, Algorithm::EcdsaP256] {
            assert_eq!(key.sign(other, b"data"), Err(KeyFault::Unsupported), "{other:?}");
        }
    }
}
