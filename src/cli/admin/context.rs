//! `keyhatch context`: the brokers elsewhere that this user operates.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::bundle::Bundle;
use super::enrolment::{KEY, REQUEST, make, open, write};
use crate::cli::Common;
use crate::cli::identity::contexts::{CONTEXTS, CURRENT, Contexts, missing};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::identity::identity_files;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{list, print, say};
use crate::cli::io::prompt::confirm;
use crate::config::default_identity;
use crate::identity::{BrokerAddress, RemoteBroker, Svid, check_pair};
use crate::model::{Clock, ContextName, SpiffeId};
use crate::sys::Directory;

/// `keyhatch context …`
#[derive(Subcommand)]
pub enum ContextCommand {
    /// Take the bundle of keyhatch operator add --remote, with the key that keyhatch operator request made here
    Add(Add),
    /// Make a context the current one, which the commands of operators use
    Use {
        /// The context.
        name: ContextName,
    },
    /// List the contexts
    #[command(alias = "ls")]
    List,
    /// Remove a context, and its key with it
    Remove {
        /// The context.
        name: ContextName,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `context add`.
#[derive(clap::Args)]
pub struct Add {
    /// The file of the bundle; - for stdin.
    #[arg(value_name = "FILE")]
    bundle: PathBuf,
    /// The name of the context; by default the broker's host.
    #[arg(long)]
    name: Option<ContextName>,
    /// The directory in which keyhatch operator request made the key, if that was given --out. The key moves into the
    /// context.
    #[arg(long, value_name = "DIR")]
    request: Option<PathBuf>,
}

impl ContextCommand {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(common),
            Self::Use { name } => {
                let contexts = Contexts::of_user().ok_or_else(|| missing(&name))?;
                let endpoint = Endpoint::in_directory(&contexts.find(&name)?)?;
                write(&base()?, CURRENT, 0o600, name.as_str().as_bytes())?;
                let (name, address) = (name.to_string(), endpoint.address().to_string());
                let answer = json!({ "context": name, "address": address });
                let text = || format!("{name} is the current context: {address}");
                print(common.output, &answer, text, || name.clone())
            }
            Self::List => show_all(common),
            Self::Remove { name, yes } => remove(&name, yes),
        }
    }
}

impl Add {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let (bundle, svid) = Bundle::read(&self.bundle, Clock::system().now())?;
        let by_default = || ContextName::parse(&bundle.address.host.to_string().replace(':', "-"));
        let name = self.name.map_or_else(by_default, Ok)?;
        let base = base()?;
        let below = format!("{CONTEXTS}/{name}");
        let there = base.directory(&below).ok().filter(|there| there.has(KEY));
        let key = match &there {
            Some(there) if belongs(there.path(), &bundle) => {
                check_is_newer(&name, there.path(), &svid)?;
                None
            }
            Some(_) => return Err(occupied(&name)),
            None => {
                let made = self.request.or_else(default_identity);
                let made = made.filter(|directory| belongs(directory, &bundle));
                Some(made.ok_or_else(|| no_key(&bundle))?)
            }
        };
        let context = base.make_directory(&below, 0o700);
        let context =
            context.map_err(|error| Failure::new("FILE", error.to_string(), exit::FAILED))?;
        if let Some(directory) = key {
            move_key(&directory, &context)?;
        }
        write(&context, "tls.crt", 0o444, bundle.certificate_chain.as_bytes())?;
        write(&context, "ca.crt", 0o444, bundle.ca_certificate.as_bytes())?;
        write(&context, "env", 0o444, env_of(&bundle).as_bytes())?;
        let is_first = !base.has(CURRENT);
        if is_first {
            write(&base, CURRENT, 0o600, name.as_str().as_bytes())?;
        }
        report(common, &name, (&bundle, &svid), is_first)
    }
}

/// Prints what was added.
fn report(
    common: &Common,
    name: &ContextName,
    (bundle, svid): (&Bundle, &Svid),
    is_current: bool,
) -> Result<(), Failure> {
    let answer = json!({
        "context": name.to_string(),
        "operator": bundle.operator,
        "address": bundle.address,
        "broker": bundle.broker,
        "certificate_expire_time": svid.not_after.to_string(),
        "current": is_current,
    });
    let text = || {
        let next = match is_current {
            true => "it is the current context; keyhatch whoami tries it".to_owned(),
            false => format!("keyhatch context use {name} makes it the current one"),
        };
        format!("context {name}: operator {} at {}; {next}", bundle.operator, bundle.address)
    };
    print(common.output, &answer, text, || name.to_string())
}

