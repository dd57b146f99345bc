//! A credential that is watched, also when the daemon is restarted meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tonic::Streaming;
use tonic::transport::Channel;

use super::credential::Credential;
use crate::cli::identity::retry::RetryDeadline;
use crate::cli::identity::session::{CredentialRequest, Session, SessionChannel};
use crate::cli::io::failure::{Failure, exit};
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;

/// How long a daemon is waited for that was there before.
const AWAY: Duration = Duration::from_secs(300);

/// A watched credential.
pub struct CredentialWatch {
    session: Arc<Session>,
    request: CredentialRequest,
    ttl: Option<Duration>,
    /// Where deliveries come from, if it is open.
    open: Option<(SessionChannel, Streaming<pb::WatchResponse>)>,
    /// What came last.
    last: Option<Arc<Credential>>,
}

/// A version.
pub struct WatchedVersion {
    /// It.
    pub credential: Arc<Credential>,
    /// How many came between the last delivery and this one.
    pub skipped_versions: i64,
}

impl CredentialWatch {
    /// Opens with the first delivery.
    pub fn new(session: Arc<Session>, request: CredentialRequest, ttl: Option<Duration>) -> Self {
        Self { session, request, ttl, open: None, last: None }
    }

    /// What is watched.
    pub fn request(&self) -> &CredentialRequest {
        &self.request
    }

    /// The current version, and then each new one. A daemon that is away is waited for: the step is open when it comes
    /// back. After an error this begins anew, and does not give the last version again.
    ///
    /// # Errors
    /// As `StepService.Watch`, or if the daemon is away for too long.
    pub async fn next(&mut self) -> Result<WatchedVersion, Failure> {
        let mut deadline = None;
        loop {
            let is_first = self.open.is_none();
            let (connection, stream) = match self.open.take() {
                Some((connection, stream)) => (connection, Some(stream)),
                None => (self.session.connection().await, None),
            };
            let failure = match self.delivery(connection.channel.clone(), stream).await {
                Ok((stream, response)) => {
                    self.open = Some((connection, stream));
                    deadline = None;
                    if let Some(delivery) = self.new_version(response, is_first)? {
                        return Ok(delivery);
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            let deadline = deadline.get_or_insert_with(|| match &self.last {
                Some(_) => RetryDeadline::after(AWAY),
                None => self.session.deadline(),
            });
            if !deadline.allows(&failure).await {
                return Err(failure);
            }
            let said = self.last.as_ref().map(|_| &failure);
            self.session.another(&connection, deadline, said).await?;
        }
    }

    /// A delivery, unless it is what came last and a Watch that was opened anew gives it again. A connection that was
    /// deleted and made anew counts its versions anew, too.
    fn new_version(
        &mut self,
        response: pb::WatchResponse,
        is_first: bool,
    ) -> Result<Option<WatchedVersion>, Failure> {
        let credential = response.credential.unwrap_or_default();
        let reference = self.request.reference.clone();
        let mut credential = Credential::from_response(reference, credential)?;
        self.request.complete(&mut credential)?;
        let is_last = self.last.as_ref().is_some_and(|last| {
            last.name_and_version() == credential.name_and_version()
                && last.has_values_of(&credential)
        });
        let credential = Arc::new(credential);
        self.last = Some(Arc::clone(&credential));
        let skipped_versions = response.skipped_versions;
        Ok((!is_first || !is_last).then_some(WatchedVersion { credential, skipped_versions }))
    }

    async fn delivery(
        &self,
        channel: Channel,
        open: Option<Streaming<pb::WatchResponse>>,
    ) -> Result<(Streaming<pb::WatchResponse>, pb::WatchResponse), Failure> {
        let mut stream = match open {
            Some(stream) => stream,
            None => {
                let CredentialRequest { reference, fields, .. } = &self.request;
                let request = Some(Credential::request(reference, fields.clone(), self.ttl));
                let request = pb::WatchRequest { request };
                StepServiceClient::new(channel).watch(request).await?.into_inner()
            }
        };
        match stream.message().await? {
            Some(delivery) => Ok((stream, delivery)),
            None => {
                let text = "the broker has ended a CredentialWatch and not said why";
                Err(Failure::new("UNREACHABLE", text, exit::UNREACHABLE))
            }
        }
    }
}
