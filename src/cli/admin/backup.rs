//! `keyhatch backup` and `keyhatch restore`

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tonic::transport::Channel;

use crate::cli::daemon::broker_args::BrokerArgs;
use crate::cli::daemon::init::serve_flags;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::io::output::{print, say, show};
use crate::cli::io::progress::ProgressDisplay;
use crate::cli::io::text::properties;
use crate::cli::{Common, block_on};
use crate::config::Given;
use crate::daemon::{RestoreOptions, restore};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::Clock;

/// Arguments of `backup`.
#[derive(clap::Args)]
pub struct BackupCommand {
    /// The archive to write, a file that does not exist; - for stdout.
    file: PathBuf,
}

/// Arguments of `restore`.
#[derive(clap::Args)]
pub struct RestoreCommand {
    /// The archive to restore, into an empty state directory.
    #[arg(required_unless_present = "confirm")]
    file: Option<PathBuf>,
    /// Confirm that the running broker was restored from the right backup: it resolves credentials again.
    #[arg(long, conflicts_with = "file")]
    confirm: bool,
    /// With --confirm: the original broker is gone, and this one ends the credentials that upstreams made for it.
    #[arg(long, requires = "confirm", conflicts_with = "copy")]
    original_gone: bool,
    /// With --confirm: the original broker goes on. Its credentials are its own, and this one leaves them alone.
    #[arg(long, requires = "confirm")]
    copy: bool,
    /// With --confirm: no broker has used a refresh token since the backup, so the tokens in the backup are used again.
    #[arg(long, requires = "confirm", conflicts_with = "copy")]
    refresh_tokens_current: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

impl BackupCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        if self.file.as_os_str() == "-" {
            receive(channel, output::write).await?;
            return Ok(());
        }
        let mut archive = ArchiveFile::create(&self.file)?;
        let bytes = receive(channel, |piece| archive.write(piece)).await?;
        archive.finish()?;
        let path = self.file.display().to_string();
        let answer = json!({"file": path, "bytes": bytes});
        show(common.output, &answer, "file", &[("backup", "file"), ("bytes", "bytes")])?;
        say("it is sealed, and does not hold the KEK: keep a copy of that elsewhere");
        Ok(())
    }
}

/// Hands on the backup in pieces, and returns its length in bytes.
async fn receive(
    channel: Channel,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut pieces =
        SystemServiceClient::new(channel).backup(pb::BackupRequest {}).await?.into_inner();
    let (mut bytes, mut progress) = (0_u64, ProgressDisplay::begin("backup"));
    while let Some(piece) = pieces.message().await? {
        bytes += piece.data.len() as u64;
        take(&piece.data)?;
        progress.show(bytes, u64::try_from(piece.total_bytes).unwrap_or(0));
    }
    Ok(bytes)
}

/// An archive that gets its name only when it is complete.
struct ArchiveFile {
    file: File,
    path: PathBuf,
    unfinished: PathBuf,
}

impl ArchiveFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::usage(format!("{}: {error}; choose another file", path.display()))
        };
        if path.exists() {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".part");
        let unfinished = PathBuf::from(unfinished);
        // Left over from an earlier attempt. A file that cannot be removed is another user's, and is not written to.
        let _ = std::fs::remove_file(&unfinished);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&unfinished);
        Ok(Self { file: file.map_err(failed)?, path: path.to_owned(), unfinished })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.file.write_all(piece).map_err(|error| self.failed(&error))
    }

    fn finish(&self) -> Result<(), Failure> {
        let finished = self.file.sync_all();
        let finished = finished.and_then(|()| std::fs::rename(&self.unfinished, &self.path));
        finished.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        let path = self.path.display();
        let text = format!("{path}: {error}; make room there, or choose another file");
        Failure::new("IO", text, exit::FAILED)
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        // Fails if the archive was finished.
        let _ = std::fs::remove_file(&self.unfinished);
    }
}

