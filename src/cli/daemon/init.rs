//! `keyhatch init`

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::cli::admin::kek::{KekArgs, unlock};
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::io::output::say;
use crate::cli::io::text::properties;
use crate::cli::{Common, SharedParents};
use crate::config::{Config, Given};
use crate::daemon::{InitOptions, ReissueOptions, init, reissue_admin};
use crate::model::{Clock, TrustDomain};
use crate::seal::Unlock;
use crate::sys::Trust;

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Init {
    /// Where the broker's sockets will be.
    #[arg(long, env = "KEYHATCH_RUNTIME", value_name = "DIR")]
    runtime: Option<PathBuf>,
    #[command(flatten)]
    parents: SharedParents,
    #[command(flatten)]
    kek: KekArgs,
    /// The trust domain of all identities.
    #[arg(long, value_name = "DOMAIN", default_value = TrustDomain::DEFAULT)]
    trust_domain: String,
    /// The broker's name, in its SPIFFE ID.
    #[arg(long, value_name = "NAME", default_value = "main")]
    name: String,
    /// Do not make a broker: give the operator admin of one that is there, and is not running, a new key and
    /// certificate. The old ones are refused from then on.
    #[arg(long, conflicts_with_all = ["trust_domain", "name"])]
    reissue_admin: bool,
}

impl Init {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let given = Given {
            state: common.state.clone(),
            runtime: self.runtime.clone(),
            shared_parents: self.parents.shared_parent,
            ..Given::default()
        };
        let config = Config::load(given).map_err(|error| Failure::usage(error.to_string()))?;
        let (said, state) = (self.kek.said(None)?, std::path::absolute(&config.state)?);
        let trust = Trust::of_owner(&state, &config.shared_parents);
        if self.reissue_admin {
            return reissue(config, unlock(said.as_ref(), &trust, "--kek-passphrase-file"));
        }
        let flag = said.as_ref().map(|said| format!(" {}", said.flag())).unwrap_or_default();
        let options = InitOptions {
            kek: said.map(|said| said.into_new(&trust)).transpose()?,
            shared_parents: config.shared_parents,
            state,
            runtime: std::path::absolute(config.runtime)?,
            trust_domain: TrustDomain::parse(&self.trust_domain)?,
            name: self.name,
            clock: Clock::system(),
        };
        let made = init(&options)?;
        let state = options.state.display();
        let kek = made.kek_file.map(|file| file.display().to_string());
        output::line(&properties(&[
            ("state", state.to_string()),
            ("key (KEK)", kek.unwrap_or_else(|| "not stored".to_owned())),
            ("CA's SHA-256", hex::encode(made.ca_sha256)),
            ("operator", made.operator.display().to_string()),
            ("executor", made.executor.display().to_string()),
        ]))?;
        if made.kek_beside_store {
            say(
                "warning: the key that seals the store lies beside it, so whoever copies the directory \
                 has both; keep it elsewhere with --kek-file",
            );
        }
        let runtime = to_say(self.runtime.is_some(), &options.runtime);
        say(&format!("next: keyhatch serve --state {state}{runtime}{flag}"));
        Ok(())
    }
}

/// The flag for the directory of sockets that serve is to be given.
pub(crate) fn to_say(is_given: bool, runtime: &Path) -> String {
    let shown = runtime.display();
    match (is_given, can_be_made(runtime)) {
        (true, _) => format!(" --runtime {shown}"),
        (false, true) => String::new(),
        (false, false) => {
            say(&format!(
                "warning: this user cannot make {shown}: give serve another directory for its sockets, or set \
                 XDG_RUNTIME_DIR"
            ));
            " --runtime DIR".to_owned()
        }
    }
}

/// Whether this user can have that directory: it is there, or can be made below what is.
fn can_be_made(directory: &Path) -> bool {
    let there = directory.ancestors().find(|path| path.exists());
    let may = |path| access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    there.is_some_and(|there| there == directory || may(there))
}

fn reissue(config: Config, unlock: Unlock) -> Result<(), Failure> {
    let made = reissue_admin(&ReissueOptions {
        state: std::path::absolute(config.state)?,
        shared_parents: config.shared_parents,
        unlock,
        runtime: std::path::absolute(config.runtime)?,
        clock: Clock::system(),
    })?;
    let mut rows = vec![("operator", made.operator.display().to_string())];
    if let Some(executor) = &made.executor {
        rows.push(("executor", executor.display().to_string()));
    }
    output::line(&properties(&rows))?;
    say(
        "the operator admin has a new key and certificate, and is an administrator; its old ones are refused",
    );
    Ok(())
}
