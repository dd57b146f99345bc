//! Who a command speaks as, and where it finds the broker: one identity directory.
//!
//! 1. `KEYHATCH_DIR` names it. Files, and `keyhatch.sock` when present, come from there; its `env` gives
//!    only what is not there, such as an operator's address.
//! 2. Without it, the single variables `KEYHATCH_ADDR`, `KEYHATCH_CACERT`, `KEYHATCH_CLIENT_CERT` and
//!    `KEYHATCH_CLIENT_KEY`.
//! 3. Without those, `/run/keyhatch` for a step. For an operator or executor the identity under the state directory,
//!    where that is named; else the user's own in `~/.config/keyhatch`, or that under the default state directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::identity_file;
use super::patience::{PATIENCE, Patience};
use super::renewal::{certificate_of, renew_if_due};
use super::unreachable;
use crate::cli::io::failure::{Failure, exit};
use crate::config::{default_identity, default_state};
use crate::daemon::{EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::grpc::client::channel;
use crate::identity::{ClientIdentity, ConnectError, Svid};
use crate::model::{Id, SpiffeId};

/// Whose work a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An executor's.
    Executor,
    /// An operator's.
    Operator,
    /// A step's.
    Step,
}

impl Caller {
    /// In a sentence.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Executor => "executor",
            Self::Operator => "operator",
            Self::Step => "step",
        }
    }
}

/// The files of an identity, and the broker's socket.
#[derive(Debug)]
pub struct Endpoint {
    socket: PathBuf,
    ca: PathBuf,
    pub(crate) certificate: PathBuf,
    key: PathBuf,
    /// Where it is, if it is a step's: the step is over when its key is gone.
    step: Option<PathBuf>,
}

/// How often a broker may hang up that has heard nothing yet: one that ends does, and so does one that refuses.
const MOST_HANG_UPS: u32 = 3;

const STEP_MOUNT: &str = "/run/keyhatch";

impl Endpoint {
    /// Finds the identity for this work.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(caller: Caller, state: Option<&Path>) -> Result<Self, Failure> {
        let named = std::env::var_os("KEYHATCH_DIR").filter(|directory| !directory.is_empty());
        if let Some(directory) = named {
            return Self::for_caller(caller, Path::new(&directory)).map_err(|failure| Failure {
                message: format!("{}; KEYHATCH_DIR names that directory", failure.message),
                ..failure
            });
        }
        if let Some(endpoint) = Self::from_variables() {
            return Ok(endpoint);
        }
        if let Some(directory) = own_identity(caller).filter(|_| state.is_none()) {
            return Self::in_directory(&directory);
        }
        let state = state.map_or_else(default_state, Path::to_owned);
        let directory = match caller {
            Caller::Executor => state.join(EXECUTOR_DIRECTORY),
            Caller::Operator => state.join(OPERATOR_DIRECTORY),
            Caller::Step => PathBuf::from(STEP_MOUNT),
        };
        if caller == Caller::Step && directory.exists() {
            return Self::for_caller(caller, &directory);
        }
        Self::in_directory(&directory).map_err(|failure| {
            let missing = unreachable::missing(failure, caller, &state);
            if caller == Caller::Step { missing } else { with_what_it_waits_for(missing) }
        })
    }

    fn for_caller(caller: Caller, directory: &Path) -> Result<Self, Failure> {
        if caller != Caller::Step {
            return Self::in_directory(directory);
        }
        // One that is gone as a whole was a step's if it is called as an opening is.
        let is_opening =
            || directory.file_name().and_then(|name| name.to_str()?.parse::<Id>().ok());
        let was_steps = directory.exists() || is_opening().is_some();
        if was_steps && is_missing(&directory.join("tls.key")) {
            return Err(step_is_over(directory));
        }
        Ok(Self { step: Some(directory.to_owned()), ..Self::in_directory(directory)? })
    }

    /// Finds an operator's identity, or else an executor's, for what either may ask.
    ///
    /// # Errors
    /// If there is neither.
    pub(crate) fn find_any(state: Option<&Path>) -> Result<Self, Failure> {
        let operator = Self::find(Caller::Operator, state);
        operator.or_else(|missing| Self::find(Caller::Executor, state).map_err(|_| missing))
    }

    /// The same of those in a state directory, whatever the environment says.
    ///
    /// # Errors
    /// If there is neither.
    pub(crate) fn of_host(state: &Path) -> Result<Self, Failure> {
        let operator = Self::in_directory(&state.join(OPERATOR_DIRECTORY));
        operator.or_else(|missing| {
            Self::in_directory(&state.join(EXECUTOR_DIRECTORY)).map_err(|_| missing)
        })
    }

    /// The identity in this directory.
    ///
    /// # Errors
    /// If it is not one.
    pub fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let socket = directory.join("keyhatch.sock");
        let socket = if socket.exists() { socket } else { address_in(directory)? };
        Ok(Self {
            socket,
            ca: directory.join("ca.crt"),
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            step: None,
        })
    }

    fn from_variables() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self {
            socket: socket_of(&std::env::var("KEYHATCH_ADDR").ok()?)?,
            ca: path("KEYHATCH_CACERT")?,
            certificate: path("KEYHATCH_CLIENT_CERT")?,
            key: path("KEYHATCH_CLIENT_KEY")?,
            step: None,
        })
    }

    /// The broker's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects. A broker that is away, as while it restarts, is waited for.
    ///
    /// # Errors
    /// If a file cannot be read, or the broker cannot be reached or refuses the certificate. `STEP_NOT_OPEN` at once if
    /// the step is over.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        self.connect_within(&mut Patience::of(PATIENCE)).await
    }

    /// The same within this time; at once or not at all if it is none.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub(crate) async fn connect_within(&self, patience: &mut Patience) -> Result<Channel, Failure> {
        let connected = self.reach_within(patience).await?;
        renew_if_due(self, &connected).await;
        Ok(connected)
    }

    /// Connects at once or not at all, and leaves a certificate that is due as it is.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub(crate) async fn reach(&self) -> Result<Channel, Failure> {
        self.reach_within(&mut Patience::of(Duration::ZERO)).await
    }

    /// The same within this time.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub(crate) async fn reach_within(&self, patience: &mut Patience) -> Result<Channel, Failure> {
        let mut hang_ups = 0;
        loop {
            let identity = ClientIdentity {
                ca_pem: read(&self.ca)?.to_string(),
                chain_pem: self.read_certificate()?,
                key_pem: self.read_key()?,
            };
            let error = match channel(&self.socket, identity).await {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            let is_hang_up = has_hung_up(&error);
            hang_ups += u32::from(is_hang_up);
            let may_be_back = match is_hang_up {
                true => hang_ups < MOST_HANG_UPS,
                false => self.is_away(&error),
            };
            if !may_be_back || !patience.pause().await {
                return Err(self.unreachable(&error));
            }
        }
    }

    /// Does work that may be done twice: again, on another connection, while the broker goes away or is away.
    ///
    /// # Errors
    /// The work's; as [`Endpoint::connect`].
    pub(crate) async fn insist<T>(
        &self,
        patience: Duration,
        work: impl AsyncFn(Channel) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut patience = Patience::of(patience);
        loop {
            let done = work(self.connect_within(&mut patience).await?).await;
            match done {
                Err(failure) if patience.allows(&failure).await => {}
                done => return done,
            }
        }
    }

    /// Whether nobody listens at the socket now, and somebody may again: its directory is there.
    fn is_away(&self, error: &ConnectError) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let is_absent = matches!(error, ConnectError::Io(error)
            if [ConnectionRefused, NotFound].contains(&error.kind()));
        is_absent && self.socket.parent().is_some_and(Path::exists)
    }

    fn unreachable(&self, error: &ConnectError) -> Failure {
        let is_step = || self.identity().is_ok_and(|id| matches!(id, SpiffeId::Step { .. }));
        unreachable::failure(error, &self.socket, self.step.is_some() || is_step())
    }

    /// Whose certificate it is.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub(crate) fn identity(&self) -> Result<SpiffeId, Failure> {
        certificate_of(self).map(|svid| svid.id)
    }

    /// "executor:NAME", if it is an executor's.
    pub(crate) fn executor(&self) -> Option<String> {
        match self.identity() {
            Ok(SpiffeId::Executor(name)) => Some(format!("executor:{name}")),
            _ => None,
        }
    }

    pub(super) fn read_certificate(&self) -> Result<String, Failure> {
        read(&self.certificate).map(|text| text.to_string())
    }

    pub(super) fn read_key(&self) -> Result<Zeroizing<String>, Failure> {
        match &self.step {
            Some(directory) if is_missing(&self.key) => Err(step_is_over(directory)),
            _ => read(&self.key),
        }
    }
}

