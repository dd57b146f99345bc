//! The keys that sign tokens: ECDSA P-256.
//!
//! ```text
//! next ─ rotate ─ current ─ rotate ─ previous ─ until all that it has signed has ended
//! ```
//!
//! All are published. The next key is published before it signs, so that verifiers know it by then.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING as ALGORITHM, EcdsaKeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use super::error::IssuerError;
use crate::model::Timestamp;

/// How long a key stays published after it has signed for the last time: the longest life of a token, and room for clocks
/// that differ.
const PUBLISHED_AFTERWARDS: Duration = Duration::from_secs(3600 + 600);
/// The bytes of an id, which begin the key's thumbprint (RFC 7638).
const ID_BYTES: usize = 8;

/// The keys of an issuer.
pub struct IssuerKeys {
    current: Arc<SigningKey>,
    next: Arc<SigningKey>,
    previous: Vec<PreviousKey>,
}

/// A key that can sign.
struct SigningKey {
    pair: EcdsaKeyPair,
    point: Point,
    create_time: Timestamp,
}

/// A key that has signed. Its private half is gone.
#[derive(Clone)]
struct PreviousKey {
    point: Point,
    create_time: Timestamp,
    end_time: Timestamp,
}

/// A public key: 4, and two coordinates.
#[derive(Clone)]
struct Point(Vec<u8>);

/// What a published key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// It signs after the next rotation.
    Next,
    /// It signs.
    Current,
    /// It has signed, and is published until then.
    Previous {
        /// When everything that it has signed has ended.
        until: Timestamp,
    },
}

/// A public key as it is published.
#[derive(Clone, Debug)]
pub struct PublishedKey {
    /// Its id: the header `kid` of what it signs, in 16 hexadecimal digits.
    pub id: String,
    /// What it is for.
    pub key_use: KeyUse,
    /// When it was made.
    pub create_time: Timestamp,
    /// The coordinates, base64url.
    x: String,
    y: String,
}

/// The keys in the form that is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    current: StoredKey,
    next: StoredKey,
    previous: Vec<StoredPrevious>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    private: String,
    public: String,
    create_time: Timestamp,
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPrevious {
    public: String,
    create_time: Timestamp,
    end_time: Timestamp,
}

impl IssuerKeys {
    /// New keys.
    ///
    /// # Errors
    /// [`IssuerError::Unusable`]
    pub fn create(now: Timestamp) -> Result<Self, IssuerError> {
        let (current, next) = (SigningKey::generate(now)?, SigningKey::generate(now)?);
        Ok(Self { current: Arc::new(current), next: Arc::new(next), previous: Vec::new() })
    }

    /// These keys a generation later: the next key signs, and there is a new next key.
    ///
    /// # Errors
    /// [`IssuerError::Unusable`]
    pub fn rotated(&self, now: Timestamp) -> Result<Self, IssuerError> {
        let mut previous = self.previous.clone();
        previous.retain(|key| now < key.end_time);
        previous.push(PreviousKey {
            point: self.current.point.clone(),
            create_time: self.current.create_time,
            end_time: now.after(PUBLISHED_AFTERWARDS),
        });
        let next = Arc::new(SigningKey::generate(now)?);
        Ok(Self { current: Arc::clone(&self.next), next, previous })
    }

    /// The keys, private ones included, as bytes to seal.
    ///
    /// # Errors
    /// [`IssuerError::Unusable`]
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, IssuerError> {
        let previous = self.previous.iter().map(|key| StoredPrevious {
            public: STANDARD.encode(&key.point.0),
            create_time: key.create_time,
            end_time: key.end_time,
        });
        let stored = StoredKeys {
            current: self.current.stored()?,
            next: self.next.stored()?,
            previous: previous.collect(),
        };
        serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|_| IssuerError::Unusable)
    }

    /// Reads the keys from their unsealed bytes.
    ///
    /// # Errors
    /// [`IssuerError::Damaged`] if they do not come from [`IssuerKeys::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IssuerError> {
        let stored: StoredKeys = serde_json::from_slice(bytes).map_err(|_| IssuerError::Damaged)?;
        let previous = stored.previous.iter().map(|key| {
            let (create_time, end_time) = (key.create_time, key.end_time);
            Ok(PreviousKey { point: Point::decode(&key.public)?, create_time, end_time })
        });
        Ok(Self {
            current: Arc::new(SigningKey::read(&stored.current)?),
            next: Arc::new(SigningKey::read(&stored.next)?),
            previous: previous.collect::<Result<_, IssuerError>>()?,
        })
    }

    /// The id of the key that signs.
    pub fn current_id(&self) -> String {
        self.current.point.id()
    }

    /// The id of the key that signs after the next rotation.
    pub fn next_id(&self) -> String {
        self.next.point.id()
    }

    /// The public keys, newest first.
    pub fn published(&self, now: Timestamp) -> Vec<PublishedKey> {
        let signing = [(&self.next, KeyUse::Next), (&self.current, KeyUse::Current)];
        let signing = signing.map(|(key, key_use)| key.point.published(key_use, key.create_time));
        let previous = self.previous.iter().rev().filter(|key| now < key.end_time);
        let previous = previous.map(|key| {
            key.point.published(KeyUse::Previous { until: key.end_time }, key.create_time)
        });
        signing.into_iter().chain(previous).collect()
    }

    /// The signature of the current key, as JSON Web Signatures have it: the two numbers, 32 bytes each.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IssuerError> {
        let signature = self.current.pair.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| IssuerError::Unusable)?.as_ref().to_vec())
    }
}

