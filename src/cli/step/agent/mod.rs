//! `exec --serve ssh=REF`: an agent of ssh that signs through the broker, for the life of one command.
//!
//! The private key never comes here: the agent passes logins on to the broker and signatures back. Its socket is in a
//! directory for the command's user alone, and the kernel names the user of every connection.

mod connection;
mod directory;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::cli::identity::session::Session;
use crate::cli::io::failure::Failure;
use crate::model::Reference;
use directory::AgentDirectory;
use signing::SigningConnection;

/// The most open connections. More connections wait.
const MAX_CONNECTIONS: usize = 16;
/// How long to wait before accepting again if the system has no file descriptor left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(250);

/// An agent that is served until this is dropped.
pub struct SshAgent {
    directory: AgentDirectory,
    serving: JoinHandle<()>,
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
