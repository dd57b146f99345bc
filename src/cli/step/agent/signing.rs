//! The broker, as the agent asks it.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::identity::session::Session;
use crate::cli::io::failure::Failure;
use crate::cli::step::credential::target_of;
use crate::cli::step::get::within;
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::model::Reference;

/// How long the broker may take. ssh itself waits for ever.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection whose key signs.
pub struct SigningConnection {
    pub reference: Reference,
    pub session: Arc<Session>,
}

impl SigningConnection {
    /// The public key, with what else a client needs.
    pub async fn key(&self) -> Result<pb::SigningKey, Failure> {
        let request = pb::GetSigningKeyRequest { target: Some(self.target()?) };
        let called = self.session.call(|channel| {
            let (mut client, request) = (StepServiceClient::new(channel), request.clone());
            async move { Ok(client.get_signing_key(request).await?.into_inner()) }
        });
        within(BROKER_TIMEOUT, called).await
    }

    /// The signature of a login.
    pub async fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let request = pb::SignRequest { target: Some(self.target()?), data: data.to_vec() };
        let called = self.session.call(|channel| {
            let (mut client, request) = (StepServiceClient::new(channel), request.clone());
            async move { Ok(client.sign(request).await?.into_inner().signature) }
        });
        within(BROKER_TIMEOUT, called).await
    }

    fn target(&self) -> Result<pb::SigningTarget, Failure> {
        use pb::resolve_request::Target as Asked;
        use pb::signing_target::Target;
        let target = match target_of(&self.reference) {
            Asked::Connection(connection) => Target::Connection(connection),
            Asked::Group(group) => Target::Group(group),
            Asked::DefaultFor(integration) => Target::DefaultFor(integration),
            Asked::Secret(_) => {
                let text =
                    "--serve ssh: a secret signs nothing; name a connection, as in ssh=ssh/deploy";
                return Err(Failure::usage(text));
            }
        };
        Ok(pb::SigningTarget { target: Some(target) })
    }
}
