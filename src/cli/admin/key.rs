//! `keyhatch key`: the keys that seal the store.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tonic::transport::Channel;

use super::kek::{KekChoice, NewKekArgs, OldKekArgs, unlock};
use crate::cli::daemon::broker_args::SharedParents;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{print, say, show};
use crate::cli::io::progress::ProgressDisplay;
use crate::cli::io::text::table;
use crate::cli::io::time::{moment, second};
use crate::cli::{Common, block_on};
use crate::config::{Config, Given};
use crate::daemon::{OfflineRotation, RotateOptions, rotate_offline};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::Clock;
use crate::sys::Trust;

/// The pause between two requests for the progress.
const POLL_PAUSE: Duration = Duration::from_millis(200);

/// `keyhatch key …`
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Show the KEK, and the keys (DEKs) that records are sealed under
    #[command(alias = "ls")]
    List,
    /// Replace the KEK, which wraps the other keys; with --data, the key that seals records
    Rotate(KeyRotate),
}

/// Arguments of `key rotate`.
#[derive(clap::Args)]
pub struct KeyRotate {
    /// Rotate the key that records are sealed under, and wait until all records are sealed again. The broker goes on if
    /// this is interrupted.
    #[arg(long, conflicts_with = "NewKekArgs")]
    data: bool,
    /// With --data: do not wait.
    #[arg(long, requires = "data", conflicts_with = "offline")]
    no_wait: bool,
    /// Rotate on this host while no daemon runs. The options for a new source of the KEK imply this.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    parents: SharedParents,
    #[command(flatten)]
    new: NewKekArgs,
    #[command(flatten)]
    old: OldKekArgs,
}

impl KeyCommand {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::List => block_on(list(common)),
            Self::Rotate(rotate) => rotate.run(common),
        }
    }
}

impl KeyRotate {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { data, no_wait, offline, parents, new, old } = self;
        let names_old = old.is_by_flag();
        let (new, old) = (new.choice()?, old.choice()?);
        if [&new, &old].iter().all(|kek| kek.as_ref().is_some_and(KekChoice::is_stdin)) {
            return Err(Failure::usage("only one passphrase can be read from stdin"));
        }
        if names_old && !offline && new.is_none() {
            return Err(Failure::usage(
                "the daemon knows its KEK itself: leave out --old-kek-…, or stop it and add --offline",
            ));
        }
        match (offline, new, data) {
            (false, None, true) => block_on(rotate_dek(common, no_wait)),
            (false, None, false) => block_on(rotate_kek(common)),
            (_, new, data) => {
                rotate_stopped(common, parents.shared_parent, new, old.as_ref(), data)
            }
        }
    }
}

/// Rotates while no daemon runs.
fn rotate_stopped(
    common: &Common,
    shared_parents: Vec<PathBuf>,
    new: Option<KekChoice>,
    old: Option<&KekChoice>,
    is_dek: bool,
) -> Result<(), Failure> {
    let given = Given { state: common.state.clone(), shared_parents, ..Given::default() };
    let config = Config::load(given).map_err(|error| Failure::usage(error.to_string()))?;
    let shared_parents = config.shared_parents;
    let state = std::path::absolute(config.state)?;
    let trust = Trust::of_owner(&state, &shared_parents);
    let flag = new.as_ref().map(KekChoice::flag);
    let what = match new {
        Some(new) => OfflineRotation::KekFrom(new.into_new(&trust)?),
        None if is_dek => OfflineRotation::Dek,
        None => OfflineRotation::Kek,
    };
    let unlock = unlock(old, &trust, "--old-kek-passphrase-file");
    let clock = Clock::system();
    let rotated = rotate_offline(RotateOptions { state, shared_parents, unlock, what, clock })?;
    let (old, new) = (rotated.old.to_string(), rotated.new.to_string());
    if is_dek {
        say("the next keyhatch serve seals everything again under the new key");
        return print_dek(common, &new);
    }
    if let Some(flag) = flag {
        say(&format!("give the daemon, and commands while it is stopped, from now on: {flag}"));
    }
    let kept = rotated.kept.map(|file| file.display().to_string()).unwrap_or_default();
    print_kek(common, &old, &new, &kept)
}

