//! Files that name hosts and passwords, a line each.

use super::login::{Login, host_of};
use super::picker::Picker;
use crate::cli::failure::Failure;

/// PostgreSQL's own, where a connection names none.
const POSTGRES_PORT: &str = "5432";

/// `host:port:database:user:password` (PostgreSQL's documentation, "The Password File"). Any database: the
/// connection's own is only the one to use where a step names none.
///
/// # Errors
/// If the connection is not one of PostgreSQL's, or a value holds a line break.
pub fn pgpass(picker: &Picker<'_>) -> Result<String, Failure> {
    if !picker.is("postgres", "password") {
        return Err(picker.wrong_integration("postgres connections"));
    }
    let mut line = Vec::new();
    for field in ["host", "port", "user", "password"] {
        let value = match field {
            "port" => picker.find(field)?.unwrap_or(POSTGRES_PORT),
            field => picker.get(field)?,
        };
        if value.contains(['\n', '\r']) {
            return Err(picker.unfit(field, "holds a line break"));
        }
        line.push(value.replace('\\', r"\\").replace(':', r"\:"));
    }
    line.insert(2, "*".to_owned());
    Ok(line.join(":") + "\n")
}

/// `machine HOST login USER password PASSWORD`
///
/// # Errors
/// If the connection has no login and host, or a value holds what readers of netrc read differently.
pub fn netrc(picker: &Picker<'_>) -> Result<String, Failure> {
    let Login { server, username, password } = Login::of(picker)?;
    let host = server.map(host_of).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| picker.wrong_integration("connections that name a host"))?;
    for (field, value) in
        [("the host", host), ("the user name", username), ("the password", password)]
    {
        // curl and Python know quotes and escapes, git and others do not.
        let is_read_differently = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        if value.is_empty() || value.contains(is_read_differently) || value.starts_with(['"', '#'])
        {
            let why = "is empty, or holds spaces, backslashes or a quote or # at its beginning";
            return Err(picker.unfit(field, why));
        }
    }
    Ok(format!("machine {host} login {username} password {password}\n"))
}
