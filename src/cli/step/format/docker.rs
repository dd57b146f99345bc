//! The configuration file of Docker.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::login::{Login, authority_of};
use super::picker::Picker;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;

/// Docker's name for its own registry, and the other names of that registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const HUB_NAMES: [&str; 4] =
    ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// The user name that marks a login as an identity token.
const TOKEN_USER: &str = "<token>";

/// `{"auths": {SERVER: {"auth": …}}}`, or with `"identitytoken"`.
pub fn config(picker: &Picker<'_>) -> Result<String, Failure> {
    let Login { server, username, password, .. } = Login::of(picker)?;
    let server =
        server.ok_or_else(|| picker.wrong_integration("connections that name a server"))?;
    if username == TOKEN_USER {
        let login = json!({ "identitytoken": password });
        return Ok(output::json(&json!({ "auths": { server_key(server): login } }))? + "\n");
    }
    if username.contains(':') {
        // The password begins after the first colon.
        return Err(picker.unfit("the user name", "holds a colon"));
    }
    let auth = STANDARD.encode(format!("{username}:{password}"));
    Ok(output::json(&json!({ "auths": { server_key(server): { "auth": auth } } }))? + "\n")
}

/// The name of a registry in Docker's files.
pub fn server_key(server: &str) -> &str {
    let authority = authority_of(server);
    let is_hub = HUB_NAMES.iter().any(|name| name.eq_ignore_ascii_case(authority));
    if is_hub { DOCKER_HUB } else { authority }
}