async fn list(common: &Common) -> Result<(), Failure> {
    let channel = common.operator().await?;
    let listed = ask(channel).await?;
    let dek = |dek: &pb::Dek| {
        json!({
            "id": dek.id,
            "create_time": dek.create_time.as_ref().map(|time| moment(Some(time))),
            "newest": dek.newest,
            "records": dek.records,
        })
    };
    let answer = json!({
        "kek_id": listed.kek_id,
        "kek_source": listed.kek_source,
        "deks": listed.deks.iter().map(dek).collect::<Vec<_>>(),
    });
    let row = |dek: &pb::Dek| {
        let remark = if dek.newest { "in use" } else { "sealed again under the newest" };
        let (id, records) = (dek.id.clone(), dek.records.to_string());
        vec!["DEK".to_owned(), id, second(dek.create_time.as_ref()), records, remark.to_owned()]
    };
    let text = || {
        let remark = format!("wraps the others; comes from a {}", listed.kek_source);
        let kek = ["KEK", &listed.kek_id, "", "", &remark].map(ToOwned::to_owned).to_vec();
        let rows = [kek].into_iter().chain(listed.deks.iter().map(row)).collect();
        table(&["key", "id", "created", "records", ""], rows)
    };
    let names = || {
        let ids = listed.deks.iter().map(|dek| dek.id.as_str());
        [listed.kek_id.as_str()].into_iter().chain(ids).collect::<Vec<_>>().join("\n")
    };
    print(common.output, &answer, text, names)
}

async fn ask(channel: Channel) -> Result<pb::ListKeysResponse, Failure> {
    let mut client = SystemServiceClient::new(channel);
    Ok(client.list_keys(pb::ListKeysRequest {}).await?.into_inner())
}

async fn rotate_kek(common: &Common) -> Result<(), Failure> {
    let channel = common.operator().await?;
    let rotated = SystemServiceClient::new(channel).rotate_kek(pb::RotateKekRequest {}).await?;
    let rotated = rotated.into_inner();
    print_kek(common, &rotated.old_kek_id, &rotated.kek_id, &rotated.old_kek_file)
}

async fn rotate_dek(common: &Common, no_wait: bool) -> Result<(), Failure> {
    let channel = common.operator().await?;
    let mut client = SystemServiceClient::new(channel.clone());
    let dek = client.rotate_dek(pb::RotateDekRequest {}).await?.into_inner().dek_id;
    if no_wait {
        say("everything is being sealed again under the new key; see how far: keyhatch key list");
        return print_dek(common, &dek);
    }
    let mut progress = ProgressDisplay::begin("sealing again");
    loop {
        let listed = ask(channel.clone()).await.map_err(|failure| Failure {
            message: format!(
                "{}; the broker goes on by itself: see keyhatch key list",
                failure.message
            ),
            ..failure
        })?;
        // The broker drops an older key once no record is sealed under it.
        let older = listed.deks.iter().take_while(|one| one.id != dek).map(|one| one.records);
        let is_done = listed.deks.first().is_none_or(|first| first.id == dek);
        let count = |records: i64| u64::try_from(records).unwrap_or(0);
        let left = count(older.sum());
        let total = count(listed.deks.iter().map(|one| one.records).sum());
        if is_done {
            break;
        }
        progress.show(total.saturating_sub(left), total);
        tokio::time::sleep(POLL_PAUSE).await;
    }
    drop(progress);
    print_dek(common, &dek)
}

fn print_kek(common: &Common, old: &str, new: &str, kept: &str) -> Result<(), Failure> {
    if !kept.is_empty() {
        say(&format!("the old KEK is kept in {kept}: backups from before this need it"));
    }
    let answer = json!({ "old_kek_id": old, "kek_id": new, "old_kek_file": kept });
    show(common.output, &answer, "kek_id", &[("KEK", "kek_id"), ("before", "old_kek_id")])
}

fn print_dek(common: &Common, dek: &str) -> Result<(), Failure> {
    show(common.output, &json!({ "dek_id": dek }), "dek_id", &[("DEK", "dek_id")])
}
