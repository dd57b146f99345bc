//! Addresses of servers with a login.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::login::Login;
use super::picker::Picker;
use crate::cli::io::failure::Failure;
use crate::cli::step::credential::Credential;
use crate::model::{FieldName, Reference, Value};

/// The field with the address of a database.
pub const URI_FIELD: &str = "uri";
/// The integrations with that field.
const DATABASES: [&str; 2] = ["mysql", "postgres"];

/// RFC 3986, section 2.3.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One of the servers of a database.
pub struct Server<'a> {
    /// A host name, an address, or a directory of sockets.
    pub host: &'a str,
    /// The port, if the connection has one.
    pub port: Option<&'a str>,
}

/// The servers of a database. libpq tries one after the other, each at its own port or all at the same port.
pub fn servers<'a>(picker: &Picker<'a>) -> Result<Vec<Server<'a>>, Failure> {
    let host = picker.get("host")?;
    if host.contains(['\n', '\r']) {
        return Err(picker.unfit("host", "holds a line break"));
    }
    let hosts: Vec<&str> = host.split(',').collect();
    let ports: Vec<&str> = picker.find("port")?.unwrap_or_default().split(',').collect();
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(picker.unfit("port", "names other ports than there are hosts"));
    }
    let ports =
        ports.iter().copied().cycle().map(|port| Some(port).filter(|port| !port.is_empty()));
    Ok(hosts.into_iter().zip(ports).map(|(host, port)| Server { host, port }).collect())
}

/// `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`, as libpq reads `DATABASE_URL`, or the address that
/// MySQL's tools read. For other connections, their own address with the login in it.
pub fn uri(picker: &Picker<'_>) -> Result<String, Failure> {
    let (scheme, option) = match picker {
        _ if picker.is_postgres() => ("postgresql", "sslmode"),
        _ if picker.is("mysql", "password") => ("mysql", "ssl-mode"),
        _ => return web(picker),
    };
    let servers = servers(picker)?.into_iter().map(|Server { host, port }| {
        let host = match host.contains(':') && !host.starts_with('/') {
            true => format!("[{}]", host.replace('%', "%25")),
            false => encoded(host),
        };
        port.map_or(host.clone(), |port| format!("{host}:{port}"))
    });
    let servers = servers.collect::<Vec<_>>().join(",");
    let login = login(picker.get("user")?, picker.get("password")?);
    let database = encoded(picker.find("database")?.unwrap_or_default());
    let options = picker.find("sslmode")?.map(|mode| format!("?{option}={}", encoded(mode)));
    Ok(format!("{scheme}://{login}@{servers}/{database}{}", options.unwrap_or_default()))
}

/// Whether a reference may name a database. The integration of a group is known only when it is resolved.
pub fn may_have_uri(reference: &Reference) -> bool {
    let integration = match reference {
        Reference::Connection(connection) => &connection.integration,
        Reference::Default(integration) => integration,
        Reference::Group(_) => return true,
        Reference::Secret(_) => return false,
    };
    DATABASES.contains(&integration.as_str())
}

/// Adds the address to the fields of a database. An existing field of that name stays.
pub fn add_uri(credential: &mut Credential) -> Result<(), Failure> {
    let name = FieldName::parse(URI_FIELD)?;
    if !credential.fields.contains_key(&name) {
        let uri = uri(&Picker::new(credential, URI_FIELD))?;
        credential.fields.insert(name, Value::new(uri.into_bytes()));
    }
    Ok(())
}

fn web(picker: &Picker<'_>) -> Result<String, Failure> {
    let Login { server, username, password, .. } = Login::of(picker)?;
    let parts = server.unwrap_or_default().split_once("://");
    let (scheme, rest) = parts.ok_or_else(|| {
        picker.wrong_integration("postgres and mysql connections, and logins for a URL")
    })?;
    Ok(format!("{scheme}://{}@{rest}", login(username, password)))
}

fn login(user: &str, password: &str) -> String {
    format!("{}:{}", encoded(user), encoded(password))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}
