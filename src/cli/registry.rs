//! `keyhatch operator` and `keyhatch executor`: who may operate the broker, and who may open steps.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tonic::transport::Channel;

use super::Common;
use super::connection::confirm;
use super::endpoint::{Caller, Endpoint};
use super::failure::{Failure, exit};
use super::output::{moment, print, say, table};
use super::pages;
use super::patience::{PATIENCE, Patience};
use super::renewal::renew_now;
use crate::grpc::pb;
use crate::grpc::pb::executor_registry_service_client::ExecutorRegistryServiceClient;
use crate::grpc::pb::operator_service_client::OperatorServiceClient;
use crate::identity::new_request;
use crate::model::SpiffeId;
use crate::sys::input;

/// More than any signing request takes.
const MAX_CSR_BYTES: usize = 64 * 1024;

/// `keyhatch operator …`
#[derive(Subcommand)]
pub enum Operator {
    /// Register an operator: make its key here, and have its certificate issued
    Add {
        /// Its name.
        name: String,
        /// What it may do. Each includes the ones before it.
        #[arg(long, value_enum)]
        role: Role,
        #[command(flatten)]
        identity: Identity,
    },
    /// List the operators
    #[command(alias = "ls")]
    List,
    /// Remove an operator; its certificates are refused at once
    Remove(Remove),
    /// Renew this operator's own certificate now (every command does when two thirds of its life are over)
    Renew,
}

/// `keyhatch executor …`
#[derive(Subcommand)]
pub enum Executor {
    /// Register an executor: make its key here, and have its certificate issued
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
        identity: Identity,
    },
    /// List the executors
    #[command(alias = "ls")]
    List,
    /// Remove an executor; its certificates are refused at once, and its steps closed
    Remove(Remove),
    /// Renew this executor's own certificate now (every command does when two thirds of its life are over)
    Renew,
}

/// Where the key is.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct Identity {
    /// Make the key and this directory, which is then the new identity: name it in KEYHATCH_DIR.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The key was made elsewhere: take it from this certificate signing request, and print the
    /// certificate.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

/// Arguments of `operator remove` and `executor remove`.
#[derive(clap::Args)]
pub struct Remove {
    /// Its name.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// See all metadata.
    Viewer,
    /// Create connections and groups; bindings govern edit and use.
    Operator,
    /// Everything but reading values.
    Administrator,
}

impl Operator {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let endpoint = Endpoint::find(Caller::Operator, common.state.as_deref())?;
        let channel = match &self {
            // It is renewed here, and not on the way, too.
            Self::Renew => endpoint.reach_within(&mut Patience::of(PATIENCE)).await?,
            _ => endpoint.connect().await?,
        };
        let mut client = OperatorServiceClient::new(channel.clone());
        match self {
            Self::Add { name, role, identity } => {
                let prepared = identity.prepare()?;
                let role = match role {
                    Role::Viewer => pb::Role::Viewer,
                    Role::Operator => pb::Role::Operator,
                    Role::Administrator => pb::Role::Administrator,
                };
                let operator = pb::Operator {
                    name: format!("operators/{name}"),
                    role: role.into(),
                    ..Default::default()
                };
                let csr = prepared.request.clone();
                let request = pb::CreateOperatorRequest {
                    operator: Some(operator),
                    csr,
                    ..Default::default()
                };
                let made = client.create_operator(request).await;
                let made = made.inspect_err(|_| prepared.undo())?.into_inner();
                let issued = Issued { chain: made.certificate_chain, ca: made.ca_certificate };
                prepared.finish(common, &endpoint, &format!("operator {name}"), &issued)
            }
            Self::List => list_operators(common, client).await,
            Self::Renew => renew(common, &endpoint, &channel, Caller::Operator).await,
            Self::Remove(Remove { name, yes }) => {
                if !yes {
                    confirm(&format!(
                        "Remove operator {name}? Its certificates are refused then."
                    ))?;
                }
                let name_of = format!("operators/{name}");
                let request = pb::DeleteOperatorRequest { name: name_of, ..Default::default() };
                client.delete_operator(request).await?;
                say(&format!("operator {name} removed"));
                Ok(())
            }
        }
    }
}

