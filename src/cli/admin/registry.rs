//! `keyhatch operator` and `keyhatch executor`: the registry of operators and executors.

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

use super::bundle::Bundle;
use super::enrolment::{
    IdentityArgs, IdentityRequest, IssuedIdentity, fingerprint_of, say_fingerprints,
};
use super::renew::renew_own;
use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::io::output::{list, print, say};
use crate::cli::io::pages;
use crate::cli::io::prompt::confirm;
use crate::cli::io::text::last_part;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::executor_registry_service_client::ExecutorRegistryServiceClient;
use crate::grpc::pb::operator_service_client::OperatorServiceClient;
use crate::model::{BrokerId, HostPort, OperatorName};

/// `keyhatch operator …`
#[derive(Subcommand)]
pub enum OperatorCommand {
    /// Register an operator: make a key here, and have a certificate issued
    Add {
        /// Its name.
        name: String,
        /// The rights of the operator. Each role includes the ones before it.
        #[arg(long, value_enum)]
        role: OperatorRole,
        /// Let the operator connect over TCP, from the machine where its request was made. The answer is a bundle without a
        /// key, which keyhatch context add takes there.
        #[arg(long, requires = "csr", conflicts_with = "out")]
        remote: bool,
        #[command(flatten)]
        identity: IdentityArgs,
    },
    /// Make a key and a request for a certificate here, for an operator that an administrator then adds
    Request(IdentityRequest),
    /// Let an operator connect over TCP, or no longer; its connections then end at once
    Update(UpdateOperator),
    /// List the operators
    #[command(alias = "ls")]
    List,
    /// Remove an operator; its certificates are refused at once
    Remove(RemoveArgs),
    /// Renew this operator's certificate now (every command does so once two thirds of its lifetime have passed)
    Renew,
}

/// `keyhatch executor …`
#[derive(Subcommand)]
pub enum ExecutorCommand {
    /// Register an executor: make a key here, and have a certificate issued
    Add {
        /// Its name.
        name: String,
        /// A workflow whose steps it may open: deploy, 'team-a-*' or '*'; may be given more than once.
        #[arg(long, required = true, value_name = "PATTERN")]
        workflow: Vec<String>,
        /// On whose behalf it may open them, such as user:alice, 'team:a-*' or 'role:*'; may be given more
        /// than once.
        #[arg(long, value_name = "PATTERN")]
        run_as: Vec<String>,
        #[command(flatten)]
        identity: IdentityArgs,
    },
    /// Make a key and a request for a certificate here, for an executor that an administrator then adds
    Request(IdentityRequest),
    /// List the executors
    #[command(alias = "ls")]
    List,
    /// Remove an executor; its certificates are refused at once, and its steps closed
    Remove(RemoveArgs),
    /// Renew this executor's certificate now (every command does so once two thirds of its lifetime have passed)
    Renew,
}

/// Arguments of `operator update`.
#[derive(clap::Args)]
pub struct UpdateOperator {
    /// Its name.
    name: String,
    /// Let it connect over TCP.
    #[arg(long, required_unless_present = "no_remote", conflicts_with = "no_remote")]
    remote: bool,
    /// Let it connect on the broker's own host only.
    #[arg(long)]
    no_remote: bool,
}

/// Arguments of `operator remove` and `executor remove`.
#[derive(clap::Args)]
pub struct RemoveArgs {
    /// Its name.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The rights of an operator.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OperatorRole {
    /// See all metadata.
    Viewer,
    /// Create connections and groups; bindings govern edit and use.
    Operator,
    /// Everything but reading values.
    Administrator,
}

impl OperatorRole {
    fn to_message(self) -> pb::Role {
        match self {
            Self::Viewer => pb::Role::Viewer,
            Self::Operator => pb::Role::Operator,
            Self::Administrator => pb::Role::Administrator,
        }
    }
}

impl UpdateOperator {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { name, remote, .. } = self;
        let operator =
            pb::Operator { name: format!("operators/{name}"), remote, ..Default::default() };
        let request = pb::UpdateOperatorRequest {
            operator: Some(operator),
            update_mask: Some(prost_types::FieldMask { paths: vec!["remote".to_owned()] }),
            validate_only: false,
        };
        let channel = common.operator().await?;
        OperatorServiceClient::new(channel).update_operator(request).await?;
        say(&match remote {
            true => format!(
                "operator {name} may connect over TCP; for a machine without a context of this broker, make a bundle: \
                 keyhatch operator remove {name}, then keyhatch operator add {name} --role ROLE --csr FILE --remote"
            ),
            false => format!("operator {name} may connect on the broker's own host only"),
        });
        Ok(())
    }
}

/// Registers an operator who works from another machine, and prints the bundle for that operator.
async fn add_remote(common: &Common, operator: pb::Operator, csr: Vec<u8>) -> Result<(), Failure> {
    let name = OperatorName::parse(last_part(&operator.name))?;
    let key = fingerprint_of(&csr)?;
    let operator = Some(operator);
    let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
    let channel = common.operator().await?;
    let made = OperatorServiceClient::new(channel).create_operator(request).await?.into_inner();
    let broker = (HostPort::parse(&made.address)?, BrokerId::parse(&made.broker)?);
    let bundle = Bundle::new(name.clone(), broker, made.certificate_chain, made.ca_certificate);
    let text = output::json(&bundle)?;
    say_fingerprints(key, &bundle.root().map(|root| root.to_string()).unwrap_or_default());
    say(&format!("operator {name} takes this bundle with: keyhatch context add FILE"));
    print(common.output, &bundle, || text.clone(), || text.clone())
}

