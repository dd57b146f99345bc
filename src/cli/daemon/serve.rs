//! `keyhatch serve`

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::broker_args::BrokerArgs;
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::config::Given;
use crate::daemon::{Hangup, Loaded};
use crate::model::{Clock, JournalMode};
use crate::sys::notify;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub struct Serve {
    #[command(flatten)]
    broker: BrokerArgs,
    /// A group, by name or id, whose members may connect to the admin socket, too. Their certificates still say who
    /// they are.
    #[arg(long, env = "KEYHATCH_ADMIN_GROUP", value_name = "GROUP")]
    admin_group: Option<String>,
    /// Serve operators over TCP, too, at this address and port, such as 10.0.0.5:7443 or 0.0.0.0:7443. It takes only operators
    /// whom an administrator lets in, and no executors.
    #[arg(long, env = "KEYHATCH_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// A host, DNS name or IP address, by which operators reach that address. The daemon's certificate names it. May be given
    /// more than once, or with commas between; bundles have the first.
    #[arg(long, env = "KEYHATCH_ADMIN_NAME", value_name = "HOST", value_delimiter = ',')]
    admin_name: Vec<String>,
    /// When an answer to a step counts as journaled: synced, when the disk has the line, or written, when the operating
    /// system has it.
    #[arg(long, env = "KEYHATCH_JOURNAL", value_name = "MODE", value_parser = journal_mode)]
    journal: Option<JournalMode>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics: a loopback address and a port, such as 127.0.0.1:9464.
    /// With port 0 the log has the port.
    #[arg(long, env = "KEYHATCH_METRICS", value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Refuse to start if the store has fewer changes than this number, which status shows as "last change": then an
    /// older copy has replaced the store.
    #[arg(long, value_name = "CHANGE")]
    expect_head: Option<u64>,
    /// The configuration file: state, runtime, shared_parent, admin_group, admin_listen, admin_name, journal,
    /// metrics, and the tables kek and limits, in TOML.
    #[arg(long, env = "KEYHATCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The form of the log, on stderr.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// The level of the log: error, warn, info, debug or trace, also by room: info,keyhatch::journal=debug.
    #[arg(long, env = "KEYHATCH_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// A JSON object in each line.
    Json,
    /// For people.
    #[default]
    Text,
}

impl Serve {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        start_log(self.log_format, &self.log)?;
        let given = Given {
            admin_group: self.admin_group,
            admin_listen: self.admin_listen,
            admin_names: self.admin_name,
            journal: self.journal,
            metrics: self.metrics,
            expect_head: self.expect_head,
            file: self.config,
            ..Given::default()
        };
        let broker = self.broker.load(common, given)?;
        let hangup = Hangup::catch()?;
        let loaded = Loaded::load(&broker.config, Some(&broker.unlock()), Clock::system())?;
        let signals = hangup.catch_termination()?;
        let daemon = loaded.serve()?;
        if let Err(error) = notify::ready() {
            tracing::warn!(%error, "could not report readiness to the service manager");
        }
        signals.wait(|| {
            daemon.reload();
            ControlFlow::Continue(())
        });
        // The process ends here. A drop of the store would sync it once more, and sled panics if the disk refuses.
        std::mem::forget(daemon.stop());
        Ok(())
    }
}

fn journal_mode(text: &str) -> Result<JournalMode, String> {
    match text {
        "synced" => Ok(JournalMode::Synced),
        "written" => Ok(JournalMode::Written),
        _ => Err("it is synced or written".to_owned()),
    }
}

/// Starts logging to stderr.
pub(super) fn start_log(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let targets: Targets =
        filter.parse().map_err(|error| Failure::usage(format!("--log {filter}: {error}")))?;
    let filtered = tracing_subscriber::registry().with(targets);
    // If the log cannot be written, a report of that on stderr would panic.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    // A second start, as in a process of tests, keeps the first log.
    let _ = match format {
        LogFormat::Json => filtered.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            filtered.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()
        }
    };
    Ok(())
}
