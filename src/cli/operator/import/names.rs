//! The names of imported documents: those in the file, or those of `--name`.

use std::collections::BTreeSet;

use super::extracted::{Entry, Extracted};
use crate::cli::io::failure::Failure;
use crate::grpc::pb::apply_request::Document;
use crate::model::{ConnectionName, Invalid, SecretName};

/// `--name NAME` and `--name OLD=NEW`.
#[derive(Default)]
pub struct NameArguments {
    /// The name of connections that have no name in the file, or of the only connection.
    only: Option<String>,
    /// Old and new names.
    mapped: Vec<(String, String)>,
}

impl NameArguments {
    /// Parses the arguments. New names have no =, but an old name may, as a profile's: the last = separates them.
    ///
    /// # Errors
    /// If an argument is neither the name of a connection nor a pair, or repeats another.
    pub fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut names = Self::default();
        for argument in arguments {
            let Some((old, new)) = argument.rsplit_once('=') else {
                ConnectionName::parse(argument)?;
                if names.only.replace(argument.clone()).is_some() {
                    return Err(Failure::usage(
                        "--name NAME is given twice; give --name OLD=NEW for each",
                    ));
                }
                continue;
            };
            if old.is_empty() || new.is_empty() {
                return Err(Failure::usage(format!("--name {argument}: write NAME or OLD=NEW")));
            }
            if names.mapped.iter().any(|(other, _)| other == old) {
                return Err(Failure::usage(format!("--name {old}=… is given twice")));
            }
            names.mapped.push((old.to_owned(), new.to_owned()));
        }
        Ok(names)
    }

    /// Renames the documents. A document with an invalid name is left out; a connection without a name is a problem.
    pub fn give(&self, found: &mut Extracted) {
        let named = |entry: &&Entry| is_connection(entry) && !entry.is_nameless();
        let named = found.entries.iter().filter(named).count();
        if let Some(only) = self.only.as_ref().filter(|_| named > 1) {
            let text = format!(
                "--name {only} would name {named} connections; give --name OLD=NEW for each"
            );
            found.problems.push(text);
            return;
        }
        let mut unused: BTreeSet<&str> = self.mapped.iter().map(|(old, _)| old.as_str()).collect();
        for mut entry in std::mem::take(&mut found.entries) {
            let mapped = self.mapped.iter().find(|(old, _)| entry.called.contains(old));
            if let Some((old, _)) = mapped {
                unused.remove(old.as_str());
            }
            let only = self.only.as_ref().filter(|_| is_connection(&entry));
            if let Some(name) = mapped.map(|(_, new)| new).or(only) {
                entry.rename(name);
            }
            let called = entry.called.first().map(String::as_str).unwrap_or_default();
            match entry.check_name() {
                Ok(()) => found.entries.push(entry),
                Err(_) if entry.is_nameless() => found.problems.push(format!(
                    "{}: a connection of {called}; give --name NAME to name it",
                    entry.from
                )),
                Err(invalid) => {
                    let why = format!("{invalid}; give it another: --name '{called}=NEW'");
                    found.skip(entry.from, why);
                }
            }
        }
        let unused = unused.into_iter();
        found
            .problems
            .extend(unused.map(|old| format!("nothing is called {old} (--name {old}=…)")));
    }
}

fn is_connection(entry: &Entry) -> bool {
    matches!(entry.document, Document::Connection(_))
}

impl Entry {
    /// True if neither the file nor `--name` has named the connection.
    fn is_nameless(&self) -> bool {
        matches!(&self.document, Document::Connection(one) if one.name.is_empty())
    }

    fn rename(&mut self, name: &str) {
        match &mut self.document {
            Document::Connection(one) => name.clone_into(&mut one.name),
            Document::Secret(one) => name.clone_into(&mut one.name),
            Document::Group(_) | Document::Integration(_) => {}
        }
    }

    fn check_name(&self) -> Result<(), Invalid> {
        match &self.document {
            Document::Connection(one) => ConnectionName::parse(&one.name).map(drop),
            Document::Secret(one) => SecretName::parse(&one.name).map(drop),
            Document::Group(_) | Document::Integration(_) => Ok(()),
        }
    }
}