impl OperatorCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Request(request) => request.run(common, Caller::Operator),
            Self::Renew => renew_own(common, Caller::Operator).await,
            Self::Add { name, role, remote, identity } => {
                let operator = pb::Operator {
                    name: format!("operators/{name}"),
                    role: role.to_message().into(),
                    remote,
                    ..Default::default()
                };
                if remote {
                    return add_remote(common, operator, identity.request()?).await;
                }
                let create = async |channel, csr| {
                    let operator = Some(operator);
                    let request = pb::CreateOperatorRequest { operator, csr, ..Default::default() };
                    let made = OperatorServiceClient::new(channel).create_operator(request).await?;
                    let made = made.into_inner();
                    Ok(IssuedIdentity { chain: made.certificate_chain, ca: made.ca_certificate })
                };
                enroll(common, identity, &format!("operator {name}"), create).await
            }
            Self::Update(update) => update.run(common).await,
            Self::List => list_operators(common).await,
            Self::Remove(RemoveArgs { name, yes }) => {
                let question =
                    format!("Remove operator {name}? Its certificates are refused then.");
                confirm(yes, &question)?;
                let name_of = format!("operators/{name}");
                let request = pb::DeleteOperatorRequest { name: name_of, ..Default::default() };
                let channel = common.operator().await?;
                OperatorServiceClient::new(channel).delete_operator(request).await?;
                say(&format!("operator {name} removed"));
                Ok(())
            }
        }
    }
}

impl ExecutorCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Request(request) => request.run(common, Caller::Executor),
            Self::Renew => renew_own(common, Caller::Executor).await,
            Self::Add { name, workflow, run_as, identity } => {
                let executor = pb::Executor {
                    name: format!("executors/{name}"),
                    workflows: workflow,
                    run_as,
                    ..Default::default()
                };
                let create = async |channel, csr| {
                    let executor = Some(executor);
                    let request = pb::CreateExecutorRequest { executor, csr, ..Default::default() };
                    let mut client = ExecutorRegistryServiceClient::new(channel);
                    let made = client.create_executor(request).await?.into_inner();
                    Ok(IssuedIdentity { chain: made.certificate_chain, ca: made.ca_certificate })
                };
                enroll(common, identity, &format!("executor {name}"), create).await
            }
            Self::List => list_executors(common).await,
            Self::Remove(RemoveArgs { name, yes }) => {
                let question = format!(
                    "Remove executor {name}? Its certificates are refused then, and its steps closed."
                );
                confirm(yes, &question)?;
                let name_of = format!("executors/{name}");
                let request = pb::DeleteExecutorRequest { name: name_of, ..Default::default() };
                let channel = common.operator().await?;
                ExecutorRegistryServiceClient::new(channel).delete_executor(request).await?;
                say(&format!("executor {name} removed"));
                Ok(())
            }
        }
    }
}

/// Registers an identity by `create`, and completes its directory. A refusal leaves nothing behind.
async fn enroll(
    common: &Common,
    identity: IdentityArgs,
    who: &str,
    create: impl AsyncFnOnce(Channel, Vec<u8>) -> Result<IssuedIdentity, Status>,
) -> Result<(), Failure> {
    let endpoint = Endpoint::find(Caller::Operator, common.place())?;
    let channel = endpoint.connect().await?;
    let prepared = identity.prepare()?;
    let issued = create(channel, prepared.request.clone()).await;
    let issued = issued.inspect_err(|_| prepared.undo())?;
    prepared.finish(common, &endpoint, who, &issued)
}

/// The end of the certificate that lasts longest. Empty without a certificate.
fn expiry(certificates: &[pb::ClientCertificate]) -> String {
    let last = certificates.iter().map(|one| moment(one.expire_time.as_ref())).max();
    last.unwrap_or_default()
}

async fn list_operators(common: &Common) -> Result<(), Failure> {
    let role = |operator: &pb::Operator| match operator.role() {
        pb::Role::Administrator => "administrator",
        pb::Role::Operator => "operator",
        pb::Role::Viewer => "viewer",
        pb::Role::Unspecified => "none",
    };
    let row = |one: &pb::Operator| {
        json!({
            "operator": last_part(&one.name),
            "role": role(one),
            "remote": one.remote,
            "certificate_expire_time": expiry(&one.certificates),
        })
    };
    let operators = pages::operators(&common.operator().await?).await?;
    let rows: Vec<_> = operators.iter().map(row).collect();
    let columns = [
        ("operator", "operator"),
        ("role", "role"),
        ("remote", "remote"),
        ("certificate until", "certificate_expire_time"),
    ];
    list(common.output, &rows, "operator", &columns, "no operators")
}

async fn list_executors(common: &Common) -> Result<(), Failure> {
    let row = |one: &pb::Executor| {
        json!({
            "executor": last_part(&one.name),
            "workflows": one.workflows,
            "run_as": one.run_as,
            "local_only": one.local_only,
            "certificate_expire_time": expiry(&one.certificates),
        })
    };
    let executors = pages::executors(&common.operator().await?).await?;
    let rows: Vec<_> = executors.iter().map(row).collect();
    let columns = [
        ("executor", "executor"),
        ("workflows", "workflows"),
        ("run as", "run_as"),
        ("certificate until", "certificate_expire_time"),
    ];
    list(common.output, &rows, "executor", &columns, "no executors")
}
