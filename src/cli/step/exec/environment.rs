//! The environment of the command.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::Arc;

use super::arguments::EnvArgument;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::step::credential::Credential;
use crate::cli::step::served::Served;
use crate::model::Reference;

/// Variables that programs need, and that hold no credential.
const PRISTINE: [&str; 9] =
    ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// Variables that send requests to a proxy.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Variables to set and to remove, and their source.
pub struct Environment {
    pristine: bool,
    arguments: Arc<[EnvArgument]>,
    credentials: Vec<Arc<Credential>>,
    set: BTreeMap<String, OsString>,
    /// The index of the argument that sets each variable.
    sources: BTreeMap<String, usize>,
    unset: BTreeSet<String>,
}

impl Environment {
    /// The environment of this process, or only its harmless variables if `pristine`, with the variables of these
    /// arguments and of what is served. Fails if a variable cannot hold a value, or two values are for one variable.
    pub fn new(
        pristine: bool,
        arguments: Arc<[EnvArgument]>,
        credentials: &[Arc<Credential>],
        served: Option<&Served>,
    ) -> Result<Self, Failure> {
        let (set, sources, unset) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let credentials = credentials.to_vec();
        let mut environment = Self { pristine, arguments, credentials, set, sources, unset };
        for index in 0..environment.arguments.len() {
            environment.add(index)?;
        }
        if let Some(served) = served {
            environment.serve(served)?;
        }
        Ok(environment)
    }

    /// The same environment with other credentials.
    pub fn with(
        &self,
        credentials: &[Arc<Credential>],
        served: Option<&Served>,
    ) -> Result<Self, Failure> {
        Self::new(self.pristine, Arc::clone(&self.arguments), credentials, served)
    }

    /// Whether these credentials have the same values as those of this environment.
    pub fn has_values_of(&self, credentials: &[Arc<Credential>]) -> bool {
        self.credentials.iter().zip(credentials).all(|(ours, other)| ours.has_values_of(other))
    }

    /// The number of credentials in this environment.
    pub fn credentials(&self) -> usize {
        self.arguments.len()
    }

    /// Sets the variables of one argument, and removes variables that tools would prefer. Arguments of files come
    /// first, and the command line overrides them.
    fn add(&mut self, index: usize) -> Result<(), Failure> {
        let (arguments, credential) = (Arc::clone(&self.arguments), self.credentials.get(index));
        let (Some(argument), Some(credential)) = (arguments.get(index), credential.cloned()) else {
            return Ok(());
        };
        for (name, value) in argument.variables(&credential)? {
            let before = self.sources.get(&name).copied();
            match before.and_then(|before| Some((before, arguments.get(before)?))) {
                None => {}
                Some((before, overridden)) if overridden.is_of_file && !argument.is_of_file => {
                    self.set.remove(&name);
                    self.sources.remove(&name);
                    // A whole credential replaces the other as a whole.
                    if overridden.has_customary_names() && argument.has_customary_names() {
                        self.sources.retain(|_, source| *source != before);
                        self.set.retain(|name, _| self.sources.contains_key(name));
                    }
                }
                Some((_, other)) => {
                    let ours = argument.reference.to_string();
                    return Err(set_twice(&name, &other.reference, &ours));
                }
            }
            self.sources.insert(name.clone(), index);
            self.set.insert(name, OsStr::from_bytes(value.expose()).to_owned());
        }
        if argument.has_customary_names() {
            self.unset.extend(credential.shadowing().iter().cloned());
        }
        Ok(())
    }

    /// Sets the variables by which tools find what is served.
    fn serve(&mut self, served: &Served) -> Result<(), Failure> {
        for name in served.shadowing() {
            if self.set.contains_key(&name) {
                say(&format!("warning: {name} is set by --env, and tools prefer it to --serve"));
            }
            self.unset.insert(name);
        }
        for (name, value) in served.variables() {
            let before = self.sources.get(&name).and_then(|index| self.arguments.get(*index));
            if let Some(before) = before {
                return Err(set_twice(&name, &before.reference, "--serve"));
            }
            if self.set.insert(name.clone(), OsString::from(value)).is_some() {
                let text = format!(
                    "{name} would be set by two --serve; name another variable for one, as in --serve http=API_URL=REF"
                );
                return Err(Failure::new("VARIABLE_TWICE", text, exit::FAILED));
            }
        }
        served.host().iter().for_each(|host| self.bypass_proxies(host));
        Ok(())
    }

    /// Keeps requests to the listener, which carry the token, away from proxies.
    fn bypass_proxies(&mut self, host: &str) {
        if PROXIES.iter().any(|name| std::env::var_os(name).is_some()) {
            // Tools read one of the two.
            let own = NO_PROXY.map(|name| {
                let set = self.set.get(name).cloned();
                set.or_else(|| std::env::var_os(name)).filter(|list| !list.is_empty())
            });
            let others = own.iter().flatten().next().cloned();
            for (name, own) in NO_PROXY.into_iter().zip(own) {
                let mut list = own.or_else(|| others.clone()).unwrap_or_default();
                if !list.is_empty() {
                    list.push(",");
                }
                list.push(host);
                self.set.insert(name.to_owned(), list);
            }
        }
    }

    /// Gives the environment to a command.
    pub fn apply(&self, command: &mut Command) {
        if self.pristine {
            command.env_clear();
            for (name, value) in std::env::vars_os() {
                let is_kept = name
                    .to_str()
                    .is_some_and(|name| PRISTINE.contains(&name) || name.starts_with("LC_"));
                if is_kept {
                    command.env(name, value);
                }
            }
        }
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(&self.set);
    }
}

fn set_twice(name: &str, one: &Reference, other: &str) -> Failure {
    let text = format!(
        "{name} would be set by {one} and by {other}; name the variables that you want, each as --env NAME=REF:FIELD"
    );
    Failure::new("VARIABLE_TWICE", text, exit::FAILED)
}
