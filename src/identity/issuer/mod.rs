//! The broker as an issuer of OpenID Connect: it signs tokens that name a step, and others verify them with public keys that
//! are hosted anywhere.

mod error;
mod keys;
mod url;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use serde::Serialize;
use serde_json::json;

pub use error::IssuerError;
pub use keys::{IssuerKeys, KeyUse, PublishedKey};
pub use url::IssuerUrl;

use crate::model::{Timestamp, TrustDomain};

/// The name of the discovery document, below the issuer's URL.
pub const DISCOVERY: &str = ".well-known/openid-configuration";
/// The name of the document with the public keys, below the issuer's URL.
pub const KEY_SET: &str = "jwks.json";

/// The issuer of one broker: its URL, if the configuration has one, and its keys.
pub struct Issuer {
    url: Option<IssuerUrl>,
    domain: TrustDomain,
    keys: RwLock<Arc<IssuerKeys>>,
}

/// The documents that verifiers read, as they are to be hosted below the issuer's URL.
pub struct IssuerDocuments {
    /// [`DISCOVERY`].
    pub discovery: String,
    /// [`KEY_SET`].
    pub key_set: String,
}

impl Issuer {
    /// The issuer with this URL and these keys, for steps of a trust domain.
    pub fn new(url: Option<IssuerUrl>, domain: TrustDomain, keys: IssuerKeys) -> Self {
        Self { url, domain, keys: RwLock::new(Arc::new(keys)) }
    }

    /// The URL; `None` if the configuration has none, and so no token is signed.
    pub fn url(&self) -> Option<&IssuerUrl> {
        self.url.as_ref()
    }

    /// The trust domain of the subjects.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The keys in use.
    pub fn keys(&self) -> Arc<IssuerKeys> {
        Arc::clone(&self.keys.read())
    }

    /// Signs with other keys from now on.
    pub fn adopt(&self, keys: IssuerKeys) {
        *self.keys.write() = Arc::new(keys);
    }

    /// A signed JSON Web Token (RFC 7519): ES256, with these claims.
    ///
    /// # Errors
    /// If the claims are no JSON, or the key cannot sign.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, IssuerError> {
        let keys = self.keys();
        let header = json!({ "alg": "ES256", "kid": keys.current_id(), "typ": "JWT" });
        let claims = serde_json::to_vec(claims).map_err(|_| IssuerError::Claims)?;
        let [header, claims] =
            [header.to_string().as_bytes(), &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature = keys.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The documents as of now; `None` without a URL. Both are public.
    pub fn documents(&self, now: Timestamp) -> Option<IssuerDocuments> {
        let url = self.url()?;
        let keys = self.keys().published(now);
        let keys: Vec<_> = keys.iter().map(PublishedKey::to_jwk).collect();
        let discovery = json!({
            "issuer": url.as_str(),
            "jwks_uri": format!("{url}/{KEY_SET}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let text = |document: &serde_json::Value| format!("{document:#}\n");
        Some(IssuerDocuments {
            discovery: text(&discovery),
            key_set: text(&json!({ "keys": keys })),
        })
    }
}
