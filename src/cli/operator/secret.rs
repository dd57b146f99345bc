//! `keyhatch secret`: values of one workflow.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::confirm;
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, connect};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{moment, print, say, table};
use crate::cli::io::values::{from_environment, from_file, from_stdin, refuse_empty};
use crate::cli::io::{pages, remarks};
use crate::grpc::pb;
use crate::grpc::pb::secret_service_client::SecretServiceClient;

/// `keyhatch secret …`
#[derive(Subcommand)]
pub enum Secret {
    /// Create or overwrite a secret
    Put {
        #[command(flatten)]
        of: Of,
        /// Its name.
        name: String,
        /// Where the value is: - (stdin), @FILE or env:VARIABLE.
        #[arg(long, default_value = "-", value_name = "SOURCE")]
        value: String,
        /// Take a value that is empty for one.
        #[arg(long)]
        allow_empty: bool,
    },
    /// List the names of a workflow's secrets
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Delete a secret and revoke its leases
    Delete {
        #[command(flatten)]
        of: Of,
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Whose secrets.
#[derive(Args)]
pub struct Of {
    /// The workflow.
    #[arg(long, value_name = "NAME")]
    workflow: String,
}

impl Of {
    fn full(&self, name: &str) -> String {
        format!("workflows/{}/secrets/{name}", self.workflow)
    }
}

impl Secret {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = connect(Caller::Operator, common.state.as_deref()).await?;
        let mut client = SecretServiceClient::new(channel.clone());
        match self {
            Self::Put { of, name, value, allow_empty } => {
                let value = read(&value, &name)?;
                refuse_empty(&value, allow_empty, &name)?;
                let name_of = of.full(&name);
                let request = pb::PutSecretRequest { name: name_of, value, ..Default::default() };
                let put = client.put_secret(request).await?.into_inner();
                let called = format!("secret {name} of {}", of.workflow);
                remarks::announce(&called, &put.findings);
                let text = || format!("{called}: version {}", put.version);
                print(common.output, &to_json(&put), text, || name.clone())
            }
            Self::List { of } => {
                print_list(common, &pages::secrets(&channel, Some(&of.workflow)).await?)
            }
            Self::Delete { of, name, yes } => {
                if !yes {
                    confirm(&format!("Delete secret {name} of workflow {}?", of.workflow))?;
                }
                let name_of = of.full(&name);
                let request = pb::DeleteSecretRequest { name: name_of, ..Default::default() };
                client.delete_secret(request).await?;
                say(&format!("secret {name} deleted"));
                Ok(())
            }
        }
    }
}

fn read(source: &str, name: &str) -> Result<Vec<u8>, Failure> {
    match (source, source.strip_prefix('@'), source.strip_prefix("env:")) {
        ("-", ..) => from_stdin(name),
        (_, Some(path), _) => from_file(Path::new(path)),
        (_, _, Some(variable)) => from_environment(variable),
        // Not shown: it may be the value itself.
        _ => Err(Failure::usage("--value: write - (stdin), @FILE or env:VARIABLE")),
    }
}

fn print_list(common: &Common, secrets: &[pb::Secret]) -> Result<(), Failure> {
    let answer: Vec<_> = secrets.iter().map(to_json).collect();
    let rows = || {
        let rows = secrets.iter().map(|secret| {
            let updated = moment(secret.update_time.as_ref());
            vec![short(secret), secret.version.to_string(), updated, secret.updated_by.clone()]
        });
        let header = ["secret", "version", "updated", "by"];
        if secrets.is_empty() { "no secrets".to_owned() } else { table(&header, rows.collect()) }
    };
    print(common.output, &answer, rows, || secrets.iter().map(short).collect::<Vec<_>>().join("\n"))
}

fn short(secret: &pb::Secret) -> String {
    secret.name.rsplit('/').next().unwrap_or_default().to_owned()
}

fn to_json(secret: &pb::Secret) -> serde_json::Value {
    json!({
        "secret": short(secret),
        "version": secret.version,
        "update_time": moment(secret.update_time.as_ref()),
        "updated_by": secret.updated_by,
    })
}
