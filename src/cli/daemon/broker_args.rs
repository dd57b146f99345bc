//! Options of commands that work in the directories of a broker on this host.

use std::path::PathBuf;

use crate::cli::Common;
use crate::cli::admin::kek::{KekArgs, KekChoice, unlock};
use crate::cli::io::failure::Failure;
use crate::config::{Config, ConfigError, Given};
use crate::seal::Unlock;
use crate::sys::Trust;

/// Options of commands that work in a state directory.
#[derive(clap::Args)]
pub struct SharedParents {
    /// A directory above those of the broker that other users may write to or own, such as a volume in Kubernetes. They
    /// are trusted not to put another directory in the broker's place. May be given more than once, or with colons
    /// between.
    #[arg(
        long = "shared-parent",
        env = "KEYHATCH_SHARED_PARENT",
        value_name = "DIR",
        value_delimiter = ':'
    )]
    pub shared_parent: Vec<PathBuf>,
}

/// Options of commands that work in a state directory and know the runtime directory and the KEK.
#[derive(clap::Args)]
pub struct BrokerArgs {
    /// The directory of the broker's sockets.
    #[arg(long, env = "KEYHATCH_RUNTIME", value_name = "DIR")]
    pub runtime: Option<PathBuf>,
    #[command(flatten)]
    parents: SharedParents,
    #[command(flatten)]
    kek: KekArgs,
}

/// A broker on this host, by its directories and its KEK.
pub struct LocalBroker {
    /// Its state and runtime directories are absolute: clients get these paths, and may run elsewhere.
    pub config: Config,
    /// The source of the KEK, as options or the configuration file name it.
    pub kek: Option<KekChoice>,
    /// The directories that a process in the state directory may trust.
    pub trust: Trust,
}

impl BrokerArgs {
    /// Reads the configuration. `more` is given beside these options. Fails if the configuration file is wrong.
    pub fn config(&self, common: &Common, more: Given) -> Result<Config, ConfigError> {
        Config::load(Given {
            state: common.state.clone(),
            runtime: self.runtime.clone(),
            shared_parents: self.parents.shared_parent.clone(),
            ..more
        })
    }

    /// The broker with this configuration. Fails if the KEK command is not well formed, or there is no working
    /// directory.
    pub fn broker(self, mut config: Config) -> Result<LocalBroker, Failure> {
        config.state = std::path::absolute(config.state)?;
        config.runtime = std::path::absolute(config.runtime)?;
        let kek = self.kek.choice(config.kek.as_ref())?;
        let trust = Trust::of_owner(&config.state, &config.shared_parents);
        Ok(LocalBroker { config, kek, trust })
    }

    /// Reads the configuration, and returns the broker with it.
    pub fn load(self, common: &Common, more: Given) -> Result<LocalBroker, Failure> {
        let config = self.config(common, more);
        self.broker(config.map_err(|error| Failure::usage(error.to_string()))?)
    }
}

impl LocalBroker {
    /// The way to the KEK.
    pub fn unlock(&self) -> Unlock {
        unlock(self.kek.as_ref(), &self.trust, "--kek-passphrase-file")
    }
}