/// The `env` of an identity for a broker elsewhere. gRPC clients of other programs take the same address.
fn env_of(Bundle { address, broker, .. }: &Bundle) -> String {
    let host = &address.host;
    format!("KEYHATCH_ADDR={address}\nKEYHATCH_AUTHORITY={host}\nKEYHATCH_BROKER={broker}\n")
}

/// Whether the key in a directory is that of a bundle's certificate.
fn belongs(directory: &Path, bundle: &Bundle) -> bool {
    let key = identity_files::read(&directory.join(KEY));
    let chain = bundle.certificate_chain.as_bytes();
    key.is_ok_and(|key| check_pair(chain, key.as_bytes()).is_ok())
}

/// Fails if a context has a certificate that was issued after that of the bundle.
fn check_is_newer(name: &ContextName, directory: &Path, offered: &Svid) -> Result<(), Failure> {
    let Ok(own) = Endpoint::in_directory(directory).and_then(|own| own.files.svid()) else {
        return Ok(());
    };
    if own.not_after <= offered.not_after {
        return Ok(());
    }
    let text = format!(
        "the bundle is too old: context {name} has a newer certificate, until {}. Nothing is left to do; keyhatch context \
         use {name} makes it the current one",
        own.not_after
    );
    Err(Failure::new("BUNDLE_TOO_OLD", text, exit::FAILED))
}

/// Moves the key of a request. It stays, too, if it has a certificate there already.
fn move_key(from: &Path, to: &Directory) -> Result<(), Failure> {
    let from = open(from)?;
    let path = from.path().join(KEY);
    let key = identity_files::read(&path)?;
    write(to, KEY, 0o400, key.as_bytes())?;
    if !from.has("tls.crt") {
        from.remove(KEY)?;
        from.remove(REQUEST)?;
    }
    Ok(())
}

fn occupied(name: &ContextName) -> Failure {
    let text = format!(
        "context {name} has another key; give the bundle another --name, or remove it: keyhatch context remove {name}"
    );
    Failure::new("CONTEXT_EXISTS", text, exit::USAGE)
}

fn no_key(bundle: &Bundle) -> Failure {
    let name = shell_words::quote(bundle.operator.as_str()).into_owned();
    let text = format!(
        "no key for this bundle is here: run this where keyhatch operator request --name {name} was run, and name its \
         --out with --request DIR"
    );
    Failure::new("KEY_MISSING", text, exit::USAGE)
}

/// The user's configuration directory, made if it is missing.
fn base() -> Result<Directory, Failure> {
    let path = default_identity();
    make(&path.ok_or_else(|| Failure::usage("there is no home directory; set HOME"))?)
}

fn show_all(common: &Common) -> Result<(), Failure> {
    let mut rows = Vec::new();
    if let Some(contexts) = Contexts::of_user() {
        let current = contexts.current()?;
        for name in contexts.names()? {
            let endpoint = Endpoint::in_directory(&contexts.find(&name)?).ok();
            let svid = endpoint.as_ref().and_then(|endpoint| endpoint.files.svid().ok());
            let operator = svid.as_ref().map(|svid| match &svid.id {
                SpiffeId::Operator(name) => name.to_string(),
                _ => String::new(),
            });
            let broker = endpoint.as_ref().map(|endpoint| match endpoint.address() {
                BrokerAddress::Remote(RemoteBroker { id, .. }) => id.to_string(),
                BrokerAddress::Socket(_) => String::new(),
            });
            rows.push(json!({
                "current": current.as_ref() == Some(&name),
                "context": name.to_string(),
                "operator": operator.unwrap_or_default(),
                "address": endpoint.map(|one| one.address().to_string()).unwrap_or_default(),
                "broker": broker.unwrap_or_default(),
                "certificate_expire_time":
                    svid.map(|svid| svid.not_after.to_string()).unwrap_or_default(),
            }));
        }
    }
    let columns = [
        ("context", "context"),
        ("current", "current"),
        ("operator", "operator"),
        ("address", "address"),
        ("broker", "broker"),
        ("certificate until", "certificate_expire_time"),
    ];
    list(common.output, &rows, "context", &columns, "no contexts; keyhatch context add makes one")
}

fn remove(name: &ContextName, yes: bool) -> Result<(), Failure> {
    let contexts = Contexts::of_user().ok_or_else(|| missing(name))?;
    let directory = contexts.find(name)?;
    let question =
        format!("Remove context {name}? Its key is deleted, and there is no other copy.");
    confirm(yes, &question)?;
    let directory = open(&directory)?;
    for file in [KEY, "tls.crt", "ca.crt", "env"] {
        directory.remove(file)?;
    }
    directory.remove_self()?;
    if contexts.current()?.as_ref() == Some(name) {
        base()?.remove(CURRENT)?;
    }
    say(&format!("context {name} removed"));
    Ok(())
}
