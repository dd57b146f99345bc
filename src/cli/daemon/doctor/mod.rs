//! `keyhatch doctor`: whether everything is as the daemon needs it, and how it becomes so.
//!
//! | file | looks at |
//! |---|---|
//! | `environment` | variables that confuse |
//! | `state`, `keys` | the state directory, the KEK |
//! | `certificates`, `clock` | who may still speak to whom |
//! | `disk` | room |
//! | `socket` | the runtime directory and the admin socket |
//! | `daemon`, `limits` | the daemon that runs |
//! | `step`, `identity` | instead of all those, the directory of a step, or of somebody who is not the broker's owner |
//!
//! Nothing is changed, and nothing secret is printed. Of secrets only the KEK in a file is read, to name it.

mod certificates;
mod clock;
mod daemon;
mod diagnosis;
mod disk;
mod environment;
mod identity;
mod keys;
mod limits;
mod socket;
mod state;
mod step;

use std::path::PathBuf;

use serde_json::json;

use crate::cli::admin::kek::{KekArgs, unlock};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::print;
use crate::cli::io::text::printable;
use crate::cli::{Common, SharedParents};
use crate::config::{Config, Given};
use crate::model::{Clock, Limits, Timestamp};
use crate::seal::Unlock;
use crate::sys::{DirectoryError, Trust};
use diagnosis::{Diagnosis, Level, Remedy, quoted};

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Doctor {
    /// Where the broker makes its sockets.
    #[arg(long, env = "KEYHATCH_RUNTIME", value_name = "DIR")]
    runtime: Option<PathBuf>,
    #[command(flatten)]
    parents: SharedParents,
    #[command(flatten)]
    kek: KekArgs,
    /// The configuration file that serve is given.
    #[arg(long, env = "KEYHATCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// One broker, as it should be.
struct Site {
    state: PathBuf,
    runtime: PathBuf,
    unlock: Unlock,
    limits: Limits,
    /// Whose everything has to be: who owns the state directory.
    user: u32,
    /// What its daemon would work in.
    trust: Trust,
    now: Timestamp,
}

impl Doctor {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let (mut findings, is_named) = (environment::look(), common.state.is_some());
        match environment::step_directory() {
            Some(directory) => findings.extend(step::look(&directory, Clock::system().now()).await),
            None => match self.site(common)? {
                Ok(site) => findings.extend(match environment::identity_directory() {
                    Some(own) if !is_named && !site.is_ours() => {
                        identity::look(&own, site.now).await
                    }
                    _ => site.look().await,
                }),
                Err(finding) => findings.push(finding),
            },
        }
        report(&findings, common)
    }

    fn site(self, common: &Common) -> Result<Result<Site, Diagnosis>, Failure> {
        let given = Given {
            state: common.state.clone(),
            runtime: self.runtime,
            shared_parents: self.parents.shared_parent,
            file: self.config,
            ..Given::default()
        };
        let config = match Config::load(given) {
            Ok(config) => config,
            Err(error) => {
                let remedy =
                    Remedy::Do("keyhatch config reference lists what it may say".to_owned());
                return Ok(Err(Diagnosis::fail("configuration", error.to_string(), remedy)));
            }
        };
        let state = std::path::absolute(config.state)?;
        let user = state::owner(&state);
        let trust = Trust::of_user(user, &config.shared_parents);
        Ok(Ok(Site {
            runtime: std::path::absolute(config.runtime)?,
            unlock: unlock(self.kek.said(config.kek.as_ref())?.as_ref(), &trust, ""),
            limits: config.limits,
            trust,
            user,
            now: Clock::system().now(),
            state,
        }))
    }
}

impl Site {
    async fn look(&self) -> Vec<Diagnosis> {
        let mut findings = state::look(self);
        // Without a broker there is no more to look at.
        if state::is_there(self) {
            let heard = daemon::hear(self).await;
            findings.extend(keys::look(self, heard.as_ref().and_then(|heard| heard.status())));
            findings.extend(certificates::look(self));
            findings.extend(clock::look(self));
            findings.extend(disk::look(self));
            findings.extend(socket::look(self));
            findings.extend(daemon::look(self, heard));
        }
        findings
    }

    /// Whether there is a state directory that this user can look into.
    fn is_ours(&self) -> bool {
        let us = rustix::process::geteuid();
        self.state.exists() && (us.is_root() || us.as_raw() == self.user)
    }

    /// A directory that its daemon refuses to work in.
    fn unfit(&self, what: &'static str, error: &DirectoryError) -> Diagnosis {
        let remedy = match error {
            DirectoryError::Foreign { path, .. } => {
                Remedy::run(&format!("chown {}", self.user), [path.as_path()])
            }
            DirectoryError::Writable { path, .. } => Remedy::run("chmod go-w", [path.as_path()]),
            DirectoryError::Parent { .. }
            | DirectoryError::Link { .. }
            | DirectoryError::Io { .. } => {
                Remedy::Do("do as it says there, then look again".to_owned())
            }
        };
        Diagnosis::fail(what, error.to_string(), remedy)
    }

    /// A command on this broker.
    fn keyhatch(&self, words: &str) -> String {
        let (state, runtime) = (quoted(&self.state), quoted(&self.runtime));
        format!("keyhatch {words} --state {state} --runtime {runtime}")
    }
}

fn report(findings: &[Diagnosis], common: &Common) -> Result<(), Failure> {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    let answer = json!({ "failed": failed, "warned": warned, "findings": findings });
    let names = || {
        let wrong = findings.iter().filter(|finding| finding.level != Level::Ok);
        wrong.map(|finding| finding.what).collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, || lines(findings), names)?;
    match failed {
        0 => Ok(()),
        _ => {
            let text = format!("{failed} of {} checks failed", findings.len());
            Err(Failure::new("NOT_WELL", text, exit::FAILED))
        }
    }
}

/// A line for each finding, and one for what to do about it.
fn lines(findings: &[Diagnosis]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let line = |finding: &Diagnosis| {
        let Diagnosis { level, what, detail, remedy } = finding;
        let told = printable(&format!("{level:<4}  {what:<width$}  {detail}"));
        match remedy {
            Some(Remedy::Run(command)) => format!("{told}\n      run: {}", printable(command)),
            Some(Remedy::Do(advice)) => format!("{told}\n      {}", printable(advice)),
            None => told,
        }
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}
