//! `keyhatch issuer`: the broker as an issuer of tokens that name a step.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::{print, say};
use crate::cli::io::text::{properties, short_name, table};
use crate::cli::io::time::{moment, second};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::identity::{DISCOVERY, KEY_SET};
use crate::sys::input::open_file;
use crate::sys::{Directory, Trust};

/// Everybody may read what is hosted.
const MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// A longer file is none of ours, and is replaced unread.
const MAX_BYTES: usize = 64 * 1024;

/// `keyhatch issuer …`
#[derive(Subcommand)]
pub enum IssuerCommand {
    /// Show the issuer's URL, its public keys, and the connections that need it
    Show,
    /// Write the documents that verifiers read, to be hosted below the issuer's URL
    Write {
        /// The directory that is hosted at the issuer's URL. It is made if it is missing. A file is replaced as a whole, and
        /// only if it changes.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Have the issuer's next key sign, as an administrator. Host the documents before, and again afterwards
    Rotate {
        /// Rotate although the next key is not known to be hosted: verifiers refuse tokens until it is.
        #[arg(long)]
        force: bool,
    },
}

impl IssuerCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::Show => show(common, &ask(channel).await?),
            Self::Write { out } => write(common, &ask(channel).await?, &out),
            Self::Rotate { force } => rotate(common, channel, force).await,
        }
    }
}

/// Asks the broker for its issuer.
pub(crate) async fn ask(channel: Channel) -> Result<pb::Issuer, Failure> {
    let mut client = SystemServiceClient::new(channel);
    Ok(client.get_issuer(pb::GetIssuerRequest {}).await?.into_inner())
}

fn show(common: &Common, issuer: &pb::Issuer) -> Result<(), Failure> {
    let connections: Vec<_> = issuer.connections.iter().map(|name| short_name(name)).collect();
    let answer = json!({
        "url": Some(&issuer.url).filter(|url| !url.is_empty()),
        "keys": issuer.keys.iter().map(key_json).collect::<Vec<_>>(),
        "connections": connections,
    });
    let text = || {
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        let url = or(&issuer.url, "none: no token is signed");
        let head = properties(&[
            ("issuer", url),
            ("needed by", or(&connections.join(", "), "no connection")),
        ]);
        format!("{head}\n\n{}", keys(&issuer.keys))
    };
    print(common.output, &answer, text, || issuer.url.clone())?;
    if issuer.url.is_empty() {
        say(
            "to be an issuer, the broker needs a URL: set url in the table issuer of the daemon's configuration",
        );
    }
    Ok(())
}

fn write(common: &Common, issuer: &pb::Issuer, directory: &Path) -> Result<(), Failure> {
    if issuer.url.is_empty() {
        let text = "the broker is no issuer: set url in the table issuer of the daemon's configuration, and restart the \
                    daemon";
        return Err(Failure::new("ISSUER_NOT_CONFIGURED", text, exit::FAILED));
    }
    // The keys come first: the other document refers to them.
    let documents = [(KEY_SET, &issuer.key_set), (DISCOVERY, &issuer.discovery_document)];
    let mut files = Vec::new();
    let out = Directory::make(directory, DIRECTORY_MODE, &Trust::of_process(&[]))
        .map_err(|error| Failure::usage(format!("--out: {error}")))?;
    for (name, text) in documents {
        let path = directory.join(name);
        let is_written = replace(&out, name, text.as_bytes()).map_err(|error| {
            let text = format!("--out: {}: {error}; name a directory to write to", path.display());
            Failure::usage(text)
        })?;
        files.push((path.display().to_string(), is_written));
    }
    let answer = json!({
        "url": issuer.url,
        "files": files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "changed": files.iter().any(|(_, is_written)| *is_written),
    });
    let rows = files.iter().map(|(path, is_written)| {
        vec![path.clone(), if *is_written { "written" } else { "as it was" }.to_owned()]
    });
    let text = || table(&["file", ""], rows.collect());
    let names = || files.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>().join("\n");
    print(common.output, &answer, text, names)?;
    say(&format!(
        "host {} at {}, for everybody who is to verify tokens",
        directory.display(),
        issuer.url
    ));
    Ok(())
}

/// Writes a public file below a directory, whole or not at all; it is on disk then. Follows no link. Returns false if it has
/// this content already.
fn replace(directory: &Directory, path: &str, content: &[u8]) -> std::io::Result<bool> {
    if let Some((parent, name)) = path.rsplit_once('/') {
        let parent = directory.make_directory(parent, DIRECTORY_MODE);
        return replace(&parent.map_err(std::io::Error::other)?, name, content);
    }
    let found = directory.open_file(path).and_then(|file| open_file(file, MAX_BYTES));
    if found.is_ok_and(|found| *found == content) {
        return Ok(false);
    }
    directory.replace(path, MODE, content).map(|()| true)
}

async fn rotate(common: &Common, channel: Channel, force: bool) -> Result<(), Failure> {
    let mut client = SystemServiceClient::new(channel);
    let rotated = client.rotate_issuer(pb::RotateIssuerRequest { force }).await?.into_inner();
    let keys_json: Vec<_> = rotated.keys.iter().map(key_json).collect();
    let answer = json!({ "keys": keys_json, "hosted": rotated.hosted });
    let names = || rotated.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join("\n");
    print(common.output, &answer, || keys(&rotated.keys), names)?;
    if !rotated.hosted {
        say(
            "warning: the daemon did not find the key that signs now among the hosted keys: verifiers may not know it",
        );
    }
    say("host the new next key before the next rotation: keyhatch issuer write --out DIR");
    Ok(())
}

fn keys(keys: &[pb::IssuerKey]) -> String {
    let row = |key: &pb::IssuerKey| {
        let remark = match key.state() {
            pb::IssuerKeyState::Next => "signs after the next rotation".to_owned(),
            pb::IssuerKeyState::Current => "signs".to_owned(),
            _ => format!("published until {}", second(key.expire_time.as_ref())),
        };
        vec![key.id.clone(), state(key).to_owned(), second(key.create_time.as_ref()), remark]
    };
    table(&["key", "state", "created", ""], keys.iter().map(row).collect())
}

fn key_json(key: &pb::IssuerKey) -> Json {
    json!({
        "id": key.id,
        "state": state(key),
        "create_time": moment(key.create_time.as_ref()),
        "expire_time": key.expire_time.as_ref().map(|time| moment(Some(time))),
    })
}

fn state(key: &pb::IssuerKey) -> &'static str {
    match key.state() {
        pb::IssuerKeyState::Next => "next",
        pb::IssuerKeyState::Current => "current",
        pb::IssuerKeyState::Previous => "previous",
        pb::IssuerKeyState::Unspecified => "",
    }
}