/// The user's own identity, if it is one for this work. HOME may be another user's, as sudo can leave it: the identity
/// there is that user's to choose, and so is the broker that it leads to.
fn own_identity(caller: Caller) -> Option<PathBuf> {
    let directory = default_identity()?;
    let owner = std::fs::metadata(&directory).ok()?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return None;
    }
    let certificate = read(&directory.join("tls.crt")).ok()?;
    match (Svid::parse_own(&certificate).ok()?.id, caller) {
        (SpiffeId::Operator(_), Caller::Operator) | (SpiffeId::Executor(_), Caller::Executor) => {
            Some(directory)
        }
        _ => None,
    }
}

/// Why the user's own identity is none yet, where a request for its certificate has not been answered.
fn with_what_it_waits_for(failure: Failure) -> Failure {
    let request = default_identity().map(|directory| directory.join("tls.csr"));
    let Some(request) = request.filter(|request| request.exists()) else { return failure };
    let request = request.display();
    let message = format!(
        "{request} waits for an administrator: keyhatch operator add NAME --role ROLE --csr {request} ({})",
        failure.message
    );
    Failure { message, ..failure }
}

fn has_hung_up(error: &ConnectError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, ConnectError::Io(error)
        if [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind()))
}

fn is_missing(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The broker takes a step's key away when the step ends.
fn step_is_over(directory: &Path) -> Failure {
    let text = format!(
        "{} has no tls.key: the step is over, or this is no step's directory; have the executor open another step",
        directory.display()
    );
    Failure::new("STEP_NOT_OPEN", text, exit::FAILED)
}

/// Finds the identity for this work, and connects.
///
/// # Errors
/// As [`Endpoint::find`] and [`Endpoint::connect`].
pub async fn connect(caller: Caller, state: Option<&Path>) -> Result<Channel, Failure> {
    Endpoint::find(caller, state)?.connect().await
}

fn address_in(directory: &Path) -> Result<PathBuf, Failure> {
    let path = directory.join("env");
    let text = read(&path)?;
    address_in_text(&text).ok_or_else(|| {
        let text = format!("{} does not say KEYHATCH_ADDR=unix://PATH", path.display());
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}

/// The socket that an identity's `env` names.
pub(crate) fn address_in_text(env: &str) -> Option<PathBuf> {
    env.lines().find_map(|line| socket_of(line.strip_prefix("KEYHATCH_ADDR=")?))
}

fn socket_of(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix://").or_else(|| address.strip_prefix("unix:"))?;
    Some(PathBuf::from(path))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    identity_file::read(path).map_err(|error| unreachable::unreadable(path, &error))
}
