//! A credential that is watched, also across restarts of the daemon.

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

/// The time for retries once the first version has come.
const RETRY_TIME: Duration = Duration::from_secs(300);

/// A watched credential.
pub struct CredentialWatch {
    session: Arc<Session>,
    request: CredentialRequest,
    ttl: Option<Duration>,
    /// The stream of versions. None before the first request and after a failure.
    open: Option<(SessionChannel, Streaming<pb::WatchResponse>)>,
    /// The last version that came.
    last: Option<Arc<Credential>>,
}

/// A version of a watched credential.
pub struct WatchedVersion {
    pub credential: Arc<Credential>,
    /// The number of versions since the last one.
    pub skipped_versions: i64,
}

impl CredentialWatch {
    /// A watch that opens with the first call of [`CredentialWatch::next`].
    pub fn new(session: Arc<Session>, request: CredentialRequest, ttl: Option<Duration>) -> Self {
        Self { session, request, ttl, open: None, last: None }
    }

    pub fn request(&self) -> &CredentialRequest {
        &self.request
    }

    /// Waits for the current version, and then for each new one. Retries while the daemon is away, because the step
    /// stays open. After an error the next call opens the watch again, without the version that came last.
    pub async fn next(&mut self) -> Result<WatchedVersion, Failure> {
        let mut deadline = None;
        loop {
            let is_first = self.open.is_none();
            let (connection, stream) = match self.open.take() {
                Some((connection, stream)) => (connection, Some(stream)),
                None => (self.session.channel().await, None),
            };
            let failure = match self.response(connection.channel.clone(), stream).await {
                Ok((stream, response)) => {
                    self.open = Some((connection, stream));
                    deadline = None;
                    if let Some(version) = self.new_version(response, is_first)? {
                        return Ok(version);
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            let deadline = deadline.get_or_insert_with(|| match &self.last {
                Some(_) => RetryDeadline::after(RETRY_TIME),
                None => self.session.deadline(),
            });
            if !deadline.allows(&failure).await {
                return Err(failure);
            }
            let reported = self.last.as_ref().map(|_| &failure);
            self.session.replace(&connection, deadline, reported).await?;
        }
    }

    /// The version of a response. None if a watch that was opened again repeats the last version. The values are
    /// compared, too: a connection that was deleted and created again counts its versions from the beginning.
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

    async fn response(
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
        let response = stream.message().await?.ok_or_else(|| {
            let text = "the broker has ended a Watch without a reason";
            Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
        })?;
        Ok((stream, response))
    }
}
