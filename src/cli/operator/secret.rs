//! `keyhatch secret`: the secrets of one workflow.

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{list, print, say};
use crate::cli::io::text::last_part;
use crate::cli::io::time::moment;
use crate::cli::io::values::{ArgumentSource, refuse_empty};
use crate::cli::io::{pages, remarks};
use crate::cli::operator::parts::impact::confirm_deletion;
use crate::cli::operator::parts::listing::{Listing, say_total};
use crate::grpc::pb;
use crate::grpc::pb::secret_service_client::SecretServiceClient;

#[derive(Subcommand)]
pub enum SecretCommand {
    /// Create or overwrite a secret
    Put {
        #[command(flatten)]
        of: SecretWorkflow,
        /// Its name.
        name: String,
        /// The source of the value: - (stdin), @FILE or env:VARIABLE.
        #[arg(long, default_value = "-", value_name = "SOURCE")]
        value: String,
        /// Accept an empty value.
        #[arg(long)]
        allow_empty: bool,
    },
    /// List the names of a workflow's secrets
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        of: SecretWorkflow,
        #[command(flatten)]
        listing: Listing,
    },
    /// Delete a secret and revoke its leases
    Delete {
        #[command(flatten)]
        of: SecretWorkflow,
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The workflow of the secrets.
#[derive(Args)]
pub struct SecretWorkflow {
    /// The workflow.
    #[arg(long, value_name = "NAME")]
    workflow: String,
}

impl SecretWorkflow {
    fn full(&self, name: &str) -> String {
        format!("workflows/{}/secrets/{name}", self.workflow)
    }
}

impl SecretCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        let mut client = SecretServiceClient::new(channel.clone());
        match self {
            Self::Put { of, name, value, allow_empty } => {
                let value = match ArgumentSource::parse(&value) {
                    // The error does not show the argument: it may be the value itself.
                    ArgumentSource::Argument(_) => {
                        let text = "--value: write - (stdin), @FILE or env:VARIABLE";
                        return Err(Failure::usage(text));
                    }
                    source => source.read(&name)?,
                };
                refuse_empty(&value, allow_empty, &name)?;
                let name_of = of.full(&name);
                let request = pb::PutSecretRequest { name: name_of, value, ..Default::default() };
                let put = client.put_secret(request).await?.into_inner();
                let called = format!("secret {name} of {}", of.workflow);
                remarks::announce(&called, &put.findings);
                let text = || format!("{called}: version {}", put.version);
                print(common.output, &to_json(&put), text, || name.clone())
            }
            Self::List { of, listing } => print_list(common, &channel, &of, &listing).await,
            Self::Delete { of, name, yes } => {
                let name_of = of.full(&name);
                let question = format!("Delete secret {name} of workflow {}?", of.workflow);
                confirm_deletion(&channel, yes, &name_of, &question).await?;
                let request = pb::DeleteSecretRequest { name: name_of, ..Default::default() };
                client.delete_secret(request).await?;
                say(&format!("secret {name} deleted"));
                Ok(())
            }
        }
    }
}

/// Prints the secrets of a workflow.
async fn print_list(
    common: &Common,
    channel: &Channel,
    of: &SecretWorkflow,
    listing: &Listing,
) -> Result<(), Failure> {
    let wanted = pb::ListSecretsRequest {
        filter: listing.filter([])?,
        order_by: listing.order_or("name"),
        ..pages::secrets_of(Some(&of.workflow))
    };
    let secrets = match listing.limit {
        None => pages::secrets(channel, wanted).await?,
        Some(page_size) => {
            let first = pb::ListSecretsRequest { page_size, ..wanted };
            let mut client = SecretServiceClient::new(channel.clone());
            let found = client.list_secrets(first).await?.into_inner();
            say_total(found.secrets.len(), found.total_size, found.total_size_estimated);
            found.secrets
        }
    };
    let rows: Vec<_> = secrets.iter().map(to_json).collect();
    let columns = [
        ("secret", "secret"),
        ("version", "version"),
        ("updated", "update_time"),
        ("by", "updated_by"),
        ("last used", "last_use_time"),
    ];
    list(common.output, &rows, "secret", &columns, "no secrets")
}

fn to_json(secret: &pb::Secret) -> Json {
    json!({
        "secret": last_part(&secret.name),
        "version": secret.version,
        "update_time": moment(secret.update_time.as_ref()),
        "updated_by": secret.updated_by,
        "live_leases": secret.live_leases,
        "use_count": secret.use_count,
        "last_use_time": secret.last_use_time.as_ref().map(|time| moment(Some(time))),
    })
}
