//! A step's connection to the broker, also across restarts of the broker.

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

/// The most times that credentials are read again because they change while they are read.
pub const MAX_READS: usize = 16;

/// Fields of a reference, or all fields if the list is empty. The field `uri` of a database is its address with the
/// login, which is made of all fields.
pub type FieldSelection<'a> = (&'a Reference, &'a [String]);

/// The versions of resolved credentials, by name.
#[derive(Default)]
pub struct Versions(BTreeMap<String, i64>);

impl Versions {
    /// Records a credential. Returns false if the same name was recorded in another version.
    pub fn agree(&mut self, credential: &Credential) -> bool {
        let (name, version) = credential.name_and_version();
        *self.0.entry(name.to_owned()).or_insert(version) == version
    }
}

/// One request to the broker, for fields of one reference.
pub struct CredentialRequest {
    pub reference: Reference,
    /// The fields, or all fields if the list is empty.
    pub fields: Vec<String>,
    /// Whether the address of a database is added to all of its fields.
    with_uri: bool,
}

impl CredentialRequest {
    /// A request for these fields, or for all if the list is empty.
    pub fn new(reference: Reference, fields: &[String]) -> Self {
        let with_uri = may_have_uri(&reference) && fields.iter().any(|field| field == URI_FIELD);
        let mut request = Self { reference, fields: Vec::new(), with_uri };
        request.add(if with_uri { &[] } else { fields });
        request
    }

    fn add(&mut self, fields: &[String]) {
        for field in fields {
            if !self.fields.contains(field) {
                self.fields.push(field.clone());
            }
        }
    }

    /// Whether one request can ask for the fields of both.
    fn can_join(&self, other: &Self) -> bool {
        let kind = |one: &Self| (one.with_uri, one.fields.is_empty());
        self.reference == other.reference && kind(self) == kind(other)
    }

    /// Adds to an answer what the broker does not send: the address of a database.
    pub fn complete(&self, credential: &mut Credential) -> Result<(), Failure> {
        if self.with_uri { add_uri(credential) } else { Ok(()) }
    }
}

/// A connection that is replaced when it fails.
pub struct Session {
    endpoint: Endpoint,
    retry_time: Duration,
    channel: Mutex<SessionChannel>,
}

/// One connection of a session.
#[derive(Clone)]
pub struct SessionChannel {
    pub channel: Channel,
    /// The number of connections before this one.
    number: u64,
}

impl Session {
    /// Connects as a step. Now and later, the session retries for this time while the broker is away.
    pub async fn open(common: &Common, retry_time: Duration) -> Result<Self, Failure> {
        let endpoint = Endpoint::find(Caller::Step, common.place())?;
        let channel = endpoint.connect_within(&mut RetryDeadline::after(retry_time)).await?;
        let channel = Mutex::new(SessionChannel { channel, number: 0 });
        Ok(Self { endpoint, retry_time, channel })
    }

    /// The time for retries, from now on.
    pub fn deadline(&self) -> RetryDeadline {
        RetryDeadline::after(self.retry_time)
    }

    pub async fn channel(&self) -> SessionChannel {
        self.channel.lock().await.clone()
    }

    /// Replaces a connection that has failed, unless another task has done so. If `failure` is given, the user learns
    /// why.
    pub async fn replace(
        &self,
        failed: &SessionChannel,
        deadline: &mut RetryDeadline,
        failure: Option<&Failure>,
    ) -> Result<SessionChannel, Failure> {
        let mut newest = self.channel.lock().await;
        if newest.number == failed.number {
            if let Some(Failure { reason, .. }) = failure {
                say(&format!(
                    "the connection to the broker has ended ({reason}); waiting for another"
                ));
            }
            let channel = self.endpoint.connect_within(deadline).await?;
            *newest = SessionChannel { channel, number: failed.number + 1 };
        }
        Ok(newest.clone())
    }

    /// Calls the broker. Retries on another connection if this one fails.
    pub async fn call<T, Calling: Future<Output = Result<T, Failure>>>(
        &self,
        call: impl Fn(Channel) -> Calling,
    ) -> Result<T, Failure> {
        let (mut deadline, mut connection) = (self.deadline(), self.channel().await);
        loop {
            match call(connection.channel.clone()).await {
                Err(failure) if deadline.allows(&failure).await => {
                    connection = self.replace(&connection, &mut deadline, None).await?;
                }
                answer => return answer,
            }
        }
    }

    /// Resolves these fields of a reference, or all if there are none.
    pub async fn resolve(
        &self,
        reference: &Reference,
        fields: Vec<String>,
    ) -> Result<Credential, Failure> {
        self.call(|channel| Credential::resolve(channel, reference.clone(), fields.clone(), None))
            .await
    }

    /// Resolves these selections, in their order. All fields of one connection are of one version: an identifier and a
    /// secret of two versions are not a credential.
    pub async fn resolve_all(
        &self,
        selections: &[FieldSelection<'_>],
    ) -> Result<Vec<Arc<Credential>>, Failure> {
        let (requests, indices) = requests(selections);
        for _ in 0..MAX_READS {
            let (mut versions, mut resolved) = (Versions::default(), Vec::new());
            for request in &requests {
                let mut credential =
                    self.resolve(&request.reference, request.fields.clone()).await?;
                request.complete(&mut credential)?;
                resolved.push(Arc::new(credential));
            }
            if resolved.iter().all(|credential| versions.agree(credential)) {
                let all = indices.iter().filter_map(|index| resolved.get(*index).cloned());
                return Ok(all.collect());
            }
        }
        Err(changes_too_often())
    }
}

/// The requests for these selections, and the index of the request for each.
pub fn requests(selections: &[FieldSelection<'_>]) -> (Vec<CredentialRequest>, Vec<usize>) {
    let (mut requests, mut indices) = (Vec::<CredentialRequest>::new(), Vec::new());
    for (reference, fields) in selections {
        let request = CredentialRequest::new((*reference).clone(), fields);
        let known = requests.iter().position(|other| other.can_join(&request));
        let index = known.unwrap_or(requests.len());
        indices.push(index);
        match requests.get_mut(index) {
            None => requests.push(request),
            Some(known) => known.add(&request.fields),
        }
    }
    (requests, indices)
}

/// The failure to read several fields in one version.
pub fn changes_too_often() -> Failure {
    let text = "a connection changes faster than its fields can be read in one version; try again";
    Failure::new("VERSION_SUPERSEDED", text, exit::FAILED)
}