impl SigningKey {
    fn generate(now: Timestamp) -> Result<Self, IssuerError> {
        let pair = EcdsaKeyPair::generate(&ALGORITHM).map_err(|_| IssuerError::Unusable)?;
        Self::of(pair, now).ok_or(IssuerError::Unusable)
    }

    fn of(pair: EcdsaKeyPair, create_time: Timestamp) -> Option<Self> {
        let point = Point::parse(pair.public_key().as_ref())?;
        Some(Self { pair, point, create_time })
    }

    fn read(stored: &StoredKey) -> Result<Self, IssuerError> {
        let private = STANDARD.decode(&stored.private).map(Zeroizing::new);
        let private = private.map_err(|_| IssuerError::Damaged)?;
        let Point(public) = Point::decode(&stored.public)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ALGORITHM, &private, &public);
        let pair = pair.map_err(|_| IssuerError::Damaged)?;
        Self::of(pair, stored.create_time).ok_or(IssuerError::Damaged)
    }

    fn stored(&self) -> Result<StoredKey, IssuerError> {
        let private: Result<EcPrivateKeyBin<'_>, _> = self.pair.private_key().as_be_bytes();
        let private = private.map_err(|_| IssuerError::Unusable)?;
        Ok(StoredKey {
            private: STANDARD.encode(private.as_ref()),
            public: STANDARD.encode(&self.point.0),
            create_time: self.create_time,
        })
    }
}

impl Point {
    fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 65 && bytes.first() == Some(&4)).then(|| Self(bytes.to_vec()))
    }

    fn decode(text: &str) -> Result<Self, IssuerError> {
        let bytes = STANDARD.decode(text).map_err(|_| IssuerError::Damaged)?;
        Self::parse(&bytes).ok_or(IssuerError::Damaged)
    }

    /// The coordinates, base64url.
    fn coordinates(&self) -> [String; 2] {
        [1..33, 33..65].map(|range| URL_SAFE_NO_PAD.encode(self.0.get(range).unwrap_or_default()))
    }

    fn id(&self) -> String {
        let [x, y] = self.coordinates();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = digest::digest(&digest::SHA256, canonical.as_bytes());
        hex::encode(thumbprint.as_ref().get(..ID_BYTES).unwrap_or_default())
    }

    fn published(&self, key_use: KeyUse, create_time: Timestamp) -> PublishedKey {
        let [x, y] = self.coordinates();
        PublishedKey { id: self.id(), key_use, create_time, x, y }
    }
}

impl PublishedKey {
    /// The key as a JSON Web Key (RFC 7517).
    pub fn to_jwk(&self) -> serde_json::Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.id,
            "x": self.x,
            "y": self.y,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn ids(keys: &IssuerKeys, now: i64) -> Vec<String> {
        keys.published(at(now)).into_iter().map(|key| key.id).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_until_its_tokens_end() {
        let first = IssuerKeys::create(at(0)).unwrap();
        let [next, current] = <[String; 2]>::try_from(ids(&first, 0)).unwrap();
        assert_eq!(first.current_id(), current);
        let second = first.rotated(at(1000)).unwrap();
        assert_eq!(second.current_id(), next);
        let published = ids(&second, 1000);
        assert_eq!(published.get(1..).unwrap(), [next.clone(), current.clone()]);
        // All that the first key has signed has ended an hour later.
        assert!(ids(&second, 1000 + 3600).contains(&current));
        assert!(!ids(&second, 1000 + 4200).contains(&current));
        let third = second.rotated(at(2000)).unwrap();
        assert_eq!(ids(&third, 2000).get(2..).unwrap(), [next, current]);
        assert_eq!(third.rotated(at(9000)).unwrap().previous.len(), 1);
    }

    #[test]
    fn sealed_keys_come_back_and_damaged_ones_do_not() {
        let keys = IssuerKeys::create(at(0)).unwrap().rotated(at(5)).unwrap();
        let bytes = keys.to_bytes().unwrap();
        let read = IssuerKeys::from_bytes(&bytes).unwrap();
        assert_eq!(ids(&read, 6), ids(&keys, 6));
        assert_eq!(read.to_bytes().unwrap(), bytes);
        assert!(IssuerKeys::from_bytes(bytes.get(1..).unwrap()).is_err());
        // A private half of another key.
        let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        json["current"]["private"] = json["next"]["private"].clone();
        assert!(IssuerKeys::from_bytes(json.to_string().as_bytes()).is_err());
    }
}
