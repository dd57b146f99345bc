//! `keyhatch context`: the brokers elsewhere that this user operates.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::bundle::Bundle;
use crate::cli::Common;
use crate::cli::identity::contexts::{Contexts, missing};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::identity::identity_files;
use crate::cli::identity::own_directory::{KEY, REQUEST, open, write};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::fingerprint::Fingerprint;
use crate::cli::io::output::{list, print, say};
use crate::cli::io::prompt::confirm;
use crate::config::default_identity;
use crate::identity::{BrokerAddress, RemoteBroker, Svid, certificates_alone, check_pair};
use crate::model::{Clock, ContextName, HostPort, SpiffeId};
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
    /// The SHA-256 of the broker's root certificate, in hexadecimal, as its administrator sees it. A bundle with another
    /// one is refused.
    #[arg(long, value_name = "HEX")]
    ca_sha256: Option<Fingerprint>,
}

impl ContextCommand {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(common),
            Self::Use { name } => make_current(common, &name),
            Self::List => show_all(common),
            Self::Remove { name, yes } => remove(&name, yes),
        }
    }
}

impl Add {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let (bundle, svid) = Bundle::read(&self.bundle, Clock::system().now())?;
        check_root(&bundle, self.ca_sha256)?;
        let by_default = || ContextName::parse(&bundle.address.host.to_string().replace(':', "-"));
        let name = self.name.clone().map_or_else(by_default, Ok)?;
        let contexts = Contexts::make()?;
        let before = match contexts.get(&name)? {
            Some(there) => Some(update(&name, &there, (&bundle, &svid))?),
            None => self.make(&contexts, &name, &bundle).map(|()| None)?,
        };
        let is_first = contexts.current()?.is_none();
        if is_first {
            contexts.make_current(&name)?;
        }
        let is_current = contexts.current()?.as_ref() == Some(&name);
        report(common, &name, (&bundle, &svid), (before, is_current))
    }

    /// Makes a new context, to which the key of the request moves. The key stays, too, if it has a certificate there already.
    fn make(
        &self,
        contexts: &Contexts,
        name: &ContextName,
        bundle: &Bundle,
    ) -> Result<(), Failure> {
        let from = self.request.clone().or_else(default_identity);
        let from = from.and_then(|path| open(&path).ok()).ok_or_else(|| no_key(bundle))?;
        let key = identity_files::key_in(&from).ok().filter(|key| is_key_of(key, bundle));
        let key = key.ok_or_else(|| no_key(bundle))?;
        let files: [(&str, u32, &[u8]); 4] = [
            (KEY, 0o400, key.as_bytes()),
            ("tls.crt", 0o444, bundle.certificate_chain.as_bytes()),
            ("ca.crt", 0o444, bundle.ca_certificate.as_bytes()),
            ("env", 0o444, &env_of(bundle).into_bytes()),
        ];
        contexts.add(name, &files)?;
        if !from.has("tls.crt") {
            from.remove(KEY)?;
            from.remove(REQUEST)?;
        }
        Ok(())
    }
}

/// Takes a later certificate, or another address of the same broker, into a context. Returns the address before.
fn update(
    name: &ContextName,
    there: &Directory,
    (bundle, svid): (&Bundle, &Svid),
) -> Result<HostPort, Failure> {
    let own = Endpoint::in_directory(there.path());
    let before = own.as_ref().ok().and_then(|own| match own.address() {
        BrokerAddress::Remote(remote) => Some(remote),
        BrokerAddress::Socket(_) => None,
    });
    let read = |file: &str| identity_files::read(&there.path().join(file)).ok();
    let root = read("ca.crt").and_then(|root| certificates_alone(&root).ok());
    let held = own.as_ref().ok().and_then(|own| own.files.svid().ok());
    let (before, held) = match (before, held) {
        _ if !read(KEY).is_some_and(|key| is_key_of(&key, bundle)) => {
            return Err(occupied(name, "key", there));
        }
        _ if root.as_ref().is_none_or(|root| root.concat() != bundle.ca_certificate) => {
            return Err(occupied(name, "CA", there));
        }
        (Some(before), Some(held)) if before.id == bundle.broker && held.id == svid.id => {
            (before, held)
        }
        _ => return Err(occupied(name, "broker or operator", there)),
    };
    if held.not_after > svid.not_after {
        return Err(too_old(name, &held));
    }
    write(there, "tls.crt", 0o444, bundle.certificate_chain.as_bytes())?;
    write(there, "env", 0o444, env_of(bundle).as_bytes())?;
    Ok(before.address.clone())
}

/// Fails if a bundle has another root than the one that was given.
fn check_root(bundle: &Bundle, given: Option<Fingerprint>) -> Result<(), Failure> {
    let root = bundle.root();
    if given.is_none() || given == root {
        return Ok(());
    }
    let root = root.map(|root| root.to_string()).unwrap_or_default();
    let text = format!(
        "the CA of the bundle has the SHA-256 {root}, not that of --ca-sha256: the bundle was changed on its way, or is \
         another broker's; ask the administrator for another by a way that nobody else can change"
    );
    Err(Failure::new("CA_MISMATCH", text, exit::FAILED))
}

