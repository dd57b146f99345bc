//! Checks certificates against the registry in the handshake, and ends connections whose certificates are refused
//! later.
//!
//! ```text
//! chain, dates, SVID ─ accepted now, on this socket, for this user? ─ connection ─┬ removed, replaced ─ it ends
//!      webpki              the registry, asked during the handshake               └ expired           ─ it ends
//! ```
//!
//! rustls calls one verifier for all connections of a door, so each handshake carries its own check as a task-local
//! value. The check runs again when the connection is tracked, because the certificate may have been removed in
//! between.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::CertificateError;
use tokio_util::sync::CancellationToken;

use crate::identity::certificate::svid::Svid;
use crate::identity::socket::Origin;
use crate::model::Timestamp;

/// How long a connection lasts after its certificate was refused, so that open requests can report the reason.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why a certificate with a good signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRefusal {
    /// The certificate is for another socket.
    WrongSocket,
    /// The certificate has expired.
    Expired,
    /// The registry does not hold the certificate: it was removed, replaced or never issued.
    Unknown,
}

impl From<CertificateRefusal> for CertificateError {
    /// Each refusal has an alert of its own, so that clients can report the reason.
    fn from(refusal: CertificateRefusal) -> Self {
        match refusal {
            CertificateRefusal::WrongSocket => Self::ApplicationVerificationFailure,
            CertificateRefusal::Expired => Self::Expired,
            CertificateRefusal::Unknown => Self::Revoked,
        }
    }
}

/// Decides whether a certificate is accepted now on one socket, from an origin.
pub type CertificateCheck =
    Arc<dyn Fn(&Svid, Origin) -> Result<(), CertificateRefusal> + Send + Sync>;

tokio::task_local! {
    /// The check of the handshake that this task runs.
    static HANDSHAKE_CHECK: HandshakeCheck;
}

struct HandshakeCheck {
    check: CertificateCheck,
    origin: Origin,
    accepted: OnceCell<Svid>,
}

/// Checks a certificate by the check of the handshake that this task runs.
///
/// # Errors
/// If the certificate is not accepted, or this task runs no handshake.
pub(crate) fn check(svid: Svid) -> Result<(), CertificateError> {
    let asked = HANDSHAKE_CHECK.try_with(|handshake| {
        (handshake.check)(&svid, handshake.origin)?;
        let _ = handshake.accepted.set(svid);
        Ok(())
    });
    let asked = asked.map_err(|_| CertificateError::ApplicationVerificationFailure)?;
    asked.map_err(|refusal: CertificateRefusal| refusal.into())
}

/// Runs a handshake with a check, and returns the identity that was accepted in it.
pub(crate) async fn run_checked<S>(
    check: CertificateCheck,
    origin: Origin,
    handshake: impl Future<Output = std::io::Result<S>>,
) -> std::io::Result<(S, Option<Svid>)> {
    let handshake_check = HandshakeCheck { check, origin, accepted: OnceCell::new() };
    let made = async {
        let stream = handshake.await?;
        // The client proves that it has the certificate's key only at the end of the handshake.
        Ok((stream, HANDSHAKE_CHECK.with(|handshake| handshake.accepted.get().cloned())))
    };
    HANDSHAKE_CHECK.scope(handshake_check, made).await
}

/// The open connections of a door, sorted by the end of their certificates.
#[derive(Default)]
pub struct OpenConnections(Mutex<ConnectionTable>);

#[derive(Default)]
struct ConnectionTable {
    last: u64,
    lines: BTreeMap<(Timestamp, u64), ConnectionEntry>,
}

struct ConnectionEntry {
    is_accepted: Box<dyn Fn() -> bool + Send + Sync>,
    end: CancellationToken,
}

/// A tracked connection. It is forgotten when this value is dropped.
pub(crate) struct TrackedConnection {
    book: Arc<OpenConnections>,
    place: (Timestamp, u64),
}

impl Drop for TrackedConnection {
    fn drop(&mut self) {
        self.book.0.lock().lines.remove(&self.place);
    }
}

impl OpenConnections {
    /// Tracks a connection until the returned value is dropped. `end` is cancelled when the connection must end.
    pub(super) fn track(
        self: &Arc<Self>,
        not_after: Timestamp,
        is_accepted: impl Fn() -> bool + Send + Sync + 'static,
        end: CancellationToken,
    ) -> TrackedConnection {
        let mut book = self.0.lock();
        book.last += 1;
        let place = (not_after, book.last);
        book.lines.insert(place, ConnectionEntry { is_accepted: Box::new(is_accepted), end });
        TrackedConnection { book: Arc::clone(self), place }
    }

    /// Ends the connections whose certificates have expired.
    pub fn end_due(&self, now: Timestamp) {
        let mut book = self.0.lock();
        // A certificate that ends in this very millisecond has expired.
        let left = book.lines.split_off(&(now, u64::MAX));
        end_soon(std::mem::replace(&mut book.lines, left).into_values());
    }

    /// Checks the certificate of every connection again, and ends the connections that are no longer accepted.
    pub fn end_others(&self) {
        let mut book = self.0.lock();
        end_soon(book.lines.extract_if(.., |_, line| !(line.is_accepted)()).map(|(_, line)| line));
    }
}

/// Ends connections after [`LAST_WORDS`].
fn end_soon(lines: impl Iterator<Item = ConnectionEntry>) {
    let ends: Vec<_> = lines.map(|line| line.end).collect();
    if !ends.is_empty() {
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            ends.iter().for_each(CancellationToken::cancel);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_connections_with_ended_certificates_end() {
        let book = Arc::new(OpenConnections::default());
        let ends: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
        let moment = Timestamp::from_millis;
        let booked: Vec<_> = [1000, 2000, 3000]
            .into_iter()
            .zip(&ends)
            .map(|(end, token)| book.track(moment(end), move || end != 3000, token.clone()))
            .collect();
        let ended = || ends.iter().map(CancellationToken::is_cancelled).collect::<Vec<_>>();
        book.end_due(moment(1999));
        ends[0].cancelled().await;
        assert_eq!(ended(), [true, false, false]);
        book.end_others();
        ends[2].cancelled().await;
        assert_eq!(ended(), [true, false, true]);
        drop(booked);
        assert!(book.0.lock().lines.is_empty());
    }
}
