//! `exec --serve ssh=REF`: an agent of ssh that signs through the broker, for the life of one command.
//!
//! The private key never comes here: the agent passes logins on to the broker and signatures back. Its socket is in a
//! directory for the command's user alone, and the kernel names the user of every connection.

mod connection;
mod directory;

use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::credential::target_of;
use super::get::within;
use crate::cli::identity::session::Session;
use crate::cli::io::failure::Failure;
use crate::grpc::pb;
use crate::grpc::pb::step_service_client::StepServiceClient;
use crate::model::Reference;
use directory::AgentDirectory;

/// The most open connections. More connections wait.
const MAX_CONNECTIONS: usize = 16;
/// How long to wait before accepting again if the system has no file descriptor left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(250);
/// How long the broker may take. ssh itself waits for ever.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent that is served until this is dropped.
pub struct SshAgent {
    directory: AgentDirectory,
    serving: JoinHandle<()>,
}

/// The connection whose key signs.
pub struct SigningConnection {
    reference: Reference,
    session: Arc<Session>,
}

impl SshAgent {
    /// Asks for the public key once, so that a refusal shows before the command runs, and opens the agent for this user.
    pub async fn start(
        reference: Reference,
        session: Arc<Session>,
        uid: Option<u32>,
    ) -> Result<Self, Failure> {
        let connection = SigningConnection { reference, session };
        let key = connection.key().await?;
        let own = geteuid().as_raw();
        let uid = uid.unwrap_or(own);
        let (directory, listener) =
            AgentDirectory::make(&key.user, &key.known_hosts, (uid != own).then_some(uid))?;
        let serving = tokio::spawn(serve(listener, uid, Arc::new(connection)));
        Ok(Self { directory, serving })
    }

    /// The variables by which ssh and git find the agent and its configuration.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.directory.variables()
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl SigningConnection {
    /// The public key, with what else a client needs.
    async fn key(&self) -> Result<pb::SigningKey, Failure> {
        let request = pb::GetSigningKeyRequest { target: Some(self.target()?) };
        let called = self.session.call(|channel| {
            let (mut client, request) = (StepServiceClient::new(channel), request.clone());
            async move { Ok(client.get_signing_key(request).await?.into_inner()) }
        });
        within(BROKER_TIMEOUT, called).await
    }

    /// The signature of a login.
    async fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
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

async fn serve(listener: UnixListener, uid: u32, signing: Arc<SigningConnection>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
            continue;
        };
        // Connections of other users, of whom only root gets this far, must not take a slot.
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.is_ok_and(|peer| peer == uid) {
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let signing = Arc::clone(&signing);
        tokio::spawn(async move {
            connection::answer(stream, &signing).await;
            drop(slot);
        });
    }
}
