//! The issuer of tokens that name a step: what is published, and the rotation of its keys.

use std::sync::Arc;

use super::{Keys, blocking};
use crate::access::{Principal, Role};
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::{require_operator, require_role};
use crate::catalog::ConnectionMetadata;
use crate::identity::{Issuer, IssuerDocuments, IssuerError, IssuerKeys, PublishedKey};
use crate::integration::{Finding, Source};
use crate::journal::{Event, RotatedKey};
use crate::mint::is_hosted;
use crate::model::ConnectionRef;
use crate::seal::{KeyId, RecordKey};

/// The most connections that are named.
const MAX_CONNECTIONS: usize = 100;

/// What others learn of the issuer. Nothing of it is secret.
pub struct PublishedIssuer {
    /// Its URL; `None` if the broker is no issuer.
    pub url: Option<String>,
    /// Its public keys, newest first.
    pub keys: Vec<PublishedKey>,
    /// The documents to host below the URL; `None` without a URL.
    pub documents: Option<IssuerDocuments>,
    /// The connections whose credentials need a token of it, at most [`MAX_CONNECTIONS`].
    pub connections: Vec<ConnectionRef>,
}

impl Broker {
    /// What others learn of the issuer.
    ///
    /// # Errors
    /// If the caller is no operator.
    pub fn published_issuer(&self, caller: &Principal) -> Result<PublishedIssuer, Error> {
        require_operator(caller)?;
        let (now, issuer, snapshot) = (self.now(), &self.keys.issuer, self.snapshot());
        let connections = snapshot.catalog.connections_after(None).map(|one| &one.metadata);
        let needing = connections.filter(|one| one.source().is_some_and(Source::needs_issuer));
        Ok(PublishedIssuer {
            url: issuer.url().map(ToString::to_string),
            keys: issuer.keys().published(now),
            documents: issuer.documents(now),
            connections: needing.map(ConnectionMetadata::reference).take(MAX_CONNECTIONS).collect(),
        })
    }

    /// Has the next key sign from now on, and makes another next key. Returns the keys, newest first, and whether the key
    /// that signs now is known to be hosted. `force` if it need not be.
    ///
    /// # Errors
    /// See `SystemService.RotateIssuer`.
    pub async fn rotate_issuer(
        &self,
        caller: &Principal,
        force: bool,
    ) -> Result<(Vec<PublishedKey>, bool), Error> {
        require_role(caller, Role::Administrator)?;
        let next = self.keys.issuer.keys().next_id();
        let is_hosted = self.is_hosted(&next).await;
        // Without a URL, nobody verifies.
        if !is_hosted && !force && self.keys.issuer.url().is_some() {
            return Err(not_hosted(&self.keys.issuer));
        }
        let (keys, principal) = (Arc::clone(&self.keys), caller.to_string());
        // A task of its own: a caller who disconnects leaves no half-done rotation.
        let rotated = tokio::spawn(keys.rotate_issuer(principal, next)).await;
        rotated.map_err(|error| Error::Internal(error.to_string()))??;
        Ok((self.keys.issuer.keys().published(self.now()), is_hosted))
    }

    /// True if a key is known to be hosted: it is not if there is no issuer, or the hosted keys cannot be read from here.
    async fn is_hosted(&self, key: &str) -> bool {
        let Some(url) = self.keys.issuer.url() else { return false };
        is_hosted(self.mints.egress(), url, key).await.unwrap_or_else(|failure| {
            let reason = failure.reason.as_str();
            tracing::warn!(reason, detail = %failure.detail, "the issuer's hosted keys cannot be read");
            false
        })
    }

    /// A doubt about a connection whose credentials need a token of the issuer, if there is no issuer.
    pub(in crate::broker) fn issuer_doubt(&self, metadata: &ConnectionMetadata) -> Option<Finding> {
        let is_in_doubt =
            self.keys.issuer.url().is_none() && metadata.source().is_some_and(Source::needs_issuer);
        let text = "its credentials need a token of this broker, which is no issuer yet: set url in the table issuer of \
                    the daemon's configuration, and host what keyhatch issuer write writes";
        is_in_doubt.then(|| Finding::warning("", text))
    }
}

impl Keys {
    /// Has this next key sign.
    async fn rotate_issuer(self: Arc<Self>, principal: String, next: String) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let before = self.issuer.keys();
        if before.next_id() != next {
            // Another rotation came first, and nobody has looked for the key that is the next now.
            return Err(not_hosted(&self.issuer));
        }
        let rotated = before.rotated(now).map_err(|error| unusable(&error))?;
        let (old, new) = (id_of(&before)?, id_of(&rotated)?);
        let event = Event::KeyRotated { principal, key: RotatedKey::Issuer, old, new };
        let (position, _) = self.journal.append(now, &event)?;
        self.journal.synced(position).await?;
        let keys = Arc::clone(&self);
        let written = blocking(move || {
            let sealed = keys.keyring.seal(RecordKey::ISSUER, 1, &rotated.to_bytes()?)?;
            keys.key_store.replace_file(RecordKey::ISSUER, &sealed)?;
            keys.issuer.adopt(rotated);
            Ok::<_, Unwritten>(())
        });
        written.await?.map_err(|error| Error::KeyringUnwritable(error.to_string()))?;
        tracing::info!(%old, %new, "the issuer signs with another key");
        Ok(())
    }
}

fn not_hosted(issuer: &Issuer) -> Error {
    Error::IssuerNotHosted(issuer.url().map(ToString::to_string).unwrap_or_default())
}

/// Why rotated keys are not on disk.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    KeyStore(#[from] crate::seal::KeyStoreError),
    #[error(transparent)]
    NoRandomness(#[from] crate::seal::NoRandomness),
}

fn id_of(keys: &IssuerKeys) -> Result<KeyId, Error> {
    KeyId::parse(&keys.current_id()).ok_or_else(|| unusable(&IssuerError::Unusable))
}

fn unusable(error: &IssuerError) -> Error {
    Error::Internal(error.to_string())
}
