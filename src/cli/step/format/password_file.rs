//! Files with a line for each host and password.

use super::database::{Server, servers};
use super::login::{Login, host_of};
use super::picker::Picker;
use crate::cli::io::failure::Failure;

/// The default port of PostgreSQL.
const POSTGRES_PORT: &str = "5432";
/// The default directories for sockets of builds of libpq. For its own default, libpq looks up the password of
/// localhost.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/tmp", "/var/run/postgresql"];
const LOCALHOST: &str = "localhost";

/// `host:port:database:user:password` (PostgreSQL's documentation, "The Password File"), a line for each host. The
/// database is `*`: that of the connection is only a default.
pub fn pgpass(picker: &Picker<'_>) -> Result<String, Failure> {
    if !picker.is_postgres() {
        return Err(picker.wrong_integration("postgres connections"));
    }
    let [user, password] = [pgpass_part(picker, "user")?, pgpass_part(picker, "password")?];
    let mut lines = String::new();
    for Server { host, port } in servers(picker)? {
        let port = port.unwrap_or(POSTGRES_PORT);
        let names = match host {
            "" => vec![LOCALHOST],
            host if SOCKET_DIRECTORIES.contains(&host) => vec![LOCALHOST, host],
            host => vec![host],
        };
        for host in names {
            lines += &format!("{}:{port}:*:{user}:{password}\n", escaped(host));
        }
    }
    Ok(lines)
}

fn pgpass_part(picker: &Picker<'_>, field: &str) -> Result<String, Failure> {
    let value = picker.get(field)?;
    match value.contains(['\n', '\r']) {
        true => Err(picker.unfit(field, "holds a line break")),
        false => Ok(escaped(value)),
    }
}

/// Escapes a value. A lone `*` would match everything, and # would begin a comment.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace(':', r"\:");
    match value.as_str() == "*" || value.starts_with('#') {
        true => format!("\\{value}"),
        false => value,
    }
}

/// `machine HOST login USER password PASSWORD`. Fails if the programs that read netrc would read a value differently.
pub fn netrc(picker: &Picker<'_>) -> Result<String, Failure> {
    let Login { server, username, password, .. } = Login::of(picker)?;
    let host = server.map(host_of).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| picker.wrong_integration("connections that name a host"))?;
    for (field, value) in
        [("the host", host), ("the user name", username), ("the password", password)]
    {
        // curl and Python read quotes and escapes. git and others do not.
        let is_read_differently = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        if value.is_empty() || value.contains(is_read_differently) || value.starts_with(['"', '#'])
        {
            let why = "is empty, or holds spaces, backslashes or a quote or # at its beginning";
            return Err(picker.unfit(field, why));
        }
    }
    Ok(format!("machine {host} login {username} password {password}\n"))
}
