//! The server of a connection, and the way to it.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::TlsConnect;

use super::bounded::Bounded;
use super::refusal::failure;
use super::session::Session;
use crate::egress::{Destination, Egress, EgressError, Handshake, HostAndPort, SecureStream};
use crate::mint::failure::{Failure, FailureReason};
use crate::mint::roots::Roots;

/// The protocol's name in TLS. PostgreSQL 17 and later refuse another.
const PROTOCOL: &[u8] = b"postgresql";
/// The port if the connection names none.
const DEFAULT_PORT: u16 = 5432;

/// A server, with the login of the admin role.
#[derive(Clone)]
pub(super) struct Server<'a> {
    pub(super) destination: Destination,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
    password: &'a [u8],
    ca_certificate: Option<&'a [u8]>,
    is_any_name: bool,
}

impl<'a> Server<'a> {
    /// Reads the fields of a connection.
    ///
    /// # Errors
    /// If a field is missing or malformed.
    pub(super) fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let host = roots.text("host")?.parse();
        let host = host.map_err(|fault: String| Failure::field("host", &fault))?;
        let port = match roots.optional("port")? {
            Some(text) => text.parse().ok().filter(|port| *port > 0),
            None => Some(DEFAULT_PORT),
        };
        let port = port.ok_or_else(|| Failure::field("port", "is no number from 1 to 65535"))?;
        let ca_certificate = roots.value("ca_certificate").map(|pem| pem.expose());
        let (is_plain, is_any_name) = match roots.optional("sslmode")?.unwrap_or("verify-full") {
            "verify-full" => (false, false),
            // Any host has a certificate of an authority that all trust.
            "verify-ca" if ca_certificate.is_some() => (false, true),
            "verify-ca" => {
                return Err(Failure::field("ca_certificate", "is missing, which verify-ca needs"));
            }
            "disable" => (true, false),
            _ => {
                return Err(Failure::field("sslmode", "is not verify-full, verify-ca or disable"));
            }
        };
        Ok(Self {
            destination: Destination { at: HostAndPort { host, port }, is_plain },
            database: roots.text("database")?,
            user: roots.text("admin_user")?,
            password: roots.bytes("admin_password")?,
            ca_certificate,
            is_any_name,
        })
    }

    /// The same server, with another database.
    pub(super) fn with_database(&self, database: &'a str) -> Self {
        Self { database, ..self.clone() }
    }

    /// The place, for people.
    pub(super) fn at(&self) -> &HostAndPort {
        &self.destination.at
    }

    /// Connects as the admin role.
    ///
    /// # Errors
    /// If the server cannot be reached, has no TLS that can be accepted, or refuses the admin role.
    pub(super) async fn connect(&self, egress: &Egress) -> Result<Session, Failure> {
        let stream = Bounded::new(egress.connect(&self.destination).await?);
        let is_plain = self.destination.is_plain;
        let mut config = Config::new();
        config.user(self.user).password(self.password).dbname(self.database);
        config.application_name("keyhatch");
        // A database's or a role's own settings are weaker.
        config.options("-c default_transaction_read_only=off -c role=none");
        config.ssl_mode(if is_plain { SslMode::Disable } else { SslMode::Require });
        let has_tls = AtomicBool::new(is_plain);
        let tls = Secured { egress, server: self, has_tls: &has_tls };
        match config.connect_raw(stream, tls).await {
            Ok((client, connection)) => Ok(Session::new(client, connection, self.at().clone())),
            Err(error) if has_tls.load(Ordering::Relaxed) => Err(failure(self.at(), error)),
            Err(error) => Err(match failure(self.at(), error) {
                failure if failure.reason == FailureReason::Unavailable => failure,
                _ => self.no_tls(),
            }),
        }
    }

    fn no_tls(&self) -> Failure {
        let at = self.at();
        let detail = format!(
            "{at}: the server has no TLS; switch its setting ssl on, or write sslmode disable and add http://{at} to \
             egress.allow"
        );
        Failure::new(FailureReason::Refused, detail)
    }
}

/// TLS, once the server has said that it has TLS.
struct Secured<'a> {
    egress: &'a Egress,
    server: &'a Server<'a>,
    has_tls: &'a AtomicBool,
}

impl<'a> TlsConnect<Bounded<TcpStream>> for Secured<'a> {
    type Stream = Bounded<SecureStream>;
    type Error = EgressError;
    type Future = BoxFuture<'a, Result<Self::Stream, EgressError>>;

    fn connect(self, stream: Bounded<TcpStream>) -> Self::Future {
        let Secured { egress, server, has_tls } = self;
        has_tls.store(true, Ordering::Relaxed);
        let Server { ca_certificate, is_any_name, .. } = *server;
        let how = Handshake { protocol: PROTOCOL, ca_certificate, is_any_name };
        let secured = async move {
            let stream = egress.secure(stream.into_inner(), server.at(), &how).await?;
            Ok(Bounded::new(stream))
        };
        secured.boxed()
    }
}
