//! The broker as a step sees it, also when it is restarted meanwhile.

use std::path::PathBuf;

use tokio::sync::Mutex;
use tonic::transport::Channel;

use super::Common;
use super::credential::Credential;
use super::endpoint::{Caller, connect};
use super::failure::Failure;
use crate::model::Reference;

/// A connection that is made again when it is gone.
pub struct Session {
    state: Option<PathBuf>,
    channel: Mutex<Channel>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn open(common: &Common) -> Result<Self, Failure> {
        let channel = connect(Caller::Step, common.state.as_deref()).await?;
        Ok(Self { state: common.state.clone(), channel: Mutex::new(channel) })
    }

    /// The connection as it is now.
    pub async fn channel(&self) -> Channel {
        self.channel.lock().await.clone()
    }

    /// Resolves a reference; once more by a new connection if the broker is not there on this one.
    ///
    /// # Errors
    /// As [`Credential::resolve`].
    pub async fn resolve(
        &self,
        reference: &Reference,
        fields: Vec<String>,
    ) -> Result<Credential, Failure> {
        let channel = self.channel().await;
        let resolved = Credential::resolve(channel, reference.clone(), fields.clone(), None).await;
        match resolved {
            Err(failure) if failure.is_of_the_connection() => {
                let channel = connect(Caller::Step, self.state.as_deref()).await?;
                *self.channel.lock().await = channel.clone();
                Credential::resolve(channel, reference.clone(), fields, None).await
            }
            resolved => resolved,
        }
    }
}
