//! The server of a connection, and the way to it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::login::{self, Binding, Login, log_in};
use super::refusal::failure;
use super::session::Session;
use super::sql;
use super::wire::{Fault, Wire};
use crate::egress::{Destination, Egress, Handshake, HostAndPort};
use crate::identity::server_end_point;
use crate::mint::failure::{Failure, FailureReason};
use crate::mint::roots::Roots;

/// The message that asks for TLS: its length, and its number (53.7).
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
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
            database: name(roots, "database")?,
            user: name(roots, "admin_user")?,
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
        let stream = egress.connect(&self.destination).await?;
        let (mut wire, binding) = match self.destination.is_plain {
            true => (Wire::new(stream), Binding::Plain),
            false => self.secure(egress, stream).await?,
        };
        let Self { user, password, database, .. } = *self;
        log_in(&mut wire, &Login { user, password, database }, &binding, self.at()).await?;
        Ok(Session::new(wire, self.at().clone()))
    }

    /// Begins TLS, if the server says that it has TLS.
    async fn secure(
        &self,
        egress: &Egress,
        mut stream: TcpStream,
    ) -> Result<(Wire, Binding), Failure> {
        let broken = |_| failure(self.at(), &Fault::Broken);
        stream.write_all(&TLS_REQUEST).await.map_err(broken)?;
        // No byte more is read, so that bytes before TLS are never taken for bytes of TLS.
        match stream.read_u8().await.map_err(broken)? {
            b'S' => {}
            b'N' => return Err(self.no_tls()),
            _ => return Err(failure(self.at(), &Fault::NoProtocol)),
        }
        let Self { ca_certificate, is_any_name, .. } = *self;
        let how = Handshake { protocol: PROTOCOL, ca_certificate, is_any_name, identity: None };
        let stream = egress.secure(stream, self.at(), &how).await?;
        let hash = stream.server_certificate().and_then(server_end_point);
        let binding = match (is_any_name, hash) {
            (false, hash) => Binding::IfOffered(hash),
            (true, Some(hash)) => Binding::Always(hash),
            (true, None) => return Err(login::not_bound(self.at())),
        };
        Ok((Wire::new(stream), binding))
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

/// The name that a field has.
fn name<'a>(roots: Roots<'a>, field: &str) -> Result<&'a str, Failure> {
    let is_name = |text: &str| sql::identifier(text).is_some();
    let found = roots.checked(field, "a name of 1 to 63 bytes", is_name)?;
    found.ok_or_else(|| Failure::field(field, "is missing"))
}
