//! `keyhatch get`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::credential::Credential;
use super::format::{CredentialFormat, URI_FIELD, may_have_uri};
use super::watch::{CredentialWatch, WatchedVersion};
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::session::{CredentialRequest, Session};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output;
use crate::cli::io::output::Output;
use crate::cli::io::private_file::write_private;
use crate::cli::io::time::parse_duration;
use crate::model::Reference;

/// Arguments of `get`.
#[derive(clap::Args)]
pub struct Get {
    /// INTEGRATION/NAME for a connection, such as aws/prod; group:NAME:KEY=VALUE,… for a member of a
    /// group; secret:NAME for a secret; default:INTEGRATION for its default connection.
    #[arg(value_name = "REF")]
    reference: String,
    /// Print the value of this field alone. An alias of its name is accepted.
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,
    /// The form of the credential; by default json, and raw with --field.
    #[arg(long, value_enum)]
    format: Option<CredentialFormat>,
    /// Write to this file instead of stdout (-). The file is replaced as a whole. It keeps its owner, group and mode if
    /// others may not read it, and gets mode 0600 otherwise.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    out: Option<PathBuf>,
    /// Print the credential now and at every new version, as one line of JSON, until it is deleted, the access ends or
    /// the step ends.
    #[arg(long, conflicts_with = "format")]
    watch: bool,
    /// The duration of the lease, such as 15m.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// How long the broker may take. The command retries while the broker restarts.
    #[arg(long, value_parser = parse_duration, default_value = TIMEOUT)]
    timeout: Duration,
}

/// The default of --timeout. A daemon restarts in less, and no tool waits less for its helper.
pub(super) const TIMEOUT: &str = "10s";

impl Get {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let reference: Reference = self.reference.parse()?;
        let default = match common.output {
            _ if self.field.is_some() => CredentialFormat::Raw,
            Output::Yaml => CredentialFormat::Yaml,
            Output::Json | Output::Name | Output::Table => CredentialFormat::Json,
        };
        let format = self.format.unwrap_or(default);
        let is_secret = matches!(reference, Reference::Secret(_));
        if format == CredentialFormat::Raw && self.field.is_none() && !is_secret && !self.watch {
            return Err(Failure::usage("--format raw prints one value: name it with --field"));
        }
        let fields: Vec<String> = self.field.into_iter().collect();
        if self.watch {
            let session = Arc::new(Session::open(common, self.timeout).await?);
            let request = CredentialRequest::new(reference, &fields);
            return watch(CredentialWatch::new(session, request, self.ttl)).await;
        }
        let has_uri = may_have_uri(&reference) && fields == [URI_FIELD];
        let resolved = resolve(common, self.timeout, reference, fields, self.ttl).await;
        let credential = resolved.map_err(|failure| match failure.reason.as_str() {
            "FIELD_UNKNOWN" if has_uri => {
                let Failure { message, .. } = &failure;
                let form = format!("keyhatch get {} --format uri", self.reference);
                Failure { message: format!("{message}; the address is a form: {form}"), ..failure }
            }
            _ => failure,
        })?;
        let document = format.render(&credential)?;
        match self.out.filter(|path| path.as_path() != Path::new("-")) {
            Some(path) => write_private(&path, &document),
            None => {
                output::write(&document)?;
                let wants_newline =
                    format == CredentialFormat::Raw && std::io::stdout().is_terminal();
                if wants_newline { output::write(b"\n") } else { Ok(()) }
            }
        }
    }
}

/// Connects as a step, and resolves within a time limit.
pub(crate) async fn resolve(
    common: &Common,
    timeout: Duration,
    reference: Reference,
    fields: Vec<String>,
    ttl: Option<Duration>,
) -> Result<Credential, Failure> {
    let endpoint = Endpoint::find(Caller::Step, common.place())?;
    let resolved = endpoint.with_retries(timeout, async |channel| {
        Credential::resolve(channel, reference.clone(), fields.clone(), ttl).await
    });
    within(timeout, resolved).await
}

/// Returns the outcome of the work, or `UNREACHABLE` after the time limit.
pub(crate) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        let text = format!(
            "the broker has not answered within {} ms; --timeout makes it longer",
            timeout.as_millis()
        );
        Err(Failure::new("UNREACHABLE", text, exit::UNREACHABLE))
    })
}

/// Prints every version, until the watch fails.
async fn watch(mut watch: CredentialWatch) -> Result<(), Failure> {
    loop {
        let WatchedVersion { credential, skipped_versions } = watch.next().await?;
        let mut line = credential.to_json();
        if let Some(line) = line.as_object_mut() {
            line.insert("skipped_versions".to_owned(), json!(skipped_versions));
        }
        output::line(&line.to_string())?;
    }
}
