//! A connection as the admin role.

use std::future::poll_fn;
use std::pin::pin;

use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio_postgres::{Client, Connection, Error, SimpleQueryMessage, SimpleQueryRow};

use super::bounded::Bounded;
use super::refusal::{failure, sqlstate};
use super::sql::BEGIN;
use crate::egress::{HostAndPort, SecureStream};
use crate::mint::failure::Failure;

/// A connection to a server. Notices of the server are dropped.
pub(super) struct Session {
    client: Client,
    connection: Connection<Bounded<TcpStream>, Bounded<SecureStream>>,
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
    pub(super) fn new(
        client: Client,
        connection: Connection<Bounded<TcpStream>, Bounded<SecureStream>>,
        at: HostAndPort,
    ) -> Self {
        Self { client, connection, at }
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
        match self.run(sql).await {
            Ok(rows) => Ok(rows),
            Err(error) => {
                let code = sqlstate(&error).map(str::to_owned);
                let failure = failure(&self.at, error);
                let Some(code) = code else { return Err(Refused::Other(failure)) };
                // The server ends the transaction anyway if this connection breaks.
                let _ = self.run("ROLLBACK").await;
                Err(Refused::Code(code, failure))
            }
        }
    }

    /// Makes the transaction take effect.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks. Nobody knows then whether the transaction has taken effect.
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let ended = self.run("COMMIT").await;
        ended.map(drop).map_err(|error| failure(&self.at, error))
    }

    /// Ends the transaction without effect.
    ///
    /// # Errors
    /// If the connection breaks: the transaction has no effect then, either.
    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        let ended = self.run("ROLLBACK").await;
        ended.map(drop).map_err(|error| failure(&self.at, error))
    }

    /// Says good-bye, so that the server notes no broken connection.
    pub(super) async fn close(self) {
        let Self { client, mut connection, .. } = self;
        drop(client);
        while let Some(Ok(_)) = poll_fn(|cx| connection.poll_message(cx)).await {}
    }

    async fn run(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        let mut asked = pin!(self.client.simple_query(sql));
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut asked => break answer?,
                heard = poll_fn(|cx| self.connection.poll_message(cx)) => match heard {
                    Some(Ok(_)) => {}
                    // The answer says more than the end of the connection, if there is one.
                    Some(Err(error)) => match asked.as_mut().now_or_never() {
                        Some(answer) => break answer?,
                        None => return Err(error),
                    },
                    None => break asked.await?,
                },
            }
        };
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Row(row)),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// A row of an answer.
pub(super) struct Row(SimpleQueryRow);

impl Row {
    /// The text of a column; empty if it is NULL or missing.
    pub(super) fn text(&self, column: usize) -> &str {
        self.0.try_get(column).ok().flatten().unwrap_or_default()
    }
}
