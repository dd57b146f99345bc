//! Credentials of registries in Docker's configuration.
//!
//! The format: <https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;

use super::json::{Once, not_json};
use super::text::decoded;
use crate::cli::operator::import::assign::{SourceObject, assign};
use crate::cli::operator::import::extracted::{Entry, Extracted, connection};
use crate::cli::operator::import::fit::{MatchBy, NamedValue};
use crate::cli::operator::import::options::ImportOptions;

/// The two types of Secrets with such a configuration.
#[derive(Clone, Copy)]
pub enum DockerSecretForm {
    /// `~/.docker/config.json`
    Config,
    /// `~/.dockercfg`, the older format: only the registries.
    Registries,
}

#[derive(Deserialize)]
struct DockerConfigFile {
    /// Missing if programs keep all credentials.
    auths: Option<Registries>,
}

type Registries = Once<RegistryLogin>;

/// The login of one registry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RegistryLogin {
    username: Option<String>,
    password: Option<String>,
    /// Base64 of `username:password`. As for Docker and Kubernetes it takes precedence.
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

impl DockerSecretForm {
    /// The format in Secrets of this type; `None` if they have no such configuration.
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

    fn registries(self, bytes: &[u8]) -> Result<BTreeMap<String, RegistryLogin>, String> {
        let text = decoded(bytes)?;
        let read = match self {
            Self::Config => {
                serde_json::from_str::<DockerConfigFile>(text).map(|config| config.auths)
            }
            Self::Registries => serde_json::from_str(text).map(Some),
        };
        let registries = read.map_err(|error| not_json(&error, 0))?;
        Ok(registries.map(|Once(registries)| registries).unwrap_or_default())
    }
}

/// Reads a Secret: its registries become connections of its name, with the name of the registry if there are several.
pub fn of_secret(
    origin: &SourceObject,
    form: DockerSecretForm,
    values: Vec<NamedValue>,
    wanted: &ImportOptions,
) -> Extracted {
    let key = form.key();
    let (configs, rest): (Vec<_>, Vec<_>) = values.into_iter().partition(|one| one.name == key);
    let mut found = assign(rest, MatchBy::AnyName, Some(origin), wanted);
    match configs.into_iter().next() {
        Some(config) => {
            found.add(of_registries(form, &config.value, Some(origin), wanted).within(key));
        }
        None => found.problems.push(format!("{key} is missing")),
    }
    found
}

/// Reads Docker's own file: connections get the names of the registries.
pub fn read(bytes: &[u8], wanted: &ImportOptions) -> Extracted {
    of_registries(DockerSecretForm::Config, bytes, None, wanted)
}

fn of_registries(
    form: DockerSecretForm,
    bytes: &[u8],
    origin: Option<&SourceObject>,
    wanted: &ImportOptions,
) -> Extracted {
    let registries = match form.registries(bytes) {
        Ok(registries) => registries,
        Err(problem) => return Extracted::problem(problem),
    };
    let mut found = Extracted::default();
    if registries.is_empty() {
        found.skip(
            "all of it",
            "it has no auths: programs (credsStore, credHelpers) keep its credentials",
        );
    }
    let is_there = |only: &&String| {
        registries.keys().any(|server| server == *only || as_name(server) == **only)
    };
    if origin.is_none() {
        let absent = wanted.only.iter().filter(|only| !is_there(only));
        found.problems.extend(absent.map(|only| format!("there is no registry {only}")));
    }
    let is_one = registries.len() == 1;
    for (server, login) in registries {
        let place = as_name(&server);
        let name = match origin {
            Some(origin) if is_one => origin.name.clone(),
            Some(origin) => format!("{}-{place}", origin.name),
            None => place.clone(),
        };
        let of_origin = origin.into_iter().flat_map(|origin| &origin.called);
        let whole = of_origin.clone().filter(|_| is_one).cloned();
        let within = of_origin.map(|origin| format!("{origin}/{server}"));
        let called = within.chain(whole).chain([server.clone(), place]).collect::<Vec<_>>();
        let names: Vec<_> = called.iter().map(String::as_str).collect();
        if origin.is_none() && !wanted.takes(&names) {
            continue;
        }
        if server.contains(['*', '?', '[']) {
            found.skip(server, "it is a pattern, and a connection is for one registry");
            continue;
        }
        match login.fields(&server) {
            Ok(fields) => {
                let reference = ("docker-registry", name.as_str());
                let document = connection(reference, "basic", fields, wanted.access());
                found.entries.push(Entry { from: server, called, document });
            }
            Err(why) => found.skip(server, why),
        }
    }
    found
}

impl RegistryLogin {
    fn fields(self, server: &str) -> Result<[(String, Vec<u8>); 3], &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if given(self.identity_token).is_some() {
            return Err("an identity token is no user name and password");
        }
        let (username, password) = match given(self.auth) {
            Some(auth) => from_auth(&auth).ok_or("its auth is not the Base64 of USER:PASSWORD")?,
            None => given(self.username)
                .zip(given(self.password))
                .ok_or("it has no user name and password; a program (credsStore) may keep them")?,
        };
        Ok([
            ("server".to_owned(), server.as_bytes().to_vec()),
            ("username".to_owned(), username.into_bytes()),
            ("password".to_owned(), password.into_bytes()),
        ])
    }
}

/// User name and password of an `auth`. As for Docker the padding of Base64 is optional.
fn from_auth(auth: &str) -> Option<(String, String)> {
    let decoded = STANDARD_NO_PAD.decode(auth.trim_ascii().trim_end_matches('=')).ok()?;
    let both = String::from_utf8(decoded).ok()?;
    let (username, password) = both.split_once(':')?;
    let password = password.trim_matches('\0');
    let is_whole = !username.is_empty() && !password.is_empty();
    is_whole.then(|| (username.to_owned(), password.to_owned()))
}

/// The address of a registry as a name: without scheme and API version, and with - for other characters.
fn as_name(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/');
    let rest = rest.strip_suffix("/v1").or_else(|| rest.strip_suffix("/v2")).unwrap_or(rest);
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._-@+".contains(c) { c } else { '-' };
    let name: String = rest.chars().map(fit).collect();
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}
