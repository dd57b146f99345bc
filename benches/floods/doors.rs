//! The sockets under flood, with the identities that flood them.

use std::path::{Path, PathBuf};

use keyhatch::grpc::pb;
use keyhatch::grpc::pb::apply_request::Document;
use keyhatch::grpc::pb::apply_service_client::ApplyServiceClient;
use keyhatch::grpc::pb::connection_service_client::ConnectionServiceClient;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use tonic::transport::Channel;

use crate::common;
use crate::common::Daemon;
use crate::flood::callers::LARGE;

/// The steps that get slow clients, beside the admin door.
const SLOW_STEPS: usize = 100;
/// The steps of a limited executor. Four connections of 32 streams to each fill the step door.
const LIMITED_STEPS: usize = 32;
/// Steps that read no replies.
const UNREAD_STEPS: usize = 4;
/// The number of times that the admin door is a target when both doors are flooded: 16 connections with 512 streams.
const ADMIN_TIMES: usize = 4;
/// The stored connections to list.
const STORED: usize = 4000;
/// The workflow of the limited executor's steps.
pub const LIMITED: &str = "team-a-x";

/// A configuration without rate limits for steps.
const NO_RATES: &str = "
[limits]
step_requests_per_second = 1000000
step_request_burst = 1000000
executor_decisions_per_second = 1000000
executor_decision_burst = 1000000
step_live_leases = 1000000
";

/// The flooded doors, and the flooding identities.
#[derive(Clone, Copy, PartialEq)]
pub enum Doors {
    /// One step's socket, by the step.
    Step,
    /// The admin socket, by an operator.
    Admin,
    /// Many steps' sockets and the admin socket.
    Many,
    /// Both doors, with the certificate of a removed operator.
    RemovedOperator,
    /// Both doors, by an executor for some workflows and by all of its steps.
    LimitedExecutor,
    /// The admin door by a viewer, and a step's by that step.
    Viewer,
    /// The admin door by a viewer, with many stored connections.
    Lister,
    /// A few steps' doors by these steps, and the admin door by their executor.
    SlowReader,
}

/// A socket, and the directory of an identity.
pub type Door = (PathBuf, PathBuf);

impl Doors {
    /// True if an executor's calls are measured too.
    pub fn are_both(self) -> bool {
        !matches!(self, Self::Step | Self::Admin | Self::Many)
    }

    pub fn configuration(self) -> &'static str {
        match self {
            // The reader should run out of places and bytes, not of its rate.
            Self::SlowReader => NO_RATES,
            _ => "",
        }
    }

    /// Makes the needed identities. Returns their targets.
    pub async fn open(self, daemon: &Daemon, local: &ExecutorServiceClient<Channel>) -> Vec<Door> {
        let administrator = daemon.state().join("operators/admin");
        let admin = |identity: PathBuf| (daemon.admin_socket(), identity);
        let often = |identity: PathBuf| vec![admin(identity); ADMIN_TIMES];
        match self {
            Self::Step => steps(local, "bench", 1).await,
            Self::Admin => vec![admin(administrator)],
            Self::Many => {
                let mut doors = steps(local, "bench", SLOW_STEPS).await;
                doors.push(admin(administrator));
                doors
            }
            Self::RemovedOperator => {
                let gone = enrolled(daemon, "gone", &["operator", "add"], &["--role", "viewer"]);
                daemon.run(&["operator", "remove", "gone", "--yes"]);
                let step = steps(local, "bench", 1).await.swap_remove(0);
                [often(gone.clone()), vec![(step.0, gone); ADMIN_TIMES]].concat()
            }
            Self::LimitedExecutor => {
                let (team, client) = limited_executor(daemon).await;
                [steps(&client, LIMITED, LIMITED_STEPS).await, often(team)].concat()
            }
            Self::Viewer => [often(viewer(daemon)), steps(local, LIMITED, 1).await].concat(),
            Self::Lister => {
                create_many(daemon).await;
                often(viewer(daemon))
            }
            Self::SlowReader => {
                let value = "x".repeat(65_000);
                let fields = ["a", "b", "c", "d"].map(|name| (name, value.as_str()));
                create(daemon, LARGE, &fields, &[LIMITED]).await;
                let (team, client) = limited_executor(daemon).await;
                [steps(&client, LIMITED, UNREAD_STEPS).await, often(team)].concat()
            }
        }
    }
}

async fn limited_executor(daemon: &Daemon) -> (PathBuf, ExecutorServiceClient<Channel>) {
    let team = enrolled(daemon, "team-a", &["executor", "add"], &["--workflow", "team-a-*"]);
    let client = ExecutorServiceClient::new(daemon.connect(&team).await);
    (team, client)
}

/// The directory of a viewer's identity.
pub fn viewer(daemon: &Daemon) -> PathBuf {
    enrolled(daemon, "viewer", &["operator", "add"], &["--role", "viewer"])
}

/// Registers an operator or executor. Returns the directory of its identity.
fn enrolled(daemon: &Daemon, name: &str, command: &[&str], how: &[&str]) -> PathBuf {
    let directory = daemon.state().with_file_name(name);
    daemon.run(&[command, &[name, "--out", directory.to_str().unwrap()], how].concat());
    directory
}

async fn steps(
    executor: &ExecutorServiceClient<Channel>,
    workflow: &str,
    count: usize,
) -> Vec<Door> {
    let mut doors = Vec::new();
    for n in 0..count {
        let opened = common::open_of(executor.clone(), workflow, &format!("bad{n}")).await;
        let directory = PathBuf::from(opened.directory);
        doors.push((directory.join("keyhatch.sock"), directory));
    }
    doors
}

/// Creates a connection that these workflows' steps may resolve.
pub async fn create(
    daemon: &Daemon,
    (integration, name): (&str, &str),
    fields: &[(&str, &str)],
    workflows: &[&str],
) {
    let principals = workflows.iter().map(|workflow| format!("workflow:{workflow}")).collect();
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
    let connection = pb::Connection {
        name: format!("connections/{integration}/{name}"),
        fields: fields.collect(),
        access: vec![pb::AccessBinding { relation: pb::Relation::Resolver.into(), principals }],
        ..Default::default()
    };
    let connection = Some(connection);
    let request = pb::CreateConnectionRequest { connection, ..Default::default() };
    let mut client = ConnectionServiceClient::new(daemon.operator().await);
    client.create_connection(request).await.unwrap();
}

/// Creates as many connections as a list has several pages of.
async fn create_many(daemon: &Daemon) {
    let document = |number: usize| {
        let fields = [("access_key_id", "AKIAIOSFODNN7EXAMPLE"), ("secret_access_key", "x")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.into())).into();
        let (integration, name) = ("aws".to_owned(), format!("c{number}"));
        let document = pb::ConnectionDocument { integration, name, fields, ..Default::default() };
        pb::ApplyRequest { document: Some(Document::Connection(document)) }
    };
    let documents = tokio_stream::iter((0..STORED).map(document));
    ApplyServiceClient::new(daemon.operator().await).apply(documents).await.unwrap();
}

/// How many bytes the files of a directory have.
pub fn bytes_in(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    files.map(|file| file.metadata().unwrap().len()).sum()
}
