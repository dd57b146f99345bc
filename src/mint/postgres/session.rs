//! A connection as the admin role.

use std::time::Duration;

use super::refusal::failure;
use super::sql::BEGIN;
use super::wire::{Fault, Row, Wire};
use crate::egress::HostAndPort;
use crate::mint::failure::Failure;

/// How long a server may take to end a connection, before it is left alone.
const GOOD_BYE: Duration = Duration::from_millis(500);

/// A connection to a server.
pub(super) struct Session {
    wire: Wire,
    at: HostAndPort,
}

/// Why statements failed.
pub(super) enum Refused {
    /// The server refused the statement, and nothing of its transaction stays.
    Code(String, Failure),
    /// Another failure.
    Other(Failure),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Code(_, failure) | Refused::Other(failure) => failure,
        }
    }
}

impl Session {
    /// A session on a connection whose login is over.
    pub(super) fn new(wire: Wire, at: HostAndPort) -> Self {
        Self { wire, at }
    }

    /// Runs statements in a transaction of their own, and returns all rows.
    ///
    /// # Errors
    /// If a statement is refused, or the connection breaks. It may break after the transaction has taken effect.
    pub(super) async fn transaction(&mut self, sql: &str) -> Result<Vec<Row>, Refused> {
        let rows = self.begin(sql).await?;
        self.commit().await.map_err(Refused::Other)?;
        Ok(rows)
    }

    /// Begins a transaction with these statements. If one is refused, the transaction is over.
    ///
    /// # Errors
    /// If a statement is refused, or the connection breaks: nothing has taken effect then.
    pub(super) async fn begin(&mut self, sql: &str) -> Result<Vec<Row>, Refused> {
        self.statements(&format!("{BEGIN}{sql}")).await
    }

    /// Runs statements in the transaction that has begun.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) async fn statements(&mut self, sql: &str) -> Result<Vec<Row>, Refused> {
        match self.wire.query(sql).await {
            Ok(rows) => Ok(rows),
            Err(Fault::Refused(code)) => {
                // The server ends the transaction anyway if this connection breaks.
                let _ = self.wire.query("ROLLBACK").await;
                let failure = failure(&self.at, &Fault::Refused(code.clone()));
                Err(Refused::Code(code, failure))
            }
            Err(fault) => Err(Refused::Other(failure(&self.at, &fault))),
        }
    }

    /// Makes the transaction take effect.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks. Nobody knows then whether the transaction has taken effect.
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let ended = self.wire.query("COMMIT").await;
        ended.map(drop).map_err(|fault| failure(&self.at, &fault))
    }

    /// Ends the transaction without effect.
    ///
    /// # Errors
    /// If the connection breaks: the transaction has no effect then, either.
    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        let ended = self.wire.query("ROLLBACK").await;
        ended.map(drop).map_err(|fault| failure(&self.at, &fault))
    }

    /// Says good-bye, so that the server notes no broken connection.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(GOOD_BYE, self.wire.close()).await;
    }
}
