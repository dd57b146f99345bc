//! Registries' credentials in the form of Docker's configuration.
//!
//! The form: <https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::fit::{By, Named};
use super::found::{Entry, Found, connection, not_json};
use super::place::place;
use super::wanted::Wanted;

/// The two types of Secrets that hold it.
#[derive(Clone, Copy)]
pub enum Form {
    /// `~/.docker/config.json`
    Config,
    /// `~/.dockercfg`, the older one: the registries alone.
    Registries,
}

#[derive(Deserialize)]
struct Config {
    auths: Registries,
}

type Registries = BTreeMap<String, Login>;

/// What is known of one registry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    /// Base64 of `username:password`.
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

impl Form {
    /// The form in Secrets of this type.
    pub fn of(secret_type: &str) -> Option<Self> {
        match secret_type {
            "kubernetes.io/dockerconfigjson" => Some(Self::Config),
            "kubernetes.io/dockercfg" => Some(Self::Registries),
            _ => None,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Config => ".dockerconfigjson",
            Self::Registries => ".dockercfg",
        }
    }

    fn registries(self, bytes: &[u8]) -> Result<Registries, serde_json::Error> {
        match self {
            Self::Config => serde_json::from_slice::<Config>(bytes).map(|config| config.auths),
            Self::Registries => serde_json::from_slice(bytes),
        }
    }
}

/// The connections that an object's registries become: of its name, and the registry's if there are several.
pub fn read(name: &str, form: Form, values: Vec<Named>, wanted: &Wanted) -> Found {
    let key = form.key();
    let (configs, rest): (Vec<_>, Vec<_>) = values.into_iter().partition(|one| one.name == key);
    let mut found = place(rest, By::AnyName, Some(name), wanted);
    let Some(config) = configs.into_iter().next() else {
        found.problems.push(format!("{key} is missing"));
        return found;
    };
    let registries = match form.registries(&config.value) {
        Ok(registries) => registries,
        Err(error) => {
            found.problems.push(format!("{key}: {}", not_json(&error)));
            return found;
        }
    };
    let is_one = registries.len() == 1;
    for (server, login) in registries {
        let from = format!("{key}: {server}");
        let name = if is_one { name.to_owned() } else { format!("{name}-{}", host(&server)) };
        let fields = match login.fields(server) {
            Ok(fields) => fields,
            Err(why) => {
                found.skip(from, why);
                continue;
            }
        };
        match connection(("docker-registry", &name), "basic", fields, &wanted.resolvers) {
            Ok(document) => found.entries.push(Entry { from, document }),
            Err(invalid) => found.problems.push(format!("{from}: {invalid}")),
        }
    }
    found
}

impl Login {
    fn fields(self, server: String) -> Result<[(String, Vec<u8>); 3], &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if given(self.identity_token).is_some() {
            return Err("an identity token is no user name and password");
        }
        let (username, password) = match (given(self.username), given(self.password)) {
            (Some(username), Some(password)) => (username, password),
            _ => given(self.auth)
                .and_then(|auth| String::from_utf8(STANDARD.decode(auth).ok()?).ok())
                .and_then(|both| {
                    both.split_once(':').map(|(user, rest)| (user.to_owned(), rest.to_owned()))
                })
                .filter(|(username, password)| !username.is_empty() && !password.is_empty())
                .ok_or("it has no user name and password")?,
        };
        Ok([
            ("server".to_owned(), server.into_bytes()),
            ("username".to_owned(), username.into_bytes()),
            ("password".to_owned(), password.into_bytes()),
        ])
    }
}

/// A registry's host and port, as a part of a name.
fn host(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).replace(':', "-")
}
