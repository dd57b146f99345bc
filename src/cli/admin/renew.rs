//! `keyhatch renew`: certificates of operators and executors, for timers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::identity::renewal::{is_due, renew_now};
use crate::cli::identity::retry::{RETRY_TIME, RetryDeadline};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{print, say};
use crate::config::default_state;
use crate::daemon::{EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::model::{Clock, SpiffeId};

/// The longest that a renewal takes, with the time for a broker that restarts: the next does not wait for a broker that
/// hangs.
const MOST_TIME: Duration = Duration::from_secs(30);

/// Arguments of `renew`.
#[derive(clap::Args)]
pub struct Renew {
    /// The directory of an identity; without it the one that KEYHATCH_DIR names, or those in the state directory.
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Leave a certificate that has more than a third of its life before it.
    #[arg(long)]
    if_due: bool,
}

impl Renew {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let directories = match self.directories.is_empty() {
            true => own_directories(common)?,
            false => self.directories,
        };
        let (mut renewed, mut failures) = (Vec::new(), Vec::new());
        for directory in directories {
            let outcome = tokio::time::timeout(MOST_TIME, renew(&directory, self.if_due)).await;
            match outcome.unwrap_or_else(|_| Err(has_hung())) {
                Ok((who, until)) => renewed.push((directory, who, until)),
                // The others do not wait for it.
                Err(failure) => {
                    let message = format!("{}: {}", directory.display(), failure.message);
                    failures.push(Failure { message, ..failure });
                }
            }
        }
        let answer = renewed.iter().map(|(directory, who, until)| {
            json!({ "directory": directory, "name": who, "certificate_expire_time": until })
        });
        let answer: Vec<_> = answer.collect();
        let joined = |line: &dyn Fn(&(PathBuf, String, String)) -> String| {
            renewed.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let line = || joined(&|(_, who, until)| format!("{who}: certificate until {until}"));
        let name = || joined(&|(directory, ..)| directory.display().to_string());
        if !renewed.is_empty() {
            print(common.output, &answer, line, name)?;
        }
        let last = failures.pop();
        failures.iter().for_each(|failure| say(&failure.to_string()));
        last.map_or(Ok(()), Err)
    }
}

/// Renews an identity's certificate, or leaves it. Says whose it is, and until when it is good.
async fn renew(directory: &Path, if_due: bool) -> Result<(String, String), Failure> {
    let endpoint = Endpoint::in_directory(directory)?;
    let mut svid = endpoint.files.svid()?;
    let who = match &svid.id {
        SpiffeId::Operator(name) => format!("operator {name}"),
        SpiffeId::Executor(name) => format!("executor {name}"),
        _ => {
            return Err(Failure::usage(
                "this is no operator's or executor's identity; a step's is renewed by the broker",
            ));
        }
    };
    if !if_due || is_due(&svid, Clock::system().now()) {
        let channel = endpoint.reach_within(&mut RetryDeadline::after(RETRY_TIME)).await?;
        svid = renew_now(&endpoint.files, &channel).await?;
    }
    Ok((who, svid.not_after.to_string()))
}

fn has_hung() -> Failure {
    let text = format!("the broker has not answered for {} seconds", MOST_TIME.as_secs());
    Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
}

fn own_directories(common: &Common) -> Result<Vec<PathBuf>, Failure> {
    if let Some(named) = std::env::var_os("KEYHATCH_DIR").filter(|named| !named.is_empty()) {
        return Ok(vec![named.into()]);
    }
    let state = common.state.clone().unwrap_or_else(default_state);
    let identities = [OPERATOR_DIRECTORY, EXECUTOR_DIRECTORY].map(|name| state.join(name));
    // They may have been moved elsewhere.
    let there: Vec<_> =
        identities.into_iter().filter(|path| path.join("tls.crt").exists()).collect();
    match there.is_empty() {
        true => {
            let text = format!(
                "{} has no identities of this host; name their directories",
                state.display()
            );
            Err(Failure::new("IDENTITY_MISSING", text, exit::FAILED))
        }
        false => Ok(there),
    }
}
