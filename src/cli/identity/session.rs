//! The broker as a step sees it, also when it is restarted meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::transport::Channel;

use super::endpoint::{Caller, Endpoint};
use super::retry::RetryDeadline;
use crate::cli::Common;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::step::credential::Credential;
use crate::cli::step::format::{URI_FIELD, add_uri, may_have_uri};
use crate::model::Reference;

/// How often something is read anew that changes while it is read.
pub const MOST_READS: usize = 16;

/// What is wanted of a reference: these fields, or all there are if this is empty. `uri` of a database is its address with
/// the login in it, which takes all of them.
pub type FieldSelection<'a> = (&'a Reference, &'a [String]);

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
enum RequestedPart {
    Everything,
    Fields,
    /// Everything, and what is made of it.
    WithUri,
}

impl RequestedPart {
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
pub struct CredentialRequest {
    /// What it is about.
    pub reference: Reference,
    part: RequestedPart,
    /// These fields, or all there are.
    pub fields: Vec<String>,
}

impl CredentialRequest {
    /// A question about these fields, or all there are.
    pub fn of(reference: Reference, fields: Vec<String>) -> Self {
        let part = RequestedPart::of(&reference, &fields);
        let mut request = Self { reference, part, fields: Vec::new() };
        request.add(fields);
        request
    }

    fn add(&mut self, fields: Vec<String>) {
        for field in fields.into_iter().filter(|_| self.part == RequestedPart::Fields) {
            if !self.fields.contains(&field) {
                self.fields.push(field);
            }
        }
    }

    /// Adds to an answer what the broker does not give, but what is made of it.
    ///
    /// # Errors
    /// As [`add_uri`].
    pub fn complete(&self, credential: &mut Credential) -> Result<(), Failure> {
        match self.part {
            RequestedPart::WithUri => add_uri(credential),
            RequestedPart::Everything | RequestedPart::Fields => Ok(()),
        }
    }
}

/// A connection that is made again when it is gone.
pub struct Session {
    endpoint: Endpoint,
    deadline: Duration,
    connection: Mutex<SessionChannel>,
}

/// A connection of a session.
#[derive(Clone)]
pub struct SessionChannel {
    /// For requests.
    pub channel: Channel,
    /// How many there were before.
    number: u64,
}

impl Session {
    /// Connects. A broker that is away is waited for, now and later, for so long.
    ///
    /// # Errors
    /// As [`Endpoint::find`] and [`Endpoint::connect`].
    pub async fn open(common: &Common, deadline: Duration) -> Result<Self, Failure> {
        let endpoint = Endpoint::find(Caller::Step, common.state.as_deref())?;
        let channel = endpoint.connect_within(&mut RetryDeadline::after(deadline)).await?;
        let connection = Mutex::new(SessionChannel { channel, number: 0 });
        Ok(Self { endpoint, deadline, connection })
    }

    /// How long a broker that is away is waited for.
    pub fn deadline(&self) -> RetryDeadline {
        RetryDeadline::after(self.deadline)
    }

    /// The connection as it is now.
    pub async fn connection(&self) -> SessionChannel {
        self.connection.lock().await.clone()
    }

    /// A connection in the place of one that has failed: a new one, unless there is one already. Says what it is for,
    /// where that is given.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn another(
        &self,
        failed: &SessionChannel,
        deadline: &mut RetryDeadline,
        said: Option<&Failure>,
    ) -> Result<SessionChannel, Failure> {
        let mut newest = self.connection.lock().await;
        if newest.number == failed.number {
            if let Some(failure) = said {
                say(&format!(
                    "the connection to the broker has ended ({}); waiting for another",
                    failure.reason
                ));
            }
            let channel = self.endpoint.connect_within(deadline).await?;
            *newest = SessionChannel { channel, number: failed.number + 1 };
        }
        Ok(newest.clone())
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
        let mut deadline = self.deadline();
        let mut connection = self.connection().await;
        loop {
            let channel = connection.channel.clone();
            let resolved =
                Credential::resolve(channel, reference.clone(), fields.clone(), None).await;
            match resolved {
                Err(failure) if deadline.allows(&failure).await => {
                    connection = self.another(&connection, &mut deadline, None).await?;
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
    pub async fn resolve_all(
        &self,
        wants: &[FieldSelection<'_>],
    ) -> Result<Vec<Arc<Credential>>, Failure> {
        let (requests, places) = requests(wants);
        for _ in 0..MOST_READS {
            let (mut versions, mut resolved) = (Versions::default(), Vec::new());
            for request in &requests {
                let mut credential =
                    self.resolve(&request.reference, request.fields.clone()).await?;
                request.complete(&mut credential)?;
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

/// What to ask for, and where in that each of those wants finds its answer.
pub fn requests(wants: &[FieldSelection<'_>]) -> (Vec<CredentialRequest>, Vec<usize>) {
    let (mut requests, mut places) = (Vec::<CredentialRequest>::new(), Vec::new());
    for (reference, wanted) in wants {
        let request = CredentialRequest::of((*reference).clone(), wanted.to_vec());
        let is_for = |other: &CredentialRequest| {
            other.reference == request.reference && other.part == request.part
        };
        let place = requests.iter().position(is_for).unwrap_or(requests.len());
        places.push(place);
        match requests.get_mut(place) {
            None => requests.push(request),
            Some(known) => known.add(request.fields),
        }
    }
    (requests, places)
}

/// Something has a new version whenever it is read.
pub fn changing() -> Failure {
    let text = "what is asked for changes faster than it can be read as of one version; try again";
    Failure::new("VERSION_SUPERSEDED", text, exit::FAILED)
}
