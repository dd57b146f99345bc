//! A daemon as a process, two open steps, and all that a forger could want: the CA's own keys.

use std::path::{Path, PathBuf};

use keyhatch::grpc::client::channel;
use keyhatch::grpc::pb;
use keyhatch::grpc::pb::executor_service_client::ExecutorServiceClient;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Channel;

use super::client::{Offer, Outcome, attempt};
use crate::harness::{
    ServeProcess, create_aws, identity_in, init_in, keyhatch_in, open_request, open_state, temp_dir,
};

/// A configuration without rate limits of new connections, and with many places for handshakes.
const CONFIG: &str = "
[limits]
step_new_connections_per_second = 1000000
step_new_connection_burst = 1000000
step_pending_handshakes = 64
";

/// One of the two kinds of sockets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Admin,
    Step,
}

impl Door {
    pub const BOTH: [Self; 2] = [Self::Step, Self::Admin];

    /// The SPIFFE path of the identity that this door admits.
    pub fn path(self) -> &'static str {
        match self {
            Self::Admin => "operator/admin",
            Self::Step => "workflow/deploy/run/1/step/build",
        }
    }

    /// The name of the door's issuer in the stored CA.
    pub fn issuer(self) -> &'static str {
        match self {
            Self::Admin => "clients",
            Self::Step => "steps",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Admin => Self::Step,
            Self::Step => Self::Admin,
        }
    }
}

pub struct World {
    pub serving: ServeProcess,
    pub step: pb::OpenedStep,
    pub runtime: tokio::runtime::Runtime,
    authority: serde_json::Value,
    directory: tempfile::TempDir,
}

impl World {
    pub fn start() -> Self {
        let directory = temp_dir();
        init_in(directory.path());
        let config = directory.path().join("config.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let serve = ["serve", "--config", config.to_str().unwrap()];
        let serve = keyhatch_in(directory.path(), &serve);
        let serving = ServeProcess::spawn(directory.path(), serve);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let authority = authority(&directory.path().join("state"));
        let step = pb::OpenedStep::default();
        let mut world = Self { serving, step, runtime, authority, directory };
        world.runtime.block_on(create_aws(world.admin("operators/admin")));
        world.step = world.open("build");
        world
    }

    pub fn open(&self, step: &str) -> pb::OpenedStep {
        let mut client = ExecutorServiceClient::new(self.admin("executors/local"));
        let opened = self.runtime.block_on(client.open_step(open_request("deploy", step)));
        opened.unwrap().into_inner()
    }

    pub fn close(&self, step: &pb::OpenedStep) {
        let mut client = ExecutorServiceClient::new(self.admin("executors/local"));
        let request = pb::CloseStepRequest { name: step.name.clone(), ..Default::default() };
        self.runtime.block_on(client.close_step(request)).unwrap();
    }

    /// A channel to the admin door with an identity of the state directory.
    pub fn admin(&self, identity: &str) -> Channel {
        let identity = identity_in(&self.state().join(identity));
        self.runtime.block_on(channel(&self.socket(Door::Admin), identity)).unwrap()
    }

    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn socket(&self, door: Door) -> PathBuf {
        match door {
            Door::Admin => self.directory.path().join("run/admin.sock"),
            Door::Step => Path::new(&self.step.directory).join("keyhatch.sock"),
        }
    }

    /// The directory of the identity that this door admits.
    pub fn home(&self, door: Door) -> PathBuf {
        match door {
            Door::Admin => self.state().join("operators/admin"),
            Door::Step => PathBuf::from(&self.step.directory),
        }
    }

    /// The identity that this door admits.
    pub fn good(&self, door: Door) -> Offer {
        Offer::in_directory(&self.home(door))
    }

    pub fn attempt(&self, door: Door, offer: Offer) -> Outcome {
        let socket = self.socket(door);
        self.runtime.block_on(attempt(&socket, door, self.root(), offer))
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.certificate("root")
    }

    /// A member of the CA as an identity: `root`, `clients` or `steps`.
    pub fn member(&self, name: &str) -> Offer {
        let key = self.authority[name]["key"].as_str().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Offer::new(vec![self.certificate(name)], &key)
    }

    pub fn certificate(&self, name: &str) -> CertificateDer<'static> {
        let pem = self.authority[name]["certificate"].as_str().unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// A member of the CA as an issuer, with its key or another key.
    pub fn signer(&self, name: &str, key: Option<KeyPair>) -> Issuer<'static, KeyPair> {
        let member = &self.authority[name];
        let own = || KeyPair::from_pem(member["key"].as_str().unwrap()).unwrap();
        let key = key.unwrap_or_else(own);
        Issuer::from_ca_cert_pem(member["certificate"].as_str().unwrap(), key).unwrap()
    }

    /// The PEM texts of a member of the CA: certificate and key.
    pub fn member_pem(&self, name: &str) -> (String, String) {
        let text = |part: &str| self.authority[name][part].as_str().unwrap().to_owned();
        (text("certificate"), text("key"))
    }

    /// The number of decided requests of steps.
    pub fn decided(&self) -> usize {
        let journal = std::fs::read_to_string(self.state().join("journal/000001.jsonl")).unwrap();
        let lines = journal.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &serde_json::Value| line["event"] == "resolve").count()
    }
}

fn authority(state: &Path) -> serde_json::Value {
    let state = open_state(state);
    let keyring = state.unlock(None).unwrap().keyring().unwrap();
    let authority = state.authority(&keyring).unwrap();
    serde_json::from_slice(&authority.to_bytes().unwrap()).unwrap()
}
