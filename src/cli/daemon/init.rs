//! `keyhatch init`

use std::path::Path;

use rustix::fs::{Access, access};

use super::broker_args::{BrokerArgs, LocalBroker};
use crate::cli::Common;
use crate::cli::admin::kek::KekChoice;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::io::output::say;
use crate::cli::io::text::properties;
use crate::config::Given;
use crate::daemon::{InitOptions, ReissueOptions, init, reissue_admin};
use crate::model::{Clock, TrustDomain};

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Init {
    #[command(flatten)]
    broker: BrokerArgs,
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
        let has_runtime = self.broker.runtime.is_some();
        let broker = self.broker.load(common, Given::default())?;
        if self.reissue_admin {
            return reissue(broker);
        }
        let LocalBroker { config, kek, trust } = broker;
        let options = InitOptions {
            kek: kek.clone().map(|kek| kek.into_new(&trust)).transpose()?,
            shared_parents: config.shared_parents,
            state: config.state,
            runtime: config.runtime,
            trust_domain: TrustDomain::parse(&self.trust_domain)?,
            name: self.name,
            clock: Clock::system(),
        };
        let made = init(&options)?;
        let state = options.state.display();
        let kek_file = made.kek_file.map(|file| file.display().to_string());
        output::line(&properties(&[
            ("state", state.to_string()),
            ("key (KEK)", kek_file.unwrap_or_else(|| "not stored".to_owned())),
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
        let flags = serve_flags(has_runtime, &options.runtime, kek.as_ref());
        say(&format!("next: keyhatch serve --state {state}{flags}"));
        Ok(())
    }
}

/// The flags that serve needs for this broker, each after a space. Warns if the default runtime directory cannot be
/// made.
pub(crate) fn serve_flags(has_runtime: bool, runtime: &Path, kek: Option<&KekChoice>) -> String {
    let shown = runtime.display();
    let runtime = match (has_runtime, can_be_made(runtime)) {
        (true, _) => format!(" --runtime {shown}"),
        (false, true) => String::new(),
        (false, false) => {
            say(&format!(
                "warning: this user cannot make {shown}: give serve another directory for its sockets, or set \
                 XDG_RUNTIME_DIR"
            ));
            " --runtime DIR".to_owned()
        }
    };
    kek.map_or(runtime.clone(), |kek| format!("{runtime} {}", kek.flag()))
}

/// True if a directory exists, or this user can make it.
fn can_be_made(directory: &Path) -> bool {
    let nearest = directory.ancestors().find(|path| path.exists());
    let is_writable = |path| access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    nearest.is_some_and(|nearest| nearest == directory || is_writable(nearest))
}

fn reissue(broker: LocalBroker) -> Result<(), Failure> {
    let made = reissue_admin(&ReissueOptions {
        unlock: broker.unlock(),
        state: broker.config.state,
        shared_parents: broker.config.shared_parents,
        runtime: broker.config.runtime,
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
