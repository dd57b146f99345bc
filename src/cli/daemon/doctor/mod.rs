//! `keyhatch doctor`: checks of everything that a daemon needs, each with a remedy.
//!
//! | file | checks |
//! |---|---|
//! | `environment` | variables that mislead commands |
//! | `state`, `keys` | the state directory, the KEK |
//! | `certificates`, `clock` | validity of certificates |
//! | `disk` | free space |
//! | `egress` | root certificates, name servers, the rules |
//! | `socket` | the runtime directory and the admin socket |
//! | `daemon`, `limits`, `endings` | the running daemon |
//! | `step`, `identity` | instead of all those, the directory of a step, or of a user who does not own the broker |
//!
//! Doctor changes nothing and prints nothing secret. The only secret that it reads is a KEK in a file, to print its id.

mod certificates;
mod clock;
mod daemon;
mod diagnosis;
mod disk;
mod egress;
mod endings;
mod environment;
mod identity;
mod keys;
mod limits;
mod site;
mod socket;
mod state;
mod step;

use std::path::PathBuf;

use serde_json::json;

use crate::cli::Common;
use crate::cli::daemon::broker_args::BrokerArgs;
use crate::cli::identity::contexts;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::print;
use crate::cli::io::text::printable;
use crate::config::Given;
use crate::model::Clock;
use crate::sys::Trust;
use daemon::DaemonReport;
use diagnosis::{Diagnosis, Level, Remedy};
use site::Site;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Doctor {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The configuration file that serve is given.
    #[arg(long, env = "KEYHATCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Doctor {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let (mut diagnoses, is_named) = (environment::check(), common.state.is_some());
        diagnoses.extend(match environment::step_directory() {
            Some(directory) => step::check(&directory, Clock::system().now()).await,
            None => match (self.site(common)?, own_identity()) {
                (Ok(site), Some(own)) if !is_named && !site.is_ours() => {
                    identity::check(&own, site.now).await
                }
                (Ok(site), _) => check_broker(&site).await,
                (Err(diagnosis), _) => vec![diagnosis],
            },
        });
        report(&diagnoses, common)
    }

    fn site(self, common: &Common) -> Result<Result<Site, Diagnosis>, Failure> {
        let given = Given { file: self.config, ..Given::default() };
        let config = match self.broker.config(common, given) {
            Ok(config) => config,
            Err(error) => {
                let advice = "keyhatch config reference lists the keys of the file";
                return Ok(Err(Diagnosis::fail("configuration", error.to_string(), advice)));
            }
        };
        let mut broker = self.broker.broker(config)?;
        let user = state::owner(&broker.config.state);
        broker.trust = Trust::of_user(user, &broker.config.shared_parents);
        Ok(Ok(Site {
            unlock: broker.unlock(),
            state: broker.config.state,
            runtime: broker.config.runtime,
            limits: broker.config.limits,
            serves_tcp: broker.config.admin_listen.is_some(),
            egress: broker.config.egress,
            trust: broker.trust,
            user,
            now: Clock::system().now(),
        }))
    }
}

/// The directory of this user's identity: that of the environment, or the current context. None if there is neither.
fn own_identity() -> Option<PathBuf> {
    environment::identity_directory().or_else(|| contexts::current().ok().flatten())
}

async fn check_broker(site: &Site) -> Vec<Diagnosis> {
    let mut diagnoses = state::check(site);
    // Without a broker there is nothing else to check.
    if state::is_there(site) {
        let daemon = DaemonReport::request(site).await;
        diagnoses.extend(keys::check(site, daemon.as_ref().and_then(DaemonReport::status)));
        diagnoses.extend(certificates::check(site));
        diagnoses.push(clock::check(site));
        diagnoses.extend(disk::check(site));
        diagnoses.push(egress::check(site));
        diagnoses.extend(socket::check(site));
        diagnoses.extend(daemon::check(site, daemon));
    }
    diagnoses
}

fn report(diagnoses: &[Diagnosis], common: &Common) -> Result<(), Failure> {
    let count = |level| diagnoses.iter().filter(|one| one.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    let answer = json!({ "failed": failed, "warned": warned, "findings": diagnoses });
    let names = || {
        let wrong = diagnoses.iter().filter(|one| one.level != Level::Ok);
        wrong.map(|one| one.what).collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, || lines(diagnoses), names)?;
    match failed {
        0 => Ok(()),
        _ => {
            let text = format!("{failed} of {} checks failed", diagnoses.len());
            Err(Failure::new("NOT_WELL", text, exit::FAILED))
        }
    }
}

/// A line for each diagnosis, and a line for its remedy.
fn lines(diagnoses: &[Diagnosis]) -> String {
    let width = diagnoses.iter().map(|one| one.what.len()).max().unwrap_or(0);
    let line = |Diagnosis { level, what, detail, remedy }: &Diagnosis| {
        let line = printable(&format!("{level:<4}  {what:<width$}  {detail}"));
        match remedy {
            Some(Remedy::Run(command)) => format!("{line}\n      run: {}", printable(command)),
            Some(Remedy::Do(advice)) => format!("{line}\n      {}", printable(advice)),
            None => line,
        }
    };
    diagnoses.iter().map(line).collect::<Vec<_>>().join("\n")
}
