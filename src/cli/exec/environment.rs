//! The variables of the command.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::wanted::Wanted;
use crate::cli::credential::Credential;
use crate::cli::failure::Failure;
use crate::cli::listener::Listener;
use crate::cli::output::say;

/// What programs need to find themselves, and no credential is in.
const PRISTINE: [&str; 9] =
    ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// A request to this machine must not go to a proxy, with the token.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What is set and what is taken away.
pub struct Environment {
    pristine: bool,
    set: BTreeMap<String, OsString>,
    unset: BTreeSet<String>,
}

impl Environment {
    /// The environment that this process has, or next to nothing of it.
    pub fn inherited(pristine: bool) -> Self {
        Self { pristine, set: BTreeMap::new(), unset: BTreeSet::new() }
    }

    /// Sets what was wanted of a credential, and takes away what would stand in its way.
    ///
    /// # Errors
    /// If a value cannot stand in a variable.
    pub fn add(&mut self, wanted: &Wanted, credential: &Credential) -> Result<(), Failure> {
        for (name, value) in wanted.variables(credential)? {
            if self.set.contains_key(&name) {
                say(&format!("warning: {name} is given twice; {} wins", wanted.reference));
            }
            self.set.insert(name, OsStr::from_bytes(value.expose()).to_owned());
        }
        if wanted.has_customary_names() {
            self.unset.extend(credential.shadowing().iter().cloned());
        }
        Ok(())
    }

    /// Sets what leads the command's tools to the listener.
    pub fn serve(&mut self, listener: &Listener) {
        for name in listener.shadowing() {
            if self.set.contains_key(&name) {
                say(&format!("warning: {name} is set by --env, and tools prefer it to --serve"));
            }
            self.unset.insert(name);
        }
        for (name, value) in listener.variables() {
            if self.set.contains_key(&name) {
                say(&format!("warning: {name} is given twice; --serve wins"));
            }
            self.set.insert(name, OsString::from(value));
        }
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
                list.push("127.0.0.1");
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