impl RestoreCommand {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self.file {
            Some(file) => restore_from(common, file, self.broker),
            None => {
                let restored_as = restored_as(self.original_gone, self.copy);
                block_on(confirm(common, restored_as, self.refresh_tokens_current))
            }
        }
    }
}

fn restore_from(common: &Common, archive: PathBuf, args: BrokerArgs) -> Result<(), Failure> {
    let has_runtime = args.runtime.is_some();
    let broker = args.load(common, Given::default())?;
    let options = RestoreOptions {
        archive,
        unlock: broker.unlock(),
        shared_parents: broker.config.shared_parents,
        state: broker.config.state,
        runtime: broker.config.runtime,
        clock: Clock::system(),
    };
    let mut progress = ProgressDisplay::begin("restore");
    let restored = restore(&options, |bytes, total| progress.show(bytes, total))?;
    drop(progress);
    let state = options.state.display().to_string();
    let time = restored.backup_time.to_string();
    let answer = json!({
        "state": state,
        "backup_time": time,
        "head": restored.head,
        "operator": restored.operator,
        "executor": restored.executor,
    });
    let table = || {
        properties(&[
            ("state", state.clone()),
            ("backup of", time.clone()),
            ("last change", restored.head.to_string()),
            ("operator", restored.operator.display().to_string()),
            ("executor", restored.executor.display().to_string()),
        ])
    };
    print(common.output, &answer, table, || state.clone())?;
    let given = serve_flags(has_runtime, &options.runtime, broker.kek.as_ref());
    say(&format!(
        "the operator admin and the local executor have new keys. Every step is closed, and nothing is resolved until \
         you have checked the broker and confirm it, with --original-gone or --copy:\n  keyhatch serve --state {state}{given}\n  \
         keyhatch restore --confirm --original-gone --state {state}"
    ));
    Ok(())
}

fn restored_as(original_gone: bool, copy: bool) -> pb::RestoredAs {
    match (original_gone, copy) {
        (true, _) => pb::RestoredAs::OriginalGone,
        (false, true) => pb::RestoredAs::Copy,
        (false, false) => pb::RestoredAs::Unspecified,
    }
}

async fn confirm(
    common: &Common,
    restored_as: pb::RestoredAs,
    refresh_tokens_current: bool,
) -> Result<(), Failure> {
    let channel = common.operator().await?;
    let mut client = SystemServiceClient::new(channel);
    let restored_as = restored_as.into();
    let request = pb::EndQuarantineRequest { restored_as, refresh_tokens_current };
    let answer = client.end_quarantine(request).await?.into_inner();
    let pb::EndQuarantineResponse { ended, lost, not_sought, connections_left } = answer;
    let text = match ended {
        true => "confirmed: credentials are resolved again",
        false => "it is not in quarantine",
    };
    let told = lost.iter().map(
        |one| json!({"connection": one.connection, "handles": one.handles, "problem": one.problem}),
    );
    let told: Vec<_> = told.collect();
    let answer = json!({
        "ended": ended, "lost": told, "not_sought": not_sought, "connections_left": connections_left
    });
    print(common.output, &answer, || text.to_owned(), || text.to_owned())?;
    if !not_sought.is_empty() {
        say(&format!("roles that were made after the backup were not looked for: {not_sought}"));
    }
    if connections_left > 0 {
        say(&format!(
            "roles that were made after the backup are still looked for, at {connections_left} connection(s): see keyhatch \
             ending list"
        ));
    }
    for pb::LostCredentials { connection, handles, problem } in &lost {
        for handle in handles {
            say(&format!("{connection}: {handle} was made after the backup, and is ended now"));
        }
        if !problem.is_empty() {
            say(&format!(
                "{connection}: roles that were made after the backup may be left there: {problem}; then repeat this \
                 command with --original-gone"
            ));
        }
    }
    Ok(())
}
