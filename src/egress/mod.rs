//! The only way out of the daemon: one bounded HTTP exchange with an upstream.
//!
//! Names are resolved here, every address is checked, and a checked address is dialled. No redirect is followed.

mod error;
mod exchange;
mod policy;

pub use error::EgressError;
pub use exchange::{Headers, Reply, Request};
pub use policy::EgressTable;

use std::time::Duration;

/// How long a connection to an upstream may take: look-up, dial and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a whole exchange may take.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(7);

/// The way out, with its rules. The daemon has one.
pub struct Egress {
    #[expect(dead_code, reason = "skeleton")]
    table: EgressTable,
}

impl Egress {
    /// The way out by these rules.
    ///
    /// # Errors
    /// If a rule is not well formed.
    pub fn new(table: EgressTable) -> Result<Self, EgressError> {
        Ok(Self { table })
    }

    /// Sends one request and returns the reply, whatever its status is.
    ///
    /// # Errors
    /// If the rules deny the destination, or the upstream does not answer in time and within bounds.
    pub async fn exchange(&self, _request: Request) -> Result<Reply, EgressError> {
        Err(EgressError::Unavailable("skeleton".to_owned()))
    }
}