impl Executor {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let caller = match &self {
            Self::Renew => Caller::Executor,
            _ => Caller::Operator,
        };
        let endpoint = Endpoint::find(caller, common.state.as_deref())?;
        let channel = match &self {
            // It is renewed here, and not on the way, too.
            Self::Renew => endpoint.reach_within(&mut Patience::of(PATIENCE)).await?,
            _ => endpoint.connect().await?,
        };
        let mut client = ExecutorRegistryServiceClient::new(channel.clone());
        match self {
            Self::Add { name, workflow, run_as, identity } => {
                let prepared = identity.prepare()?;
                let executor = pb::Executor {
                    name: format!("executors/{name}"),
                    workflows: workflow,
                    run_as,
                    ..Default::default()
                };
                let csr = prepared.request.clone();
                let request = pb::CreateExecutorRequest {
                    executor: Some(executor),
                    csr,
                    ..Default::default()
                };
                let made = client.create_executor(request).await;
                let made = made.inspect_err(|_| prepared.undo())?.into_inner();
                let issued = Issued { chain: made.certificate_chain, ca: made.ca_certificate };
                prepared.finish(common, &endpoint, &format!("executor {name}"), &issued)
            }
            Self::List => list_executors(common, client).await,
            Self::Renew => renew(common, &endpoint, &channel, Caller::Executor).await,
            Self::Remove(Remove { name, yes }) => {
                if !yes {
                    confirm(&format!(
                        "Remove executor {name}? Its certificates are refused then, and its steps closed."
                    ))?;
                }
                let name_of = format!("executors/{name}");
                let request = pb::DeleteExecutorRequest { name: name_of, ..Default::default() };
                client.delete_executor(request).await?;
                say(&format!("executor {name} removed"));
                Ok(())
            }
        }
    }
}

async fn renew(
    common: &Common,
    endpoint: &Endpoint,
    channel: &Channel,
    caller: Caller,
) -> Result<(), Failure> {
    let who = match (endpoint.identity()?, caller) {
        (SpiffeId::Operator(name), Caller::Operator) => format!("operator {name}"),
        (SpiffeId::Executor(name), Caller::Executor) => format!("executor {name}"),
        _ => {
            let text = format!("KEYHATCH_DIR is not the identity of an {}", caller.word());
            return Err(Failure::usage(text));
        }
    };
    let svid = renew_now(endpoint, channel).await?;
    let until = svid.not_after.to_string();
    let answer = json!({ "name": who, "certificate_expire_time": until });
    print(common.output, &answer, || format!("{who}: certificate until {until}"), || who.clone())
}

/// A key that waits for its certificate.
struct Prepared {
    /// The new identity's directory, if it is made here.
    directory: Option<PathBuf>,
    request: Vec<u8>,
}

/// What the broker answered.
struct Issued {
    chain: String,
    ca: String,
}

impl Identity {
    /// Makes the key, or reads the request for one that was made elsewhere.
    fn prepare(self) -> Result<Prepared, Failure> {
        if let Some(csr) = self.csr {
            let request = input::file(&csr, MAX_CSR_BYTES)
                .map_err(|error| Failure::usage(format!("{}: {error}", csr.display())))?;
            return Ok(Prepared { directory: None, request: request.to_vec() });
        }
        let directory = self.out.ok_or_else(|| Failure::usage("--out or --csr is needed"))?;
        let (key, request) =
            new_request().map_err(|error| Failure::new("KEY", error.to_string(), exit::FAILED))?;
        let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|error| {
            Failure::usage(format!(
                "{}: {error}; name a directory that is not there yet",
                directory.display()
            ))
        })?;
        write_new(&directory.join("tls.key"), 0o400, key.as_bytes())?;
        Ok(Prepared { directory: Some(directory), request: request.into_bytes() })
    }
}

