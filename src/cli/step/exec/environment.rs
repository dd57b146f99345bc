//! The variables of the command.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::Arc;

use super::arguments::EnvArgument;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::step::credential::Credential;
use crate::cli::step::listener::Listener;
use crate::model::Reference;

/// What programs need to find themselves, and no credential is in.
const PRISTINE: [&str; 9] =
    ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// Where requests go to a proxy.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What is set and what is taken away, and what that is made of.
pub struct Environment {
    pristine: bool,
    wanted: Arc<[EnvArgument]>,
    taken: Vec<Arc<Credential>>,
    set: BTreeMap<String, OsString>,
    /// By what each variable is set.
    givers: BTreeMap<String, Giver>,
    unset: BTreeSet<String>,
}

/// An option that sets variables.
#[derive(Clone, PartialEq, Eq)]
struct Giver {
    reference: Reference,
    is_of_file: bool,
    has_customary_names: bool,
}

impl Environment {
    /// The environment that this process has, or next to nothing of it, what was wanted of credentials, and what leads
    /// the command's tools to the listener.
    ///
    /// # Errors
    /// If a value cannot stand in a variable, or two are for one variable.
    pub fn of(
        pristine: bool,
        wanted: Arc<[EnvArgument]>,
        taken: &[Arc<Credential>],
        listener: Option<&Listener>,
    ) -> Result<Self, Failure> {
        let (set, givers, unset) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let parts = Arc::clone(&wanted);
        let mut environment = Self { pristine, wanted, taken: taken.to_vec(), set, givers, unset };
        for (wanted, credential) in parts.iter().zip(taken) {
            environment.add(wanted, credential)?;
        }
        if let Some(listener) = listener {
            environment.serve(listener)?;
        }
        Ok(environment)
    }

    /// The same of other credentials.
    ///
    /// # Errors
    /// As [`Environment::of`].
    pub fn with(
        &self,
        taken: &[Arc<Credential>],
        listener: Option<&Listener>,
    ) -> Result<Self, Failure> {
        Self::of(self.pristine, Arc::clone(&self.wanted), taken, listener)
    }

    /// Whether these credentials have the values that it was made of.
    pub fn is_of(&self, taken: &[Arc<Credential>]) -> bool {
        self.taken.iter().zip(taken).all(|(ours, other)| ours.has_values_of(other))
    }

    /// How many credentials it is made of.
    pub fn parts(&self) -> usize {
        self.wanted.len()
    }

    /// Sets what was wanted of a credential, and takes away what would stand in its way. What stands in a file comes
    /// first, and gives way to the command line.
    ///
    /// # Errors
    /// If a value cannot stand in a variable, or a variable is set already.
    fn add(&mut self, wanted: &EnvArgument, credential: &Credential) -> Result<(), Failure> {
        let giver = Giver {
            reference: wanted.reference.clone(),
            is_of_file: wanted.is_of_file,
            has_customary_names: wanted.has_customary_names(),
        };
        for (name, value) in wanted.variables(credential)? {
            match self.givers.get(&name).cloned() {
                None => {}
                Some(before) if before.is_of_file && !giver.is_of_file => {
                    self.give_way(&name, &before, &giver);
                }
                Some(before) => {
                    return Err(set_twice(&name, &before.reference, &giver.reference.to_string()));
                }
            }
            self.givers.insert(name.clone(), giver.clone());
            self.set.insert(name, OsStr::from_bytes(value.expose()).to_owned());
        }
        if wanted.has_customary_names() {
            self.unset.extend(credential.shadowing().iter().cloned());
        }
        Ok(())
    }

    /// Of two whole credentials no part of the one stays with the other.
    fn give_way(&mut self, name: &str, before: &Giver, to: &Giver) {
        let is_whole = before.has_customary_names && to.has_customary_names;
        let goes = |other: &String, giver: &Giver| other == name || (is_whole && giver == before);
        let gone: Vec<String> = self
            .givers
            .iter()
            .filter(|(other, giver)| goes(other, giver))
            .map(|(other, _)| other.clone())
            .collect();
        for name in gone {
            self.givers.remove(&name);
            self.set.remove(&name);
        }
    }

    /// Sets what leads the command's tools to the listener.
    ///
    /// # Errors
    /// If a variable is set already.
    fn serve(&mut self, listener: &Listener) -> Result<(), Failure> {
        for name in listener.shadowing() {
            if self.set.contains_key(&name) {
                say(&format!("warning: {name} is set by --env, and tools prefer it to --serve"));
            }
            self.unset.insert(name);
        }
        for (name, value) in listener.variables() {
            if let Some(before) = self.givers.get(&name) {
                return Err(set_twice(&name, &before.reference, "--serve"));
            }
            self.set.insert(name, OsString::from(value));
        }
        self.spare_proxies(&listener.host());
        Ok(())
    }

    /// A request to the listener goes to it and to no proxy, with the token.
    fn spare_proxies(&mut self, host: &str) {
        if PROXIES.iter().any(|name| std::env::var_os(name).is_some()) {
            // Some tools read the one, some the other.
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

    /// Makes it the command's.
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
