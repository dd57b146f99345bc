//! `keyhatch helper`: credential helpers for other tools, in the protocols of the tools.
//!
//! The user who configures a helper chooses the reference for each host. A tool that is sent to another host gets
//! nothing.

mod address;
mod docker;
mod git;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;

use super::credential::Credential;
use super::format::{CredentialFormat, exec_info};
use super::get::{TIMEOUT, resolve};
use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::io::time::parse_duration;
use crate::model::Reference;
use address::is_same_server;

/// `keyhatch helper …`
#[derive(clap::Args)]
pub struct Helper {
    #[command(subcommand)]
    tool: HelperTool,
    /// The reference for a client: HOST=REF for git and docker, PROFILE=REF for aws, SERVER=REF for kubectl; may be
    /// given more than once. HOST may be http://HOST; for git also USER@HOST, and HOST/PATH if credential.useHttpPath
    /// is set: the nearest answers. The variable has ; between them.
    #[arg(
        long = "answer",
        global = true,
        env = "KEYHATCH_HELPER_ANSWERS",
        value_name = "WHOM=REF",
        value_delimiter = ';'
    )]
    answers: Vec<String>,
    /// How long the broker may take.
    #[arg(long, global = true, value_parser = parse_duration, default_value = TIMEOUT)]
    timeout: Duration,
}

#[derive(Subcommand)]
enum HelperTool {
    /// A git credential helper: git config credential.helper '!keyhatch helper git --answer github.com=github/main'
    Git {
        /// The operation: get. Any other does nothing, because nothing is stored.
        operation: String,
    },
    /// A Docker credential helper, which Docker runs as docker-credential-keyhatch: a link to this program
    Docker {
        /// The operation; store is refused, and erase does nothing.
        operation: docker::DockerOperation,
    },
    /// The command of a kubeconfig's exec, for the one connection or for the cluster that asks
    Kubectl {
        /// The connection; by default the one that --answer names for the cluster's server.
        reference: Option<String>,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
    /// An AWS profile's credential_process
    Aws {
        /// The connection; by default the one that --answer names for --profile.
        reference: Option<String>,
        /// The name of the profile, which AWS' tools do not pass on.
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
}

/// One `--answer`.
struct HelperAnswer {
    whom: String,
    reference: Reference,
}

/// The configuration of a helper.
struct Helping<'a> {
    common: &'a Common,
    answers: Vec<HelperAnswer>,
    timeout: Duration,
}

impl Helper {
    pub(crate) async fn run(self, common: &Common) -> Result<u8, Failure> {
        let answers = self.answers.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        let answers = answers.map(HelperAnswer::parse).collect::<Result<_, _>>()?;
        let helping = Helping { common, answers, timeout: self.timeout };
        match self.tool {
            HelperTool::Git { operation } => git::run(&helping, &operation).await,
            HelperTool::Docker { operation } => docker::run(&helping, operation).await,
            HelperTool::Other(words) => {
                let tool = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
                let text = format!(
                    "there is no helper for {tool:?}; there are aws, docker, git and kubectl"
                );
                Err(Failure::usage(text))
            }
            HelperTool::Kubectl { reference } => {
                let server = asking_cluster();
                let matches =
                    |whom: &str| server.as_deref().is_some_and(|asks| is_same_server(whom, asks));
                helping.print(reference, matches, CredentialFormat::Kubectl).await
            }
            HelperTool::Aws { reference, profile } => {
                let matches = |whom: &str| Some(whom) == profile.as_deref();
                helping.print(reference, matches, CredentialFormat::AwsCredentialProcess).await
            }
        }
    }
}

impl HelperAnswer {
    fn parse(text: &str) -> Result<Self, Failure> {
        let (whom, reference) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!(
                "--answer {text}: write WHOM=REF, such as github.com=github/main"
            ))
        })?;
        if whom.contains('*') {
            return Err(Failure::usage(format!(
                "--answer {text}: an address has no wildcards; write one --answer for each"
            )));
        }
        Ok(Self { whom: whom.trim().to_owned(), reference: reference.trim().parse()? })
    }
}

impl Helping<'_> {
    fn answer_for(&self, matches: impl Fn(&str) -> bool) -> Option<&Reference> {
        self.answers.iter().find(|answer| matches(&answer.whom)).map(|answer| &answer.reference)
    }

    async fn resolve(&self, reference: &Reference) -> Result<Credential, Failure> {
        resolve(self.common, self.timeout, reference.clone(), Vec::new(), None).await
    }

    /// Prints one credential in a form.
    async fn print(
        &self,
        reference: Option<String>,
        matches: impl Fn(&str) -> bool,
        format: CredentialFormat,
    ) -> Result<u8, Failure> {
        let named = reference.map(|text| text.parse()).transpose()?;
        let reference = named.as_ref().or_else(|| self.answer_for(matches)).ok_or_else(|| {
            Failure::usage(
                "no --answer is for who asks: name the connection, or give --answer WHOM=REF (and --profile WHOM for aws)",
            )
        })?;
        let credential = self.resolve(reference).await?;
        output::write(&format.render(&credential)?)?;
        Ok(0)
    }
}

/// The server of the cluster that client-go asks for. None unless the kubeconfig sets provideClusterInfo.
fn asking_cluster() -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(&exec_info()?).ok()?;
    Some(info.pointer("/spec/cluster/server")?.as_str()?.to_owned())
}

/// Reads the request of a tool.
fn read_stdin() -> Result<String, Failure> {
    /// More than any tool sends.
    const MAX_BYTES: u64 = 64 * 1024;
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces the program's name in the command line if a tool has called it by the name of its helper.
pub(crate) fn as_called(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let called = arguments.first().and_then(|name| Path::new(name).file_name()?.to_str());
    let tool = match called {
        Some("git-credential-keyhatch") => "git",
        Some("docker-credential-keyhatch") => "docker",
        _ => return arguments,
    };
    arguments.splice(..1, ["keyhatch", "helper", tool].map(OsString::from));
    arguments
}
