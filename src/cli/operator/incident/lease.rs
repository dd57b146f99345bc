//! `keyhatch lease`: live leases of all steps.

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::endings::{pending_json, pending_lines};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{list, print};
use crate::cli::io::pages;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::short_name;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::lease_service_client::LeaseServiceClient;
use crate::model::{ConnectionRef, ResourceName};

#[derive(Subcommand)]
pub enum LeaseCommand {
    /// List live leases
    #[command(alias = "ls")]
    List(LeaseFilterArgs),
    /// Revoke live leases: their Watches and requests end, and short-lived credentials are ended upstream
    Revoke(LeaseRevoke),
}

/// Which live leases are meant; all that fit every option given.
#[derive(clap::Args)]
pub struct LeaseFilterArgs {
    /// On this connection: INTEGRATION/NAME.
    #[arg(long, value_name = "REF")]
    connection: Option<String>,
    /// Of steps of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Of steps of this run.
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Of steps of this name.
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// On this version of the connection.
    #[arg(id = "of_version", long = "of-version", value_name = "NUMBER", requires = "connection",
        value_parser = clap::value_parser!(i64).range(1..))]
    of_version: Option<i64>,
}

/// Arguments of `lease revoke`.
#[derive(clap::Args)]
pub struct LeaseRevoke {
    /// One lease, as `lease list -o name` and `run show` name it; or give options for several.
    #[arg(value_name = "LEASE", conflicts_with_all = ["connection", "workflow", "run", "step"])]
    lease: Option<String>,
    #[command(flatten)]
    filter: LeaseFilterArgs,
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

const COLUMNS: [(&str, &str); 9] = [
    ("workflow", "workflow"),
    ("run", "run"),
    ("step", "step"),
    ("on", "resource"),
    ("version", "version"),
    ("for", "watch used"),
    ("minted", "mint_handle"),
    ("until", "expire_time"),
    ("lease", "lease"),
];

impl LeaseCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let channel = common.operator().await?;
        match self {
            Self::List(filter) => {
                let mut leases = pages::leases(&channel, &filter.into_message()?).await?;
                leases.sort_by_cached_key(|one| {
                    let step = (one.workflow.clone(), one.run.clone(), one.step.clone());
                    (step, one.resource.clone(), one.name.clone())
                });
                let rows: Vec<_> = leases.iter().map(row).collect();
                list(common.output, &rows, "lease", &COLUMNS, "no such lease is live")
            }
            Self::Revoke(revoke) => revoke.run(common, channel).await,
        }
    }
}

impl LeaseFilterArgs {
    fn into_message(self) -> Result<pb::LeaseFilter, Failure> {
        let connection = self.connection.map(|name| name.parse::<ConnectionRef>()).transpose()?;
        let connection = connection.map(|name| ResourceName::Connection(name).to_string());
        Ok(pb::LeaseFilter {
            connection: connection.unwrap_or_default(),
            workflow: self.workflow.unwrap_or_default(),
            run: self.run.unwrap_or_default(),
            step: self.step.unwrap_or_default(),
            version: self.of_version.unwrap_or_default(),
        })
    }
}

impl LeaseRevoke {
    async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let filter = self.filter.into_message()?;
        // The collection may be left out.
        let name = self.lease.map(|name| match name.contains('/') {
            true => name,
            false => format!("leases/{name}"),
        });
        if name.is_none() && filter == pb::LeaseFilter::default() {
            let text = "say which leases: LEASE, --connection, --workflow, --run or --step";
            return Err(Failure::usage(text));
        }
        let is_one = name.is_some();
        let request = pb::RevokeLeasesRequest {
            name: name.unwrap_or_default(),
            filter: (!is_one).then_some(filter),
            reason: self.reason,
            validate_only: !is_one && !self.yes,
        };
        let mut client = LeaseServiceClient::new(channel);
        let mut revoked = client.revoke_leases(request.clone()).await?.into_inner();
        if request.validate_only && revoked.revoked_leases > 0 {
            confirm(false, &format!("Revoke {} lease(s)?", revoked.revoked_leases))?;
            let request = pb::RevokeLeasesRequest { validate_only: false, ..request };
            revoked = client.revoke_leases(request).await?.into_inner();
        }
        let count = revoked.revoked_leases;
        let answer = json!({
            "revoked_leases": count,
            "pending_endings": pending_json(&revoked.pending_endings),
        });
        let done = match count {
            0 => "no such lease is live: nothing was revoked".to_owned(),
            _ => format!("{count} lease(s) revoked"),
        };
        let lines = std::iter::once(done).chain(pending_lines(&revoked.pending_endings));
        let lines = || lines.collect::<Vec<_>>().join("\n");
        print(common.output, &answer, lines, || count.to_string())
    }
}

fn row(one: &pb::LiveLease) -> Json {
    json!({
        "lease": one.name,
        "resource": short_name(&one.resource),
        "target": if one.target.is_empty() { &one.resource } else { &one.target },
        "version": one.version,
        "opening": one.opening,
        "executor": one.executor,
        "workflow": one.workflow,
        "run": one.run,
        "step": one.step,
        "attempt": one.attempt,
        "issue_time": moment(one.issue_time.as_ref()),
        "expire_time": moment(one.expire_time.as_ref()),
        "watch": one.watch,
        "used": one.used,
        "mint_handle": one.mint_handle,
        "credential_expire_time": moment(one.credential_expire_time.as_ref()),
    })
}
