//! `keyhatch renew`: renews certificates of operators and executors, for timers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::renewal::{is_due, renew_now};
use crate::cli::identity::retry::{RETRY_TIME, RetryDeadline};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{print, say};
use crate::config::default_state;
use crate::daemon::{EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::identity::Svid;
use crate::model::{Clock, SpiffeId};

/// The longest that one renewal takes, so that a broker that hangs does not stop the others.
const RENEWAL_LIMIT: Duration = Duration::from_secs(30);

/// Arguments of `renew`.
#[derive(clap::Args)]
pub struct Renew {
    /// The directory of an identity; by default the one in KEYHATCH_DIR, or those in the state directory.
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Leave a certificate with more than a third of its lifetime left.
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
            let outcome = tokio::time::timeout(RENEWAL_LIMIT, renew(&directory, self.if_due)).await;
            match outcome.unwrap_or_else(|_| Err(has_hung())) {
                Ok((who, until)) => renewed.push((directory, who, until)),
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
        let lines = || renewed.iter().map(|(_, who, until)| line(who, until)).collect::<Vec<_>>();
        let names = || renewed.iter().map(|(directory, ..)| directory.display().to_string());
        if !renewed.is_empty() {
            let name = || names().collect::<Vec<_>>().join("\n");
            print(common.output, &answer, || lines().join("\n"), name)?;
        }
        let last = failures.pop();
        failures.iter().for_each(|failure| say(&failure.to_string()));
        last.map_or(Ok(()), Err)
    }
}

/// Renews the certificate in a directory, or only a certificate that is due. Returns its owner and its end.
async fn renew(directory: &Path, if_due: bool) -> Result<(String, String), Failure> {
    let endpoint = Endpoint::in_directory(directory)?;
    let mut svid = endpoint.files.svid()?;
    let who = name_of(&svid.id).ok_or_else(|| {
        Failure::usage(
            "this is no operator's or executor's identity; a step's is renewed by the broker",
        )
    })?;
    if !if_due || is_due(&svid, Clock::system().now()) {
        svid = renew_at(&endpoint).await?;
    }
    Ok((who, svid.not_after.to_string()))
}

/// `operator renew` and `executor renew`.
pub(super) async fn renew_own(common: &Common, caller: Caller) -> Result<(), Failure> {
    let endpoint = Endpoint::find(caller, common.place())?;
    let who = name_of(&endpoint.identity()?).filter(|who| who.starts_with(caller.word()));
    let who = who.ok_or_else(|| {
        Failure::usage(format!("KEYHATCH_DIR is not the identity of an {}", caller.word()))
    })?;
    let until = renew_at(&endpoint).await?.not_after.to_string();
    let answer = json!({ "name": who, "certificate_expire_time": until });
    print(common.output, &answer, || line(&who, &until), || who.clone())
}

/// Renews a certificate now.
async fn renew_at(endpoint: &Endpoint) -> Result<Svid, Failure> {
    // The connection must not renew it before.
    let channel = endpoint.reach_within(&mut RetryDeadline::after(RETRY_TIME)).await?;
    renew_now(&endpoint.files, &channel).await
}

/// "operator NAME" or "executor NAME". None for other identities.
fn name_of(id: &SpiffeId) -> Option<String> {
    match id {
        SpiffeId::Operator(name) => Some(format!("operator {name}")),
        SpiffeId::Executor(name) => Some(format!("executor {name}")),
        _ => None,
    }
}

fn line(who: &str, until: &str) -> String {
    format!("{who}: certificate until {until}")
}

fn has_hung() -> Failure {
    let text = format!("the broker has not answered for {} seconds", RENEWAL_LIMIT.as_secs());
    Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
}

fn own_directories(common: &Common) -> Result<Vec<PathBuf>, Failure> {
    if let Some(named) = std::env::var_os("KEYHATCH_DIR").filter(|named| !named.is_empty()) {
        return Ok(vec![named.into()]);
    }
    let state = common.state.clone().unwrap_or_else(default_state);
    let identities = [OPERATOR_DIRECTORY, EXECUTOR_DIRECTORY].map(|name| state.join(name));
    // An identity may have been moved elsewhere.
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
