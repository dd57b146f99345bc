//! The broker as a step sees it, also when it is restarted meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::transport::Channel;

use super::Common;
use super::credential::Credential;
use super::endpoint::{Caller, Endpoint};
use super::failure::{Failure, exit};
use super::format::{URI_FIELD, add_uri, may_have_uri};
use super::patience::Patience;
use crate::model::Reference;

/// How often something is read anew that changes while it is read.
pub const MOST_READS: usize = 16;

/// What is wanted of a reference: these fields, or all there are if this is empty. `uri` of a database is its address with
/// the login in it, which takes all of them.
pub type Want<'a> = (&'a Reference, &'a [String]);

/// The versions of what was resolved, by name.
#[derive(Default)]
pub struct Versions(BTreeMap<String, i64>);

impl Versions {
    /// Takes note of a credential. Says whether everything else of the same name is of the same version.
    pub fn agree(&mut self, credential: &Credential) -> bool {
        let (name, version) = credential.name_and_version();
        *self.0.entry(name.to_owned()).or_insert(version) == version
    }
}

/// What of a reference is asked for by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Everything,
    Fields,
    /// Everything, and what is made of it.
    WithUri,
}

impl Part {
    fn of(reference: &Reference, wanted: &[String]) -> Self {
        match wanted {
            [] => Self::Everything,
            _ if may_have_uri(reference) && wanted.iter().any(|field| field == URI_FIELD) => {
                Self::WithUri
            }
            _ => Self::Fields,
        }
    }
}

/// One question to the broker.
struct Request<'a> {
    reference: &'a Reference,
    part: Part,
    fields: Vec<String>,
}

/// A connection that is made again when it is gone.
pub struct Session {
    endpoint: Endpoint,
    patience: Duration,
    channel: Mutex<Channel>,
}

impl Session {
    /// Connects. A broker that is away is waited for, now and later, for so long.
    ///
    /// # Errors
    /// As [`Endpoint::find`] and [`Endpoint::connect`].
    pub async fn open(common: &Common, patience: Duration) -> Result<Self, Failure> {
        let endpoint = Endpoint::find(Caller::Step, common.state.as_deref())?;
        let channel = endpoint.connect_within(&mut Patience::of(patience)).await?;
        Ok(Self { endpoint, patience, channel: Mutex::new(channel) })
    }

    /// The connection as it is now.
    pub async fn channel(&self) -> Channel {
        self.channel.lock().await.clone()
    }

    /// Resolves a reference; by a new connection if the broker is not there on this one.
    ///
    /// # Errors
    /// As [`Credential::resolve`].
    pub async fn resolve(
        &self,
        reference: &Reference,
        fields: Vec<String>,
    ) -> Result<Credential, Failure> {
        let mut patience = Patience::of(self.patience);
        let mut channel = self.channel().await;
        loop {
            let resolved =
                Credential::resolve(channel, reference.clone(), fields.clone(), None).await;
            match resolved {
                Err(failure) if patience.allows(&failure).await => {
                    channel = self.endpoint.connect_within(&mut patience).await?;
                    *self.channel.lock().await = channel.clone();
                }
                resolved => return resolved,
            }
        }
    }

    /// Resolves all that a command takes, in its order: every field of a connection is of the same version, since an
    /// identifier and a secret of two versions are no credential.
    ///
    /// # Errors
    /// As [`Credential::resolve`], or if something changes too often to be read.
    pub async fn resolve_all(&self, wants: &[Want<'_>]) -> Result<Vec<Arc<Credential>>, Failure> {
        let mut requests: Vec<Request<'_>> = Vec::new();
        let mut places = Vec::new();
        for (reference, wanted) in wants {
            let part = Part::of(reference, wanted);
            let is_for = |other: &Request<'_>| other.reference == *reference && other.part == part;
            let place = requests.iter().position(is_for).unwrap_or(requests.len());
            places.push(place);
            if place == requests.len() {
                requests.push(Request { reference, part, fields: Vec::new() });
            }
            let Some(Request { fields, .. }) = requests.get_mut(place) else { continue };
            for field in wanted.iter().filter(|_| part == Part::Fields) {
                if !fields.contains(field) {
                    fields.push(field.clone());
                }
            }
        }
        for _ in 0..MOST_READS {
            let (mut versions, mut resolved) = (Versions::default(), Vec::new());
            for Request { reference, part, fields } in &requests {
                let mut credential = self.resolve(reference, fields.clone()).await?;
                if *part == Part::WithUri {
                    add_uri(&mut credential)?;
                }
                resolved.push(Arc::new(credential));
            }
            if resolved.iter().all(|credential| versions.agree(credential)) {
                return Ok(places
                    .iter()
                    .filter_map(|place| resolved.get(*place).cloned())
                    .collect());
            }
        }
        Err(changing())
    }
}

/// Something has a new version whenever it is read.
pub fn changing() -> Failure {
    let text = "what is asked for changes faster than it can be read as of one version; try again";
    Failure::new("VERSION_SUPERSEDED", text, exit::FAILED)
}