impl Prepared {
    /// Removes what was made for an identity that will not be.
    fn undo(&self) {
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_file(directory.join("tls.key"));
            let _ = std::fs::remove_dir(directory);
        }
    }

    fn finish(
        &self,
        common: &Common,
        endpoint: &Endpoint,
        who: &str,
        issued: &Issued,
    ) -> Result<(), Failure> {
        let mut answer = json!({
            "certificate_chain": issued.chain,
            "ca_certificate": issued.ca,
        });
        let Some(directory) = &self.directory else {
            let text = || issued.chain.trim_end().to_owned();
            return print(common.output, &answer, text, || who.to_owned());
        };
        let address = endpoint.socket().display();
        let env = format!("KEYHATCH_ADDR=unix://{address}\nKEYHATCH_AUTHORITY=localhost\n");
        write_new(&directory.join("tls.crt"), 0o444, issued.chain.as_bytes())?;
        write_new(&directory.join("ca.crt"), 0o444, issued.ca.as_bytes())?;
        write_new(&directory.join("env"), 0o444, env.as_bytes())?;
        let shown = directory.display();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("directory".to_owned(), json!(shown.to_string()));
        }
        let text = || format!("{who} added; its identity: KEYHATCH_DIR={shown}");
        print(common.output, &answer, text, || shown.to_string())
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The process's umask may have taken from the mode.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    Ok(file.set_permissions(mode)?)
}

fn expiry(certificates: &[pb::ClientCertificate]) -> String {
    let last = certificates.iter().map(|one| moment(one.expire_time.as_ref())).max();
    last.unwrap_or_default()
}

fn short(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

async fn list_operators(
    common: &Common,
    client: OperatorServiceClient<Channel>,
) -> Result<(), Failure> {
    let listed = pages::all(|page_token| {
        let request = pb::ListOperatorsRequest { page_size: 1000, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_operators(request).await?.into_inner();
            pages::tell_newer(&page.newer);
            Ok((page.operators, page.next_page_token))
        }
    });
    let listed = listed.await?;
    let role = |operator: &pb::Operator| match operator.role() {
        pb::Role::Administrator => "administrator",
        pb::Role::Operator => "operator",
        pb::Role::Viewer => "viewer",
        pb::Role::Unspecified => "none",
    };
    let answer = listed.iter().map(|one| {
        json!({
            "operator": short(&one.name),
            "role": role(one),
            "certificate_expire_time": expiry(&one.certificates),
        })
    });
    let answer: Vec<_> = answer.collect();
    let rows = listed
        .iter()
        .map(|one| vec![short(&one.name), role(one).to_owned(), expiry(&one.certificates)]);
    let rows: Vec<_> = rows.collect();
    let header = ["operator", "role", "certificate until"];
    let names = || listed.iter().map(|one| short(&one.name)).collect::<Vec<_>>().join("\n");
    print(common.output, &answer, || table(&header, rows), names)
}

async fn list_executors(
    common: &Common,
    client: ExecutorRegistryServiceClient<Channel>,
) -> Result<(), Failure> {
    let listed = pages::all(|page_token| {
        let request = pb::ListExecutorsRequest { page_size: 1000, page_token };
        let mut client = client.clone();
        async move {
            let page = client.list_executors(request).await?.into_inner();
            pages::tell_newer(&page.newer);
            Ok((page.executors, page.next_page_token))
        }
    });
    let listed = listed.await?;
    let answer = listed.iter().map(|one| {
        json!({
            "executor": short(&one.name),
            "workflows": one.workflows,
            "run_as": one.run_as,
            "local_only": one.local_only,
            "certificate_expire_time": expiry(&one.certificates),
        })
    });
    let answer: Vec<_> = answer.collect();
    let rows = listed.iter().map(|one| {
        let workflows = one.workflows.join(", ");
        let run_as = one.run_as.join(", ");
        vec![short(&one.name), workflows, run_as, expiry(&one.certificates)]
    });
    let rows: Vec<_> = rows.collect();
    let header = ["executor", "workflows", "run as", "certificate until"];
    let names = || listed.iter().map(|one| short(&one.name)).collect::<Vec<_>>().join("\n");
    let text = || match rows.is_empty() {
        true => "no executors".to_owned(),
        false => table(&header, rows),
    };
    print(common.output, &answer, text, names)
}
