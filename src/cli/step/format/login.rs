//! A user name, a password and their server, from any connection that has them.

use super::picker::Picker;
use crate::cli::io::failure::Failure;
use crate::cli::step::credential::Credential;

/// GitHub's own server.
const GITHUB: &str = "github.com";
/// The user name that GitHub accepts with a token as the password.
const GITHUB_USER: &str = "x-access-token";
/// The same for GitLab.
const GITLAB_USER: &str = "oauth2";

pub struct Login<'a> {
    /// A host, an address or a URL, if the connection has one.
    pub server: Option<&'a str>,
    pub username: &'a str,
    pub password: &'a str,
    /// Whether the password is a token. The server then accepts any user name.
    pub is_token: bool,
}

impl<'a> Login<'a> {
    /// The login of a connection. Fails if it has none.
    pub fn of(picker: &Picker<'a>) -> Result<Self, Failure> {
        if picker.is("github", "token") || picker.is("github", "app") {
            let server = picker.find("api_url")?.map_or(GITHUB, server_of_api);
            let (username, password) = (GITHUB_USER, picker.get("access_token")?);
            return Ok(Self { server: Some(server), username, password, is_token: true });
        }
        if picker.is("gitlab", "api_token") {
            let server = picker.find("base_url")?.or(Some("gitlab.com"));
            let (username, password) = (GITLAB_USER, picker.get("api_token")?);
            return Ok(Self { server, username, password, is_token: true });
        }
        let first = |names: &[&str]| {
            let mut found = names.iter().map(|name| picker.find(name));
            found.find_map(Result::transpose).transpose()
        };
        let username = first(&["username", "user"])?;
        let (Some(username), Some(password)) = (username, picker.find("password")?) else {
            return Err(picker.wrong_integration("connections with a user name and a password"));
        };
        let server = first(&["server", "host", "base_url", "url", "instance"])?;
        Ok(Self { server, username, password, is_token: false })
    }

    /// The login for a helper. Fails also if a value has a line break.
    pub fn for_helper(credential: &'a Credential, helper: &'static str) -> Result<Self, Failure> {
        let login = Self::of(&Picker::new(credential, helper))?;
        let has_line_break = |text: &str| text.contains(['\n', '\r']);
        if has_line_break(login.username) || has_line_break(login.password) {
            let picker = Picker::new(credential, helper);
            return Err(picker.unfit("the login", "holds a line break"));
        }
        Ok(login)
    }
}

/// The server whose API is at this URL: GitHub's own, one of `*.ghe.com`, or an Enterprise Server.
fn server_of_api(url: &str) -> &str {
    let authority = authority_of(url);
    authority.strip_prefix("api.").filter(|server| is_github(server)).unwrap_or(authority)
}

fn is_github(server: &str) -> bool {
    server == GITHUB || server.ends_with(".ghe.com")
}

/// The host in an address or URL: without scheme, user, port, path, and the brackets of IPv6.
pub fn host_of(server: &str) -> &str {
    let authority = authority_of(server);
    if let Some((host, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match authority.split_once(':') {
        // More colons are part of an IPv6 address.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

/// The host and port in an address or URL.
pub fn authority_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{authority_of, host_of, server_of_api};

    #[test]
    fn a_login_for_git_is_for_the_server_of_the_api() {
        for (url, server) in [
            ("https://api.github.com", "github.com"),
            ("https://api.octo.ghe.com/", "octo.ghe.com"),
            ("https://github.example.com/api/v3", "github.example.com"),
            ("https://api.example.com:8443/api/v3", "api.example.com:8443"),
        ] {
            assert_eq!(server_of_api(url), server, "{url}");
        }
    }

    #[test]
    fn a_host_is_found_in_every_form_of_address() {
        for (server, host) in [
            ("example.com", "example.com"),
            ("example.com:5000", "example.com"),
            ("https://user@example.com:8443/a/b?c", "example.com"),
            ("http://[::1]:80/", "::1"),
            ("fe80::1", "fe80::1"),
            ("", ""),
        ] {
            assert_eq!(host_of(server), host, "{server}");
        }
        assert_eq!(authority_of("https://example.com:8443/v1/"), "example.com:8443");
    }
}