/// Prints what was added.
fn report(
    common: &Common,
    name: &ContextName,
    (bundle, svid): (&Bundle, &Svid),
    (before, is_current): (Option<HostPort>, bool),
) -> Result<(), Failure> {
    let key = Fingerprint(svid.key_sha256).to_string();
    let root = bundle.root().map(|root| root.to_string()).unwrap_or_default();
    let answer = json!({
        "context": name.to_string(),
        "operator": bundle.operator,
        "address": bundle.address,
        "broker": bundle.broker,
        "certificate_expire_time": svid.not_after.to_string(),
        "current": is_current,
        "key_sha256": key,
        "ca_sha256": root,
    });
    let text = || {
        let next = match is_current {
            true => "it is the current context; keyhatch whoami tries it".to_owned(),
            false => format!("keyhatch context use {name} makes it the current one"),
        };
        let moved = before.filter(|before| *before != bundle.address);
        let moved = moved.map(|before| format!(", before at {before}")).unwrap_or_default();
        format!(
            "context {name}: operator {} at {}{moved}; {next}\n\
             the key's SHA-256, which the administrator compares: {key}\n\
             the CA's SHA-256, which the administrator compares: {root}",
            bundle.operator, bundle.address
        )
    };
    print(common.output, &answer, text, || name.to_string())
}

/// Makes a context the current one, and prints it.
fn make_current(common: &Common, name: &ContextName) -> Result<(), Failure> {
    let contexts = Contexts::of_user()?.ok_or_else(|| missing(name))?;
    let endpoint = Endpoint::in_directory(contexts.find(name)?.path())?;
    contexts.make_current(name)?;
    if let Some(state) = &common.state {
        let state = state.display();
        say(&format!(
            "KEYHATCH_STATE comes before it: commands are for the broker of {state} until that is unset"
        ));
    }
    let (name, address) = (name.to_string(), endpoint.address().to_string());
    let answer = json!({ "context": name, "address": address });
    let text = || format!("{name} is the current context: {address}");
    print(common.output, &answer, text, || name.clone())
}

/// The `env` of an identity for a broker elsewhere. gRPC clients of other programs take the same address.
fn env_of(Bundle { address, broker, .. }: &Bundle) -> String {
    let host = &address.host;
    format!("KEYHATCH_ADDR={address}\nKEYHATCH_AUTHORITY={host}\nKEYHATCH_BROKER={broker}\n")
}

/// Whether a key is that of a bundle's certificate.
fn is_key_of(key: &str, bundle: &Bundle) -> bool {
    check_pair(bundle.certificate_chain.as_bytes(), key.as_bytes()).is_ok()
}

/// The failure of a bundle whose certificate was issued before that of the context.
fn too_old(name: &ContextName, held: &Svid) -> Failure {
    let text = format!(
        "the bundle is too old: context {name} has a newer certificate, until {}. Nothing is left to do; keyhatch context \
         use {name} makes it the current one",
        held.not_after
    );
    Failure::new("BUNDLE_TOO_OLD", text, exit::FAILED)
}

/// The failure of a bundle that would change what a context is for.
fn occupied(name: &ContextName, what: &str, there: &Directory) -> Failure {
    let next = match what {
        "key" => String::new(),
        _ => format!(" with --request {}", shell_words::quote(&there.path().to_string_lossy())),
    };
    let text = format!(
        "context {name} has another {what}, which no bundle changes. Ask the administrator whether this bundle is right; then \
         give it another --name{next}, or remove the old one: keyhatch context remove {name}"
    );
    Failure::new("CONTEXT_EXISTS", text, exit::USAGE)
}

fn no_key(bundle: &Bundle) -> Failure {
    let name = shell_words::quote(bundle.operator.as_str()).into_owned();
    let text = format!(
        "no key for this bundle is here: run this where keyhatch operator request --name {name} was run, and name its \
         --out with --request DIR. If this is that place, somebody exchanged the request on its way: have the operator \
         removed with keyhatch operator remove {name}"
    );
    Failure::new("KEY_MISSING", text, exit::USAGE)
}

fn show_all(common: &Common) -> Result<(), Failure> {
    let mut rows = Vec::new();
    if let Some(contexts) = Contexts::of_user()? {
        let current = contexts.current()?;
        for name in contexts.names()? {
            let endpoint = Endpoint::in_directory(contexts.find(&name)?.path()).ok();
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
    let contexts = Contexts::of_user()?.ok_or_else(|| missing(name))?;
    contexts.find(name)?;
    let question =
        format!("Remove context {name}? Its key is deleted, and there is no other copy.");
    confirm(yes, &question)?;
    contexts.remove(name)?;
    say(&format!("context {name} removed"));
    Ok(())
}
