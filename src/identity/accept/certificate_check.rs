//! Whose certificate is let in right now, and the connections that were.
//!
//! ```text
//! chain, dates, SVID ─ is it accepted now, on this socket, of this user? ─ connection ─┬ removed, replaced ─ it ends
//!      webpki                  the registry, asked in the handshake                    └ its end has come  ─ it ends
//! ```
//!
//! rustls asks a verifier that all connections of a door share, so the handshake carries its own question with it.
//! The question is asked again when the connection is in the book: between the two somebody may have been removed.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::CertificateError;
use tokio_util::sync::CancellationToken;

use crate::identity::certificate::svid::Svid;
use crate::model::Timestamp;

/// How long the connections last whose certificate is accepted no more, so that open requests can say why they end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why a certificate is not accepted that its issuer has signed.
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
    /// Each has an alert of its own, so that clients can say what was wrong.
    fn from(refusal: CertificateRefusal) -> Self {
        match refusal {
            CertificateRefusal::WrongSocket => Self::ApplicationVerificationFailure,
            CertificateRefusal::Expired => Self::Expired,
            CertificateRefusal::Unknown => Self::Revoked,
        }
    }
}

/// Says whether a certificate is accepted now on one socket, from a Unix user.
pub type CertificateCheck = Arc<dyn Fn(&Svid, u32) -> Result<(), CertificateRefusal> + Send + Sync>;

tokio::task_local! {
    /// What the verifier asks of the handshake that it is called in.
    static HANDSHAKE_CHECK: HandshakeCheck;
}

struct HandshakeCheck {
    let_in: CertificateCheck,
    uid: u32,
    answer: OnceCell<Svid>,
}

/// Asks about a certificate in the handshake that is made here.
///
/// # Errors
/// If it is not accepted, or no handshake says whom to ask.
pub(crate) fn ask(svid: Svid) -> Result<(), CertificateError> {
    let asked = HANDSHAKE_CHECK.try_with(|question| {
        (question.let_in)(&svid, question.uid)?;
        let _ = question.answer.set(svid);
        Ok(())
    });
    let asked = asked.map_err(|_| CertificateError::ApplicationVerificationFailure)?;
    asked.map_err(|refusal: CertificateRefusal| refusal.into())
}

/// Makes a handshake that asks this, and says whose certificate was accepted in it.
pub(crate) async fn asking<S>(
    let_in: CertificateCheck,
    uid: u32,
    handshake: impl Future<Output = std::io::Result<S>>,
) -> std::io::Result<(S, Option<Svid>)> {
    let question = HandshakeCheck { let_in, uid, answer: OnceCell::new() };
    let made = async {
        let stream = handshake.await?;
        // Only now: before its end nobody has shown the certificate's key.
        Ok((stream, HANDSHAKE_CHECK.with(|question| question.answer.get().cloned())))
    };
    HANDSHAKE_CHECK.scope(question, made).await
}

/// The open connections of a door, by the end of their certificates.
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

/// A connection's line in the book, for as long as it lasts.
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
    /// Writes a connection down until what is returned is dropped. `end` is cancelled when it is to end.
    pub(super) fn book(
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

    /// Ends the connections whose certificates have ended.
    pub fn end_due(&self, now: Timestamp) {
        let mut book = self.0.lock();
        // Of those that end in this moment none is left: it is the first in which they are over.
        let left = book.lines.split_off(&(now, u64::MAX));
        end_soon(std::mem::replace(&mut book.lines, left).into_values());
    }

    /// Asks of every connection whether its certificate is accepted, and ends the others.
    pub fn end_others(&self) {
        let mut book = self.0.lock();
        end_soon(book.lines.extract_if(.., |_, line| !(line.is_accepted)()).map(|(_, line)| line));
    }
}

/// Ends these when they have had their last words.
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
    async fn a_connection_ends_with_its_certificate_and_no_other_does() {
        let book = Arc::new(OpenConnections::default());
        let ends: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
        let moment = Timestamp::from_millis;
        let booked: Vec<_> = [1000, 2000, 3000]
            .into_iter()
            .zip(&ends)
            .map(|(end, token)| book.book(moment(end), move || end != 3000, token.clone()))
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
