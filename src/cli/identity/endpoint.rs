//! The identity that a command uses, and the socket of the broker. The first of these that is there:
//!
//! 1. The directory in `KEYHATCH_DIR`. The socket is `keyhatch.sock` in it, or the address in its `env`.
//! 2. The files in `KEYHATCH_ADDR`, `KEYHATCH_CACERT`, `KEYHATCH_CLIENT_CERT` and `KEYHATCH_CLIENT_KEY`.
//! 3. For a step `/run/keyhatch`. For an operator or executor the identity under the state directory of `--state`, the
//!    user's own in `~/.config/keyhatch`, or the identity under the default state directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;

use super::identity_files::{IdentityFiles, is_missing, read, read_or_fail, step_has_ended};
use super::renewal::renew_if_due;
use super::retry::{RETRY_TIME, RetryDeadline};
use super::unreachable;
use crate::cli::io::failure::{Failure, exit};
use crate::config::{default_identity, default_state};
use crate::daemon::{EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::grpc::client::channel;
use crate::identity::{ConnectError, Svid};
use crate::model::{Id, SpiffeId};

/// The kind of identity that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The identity of an executor, which opens steps.
    Executor,
    /// The identity of an operator, which reads and changes resources.
    Operator,
    /// The identity of a step, which resolves credentials.
    Step,
}

impl Caller {
    /// As a word of a sentence.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Executor => "executor",
            Self::Operator => "operator",
            Self::Step => "step",
        }
    }
}

/// An identity, and the socket of the broker.
#[derive(Debug)]
pub struct Endpoint {
    socket: PathBuf,
    pub(crate) files: IdentityFiles,
}

/// A broker that hangs up before any answer is either stopping or refusing this client. A stopping one is retried.
const MAX_HANG_UPS: u32 = 3;

const STEP_MOUNT: &str = "/run/keyhatch";
const AS_A_STEP: &str =
    "this is for steps: run it with keyhatch step run, or set KEYHATCH_DIR to a step's directory";

impl Endpoint {
    /// Finds the identity for a caller. Fails if there is none.
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
        Self::in_directory(&directory).map_err(|failure| match caller {
            Caller::Step => {
                Failure { message: format!("{}; {AS_A_STEP}", failure.message), ..failure }
            }
            _ => with_pending_request(unreachable::missing(failure, &state)),
        })
    }

    fn for_caller(caller: Caller, directory: &Path) -> Result<Self, Failure> {
        if caller != Caller::Step {
            return Self::in_directory(directory);
        }
        // The directory of a step may be gone as a whole. Its name is the id of an opening.
        let is_opening =
            || directory.file_name().and_then(|name| name.to_str()?.parse::<Id>().ok());
        let was_step = directory.exists() || is_opening().is_some();
        if was_step && is_missing(&directory.join("tls.key")) {
            return Err(step_has_ended(directory));
        }
        let mut endpoint = Self::in_directory(directory)?;
        endpoint.files.step = Some(directory.to_owned());
        Ok(endpoint)
    }

    /// Finds an operator's identity, or else an executor's, for requests that both may send. Fails if there is neither.
    pub(crate) fn find_any(state: Option<&Path>) -> Result<Self, Failure> {
        let operator = Self::find(Caller::Operator, state);
        operator.or_else(|missing| Self::find(Caller::Executor, state).map_err(|_| missing))
    }

    /// Finds an identity in a state directory, an operator's before an executor's. Ignores the environment. Fails if
    /// there is neither.
    pub(crate) fn of_host(state: &Path) -> Result<Self, Failure> {
        let operator = Self::in_directory(&state.join(OPERATOR_DIRECTORY));
        operator.or_else(|missing| {
            Self::in_directory(&state.join(EXECUTOR_DIRECTORY)).map_err(|_| missing)
        })
    }

    /// The identity in this directory. Fails if the directory names no socket.
    pub fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let socket = directory.join("keyhatch.sock");
        let socket = if socket.exists() { socket } else { address_in(directory)? };
        Ok(Self { socket, files: IdentityFiles::in_directory(directory) })
    }

    fn from_variables() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let files = IdentityFiles {
            ca: path("KEYHATCH_CACERT")?,
            certificate: path("KEYHATCH_CLIENT_CERT")?,
            key: path("KEYHATCH_CLIENT_KEY")?,
            step: None,
        };
        Some(Self { socket: socket_of(&std::env::var("KEYHATCH_ADDR").ok()?)?, files })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects, and retries while the broker is away. Fails if a file cannot be read, or the broker cannot be reached
    /// or refuses the certificate. `STEP_NOT_OPEN` at once if the step has ended.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        self.connect_within(&mut RetryDeadline::after(RETRY_TIME)).await
    }

    /// The same, with retries until this deadline.
    pub(crate) async fn connect_within(
        &self,
        deadline: &mut RetryDeadline,
    ) -> Result<Channel, Failure> {
        let connected = self.reach_within(deadline).await?;
        renew_if_due(&self.files, &connected).await;
        Ok(connected)
    }

    /// Connects without retries, and without renewing the certificate.
    pub(crate) async fn reach(&self) -> Result<Channel, Failure> {
        self.reach_within(&mut RetryDeadline::after(Duration::ZERO)).await
    }

    /// Connects without renewing the certificate, with retries until this deadline.
    pub(crate) async fn reach_within(
        &self,
        deadline: &mut RetryDeadline,
    ) -> Result<Channel, Failure> {
        let mut hang_ups = 0;
        loop {
            let error = match channel(&self.socket, self.files.read()?).await {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            let is_hang_up = has_hung_up(&error);
            hang_ups += u32::from(is_hang_up);
            let may_be_back = match is_hang_up {
                true => hang_ups < MAX_HANG_UPS,
                false => self.is_away(&error),
            };
            if !may_be_back || !deadline.pause().await {
                return Err(self.unreachable(&error));
            }
        }
    }

    /// Sends a request that may be sent twice. Repeats it on another connection while the broker is away.
    pub(crate) async fn with_retries<T>(
        &self,
        time: Duration,
        request: impl AsyncFn(Channel) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut deadline = RetryDeadline::after(time);
        loop {
            match request(self.connect_within(&mut deadline).await?).await {
                Err(failure) if deadline.allows(&failure).await => {}
                outcome => return outcome,
            }
        }
    }

    /// Whether nothing listens at the socket now, and may again: the directory of the socket exists.
    fn is_away(&self, error: &ConnectError) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let is_absent = matches!(error, ConnectError::Io(error)
            if [ConnectionRefused, NotFound].contains(&error.kind()));
        is_absent && self.socket.parent().is_some_and(Path::exists)
    }

    fn unreachable(&self, error: &ConnectError) -> Failure {
        let is_step = || self.identity().is_ok_and(|id| matches!(id, SpiffeId::Step { .. }));
        unreachable::failure(error, &self.socket, self.files.step.is_some() || is_step())
    }

    /// The identity in the certificate. Fails if the certificate cannot be read.
    pub(crate) fn identity(&self) -> Result<SpiffeId, Failure> {
        self.files.svid().map(|svid| svid.id)
    }

    /// `executor:NAME`. None if the identity is not an executor's.
    pub(crate) fn executor(&self) -> Option<String> {
        match self.identity() {
            Ok(SpiffeId::Executor(name)) => Some(format!("executor:{name}")),
            _ => None,
        }
    }
}

/// The directory of the user's own identity. None if it is not for this caller, or another user owns it: with sudo,
/// HOME may be another user's, who then would choose the identity and the broker.
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

/// Adds that a request for the certificate of the user's own identity has not been answered yet, if there is one.
fn with_pending_request(failure: Failure) -> Failure {
    let request = default_identity().map(|directory| directory.join("tls.csr"));
    let Some(request) = request.filter(|request| request.exists()) else { return failure };
    let request = request.display();
    let message = format!(
        "{request} waits for an administrator: keyhatch operator add NAME --role ROLE --csr {request} ({})",
        failure.message
    );
    Failure { message, ..failure }
}

/// Whether the broker closed the connection before any answer.
fn has_hung_up(error: &ConnectError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, ConnectError::Io(error)
        if [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind()))
}

fn address_in(directory: &Path) -> Result<PathBuf, Failure> {
    let path = directory.join("env");
    let text = read_or_fail(&path)?;
    address_in_text(&text).ok_or_else(|| {
        let text = format!("{} has no line KEYHATCH_ADDR=unix://PATH", path.display());
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}

/// The path of the socket that an identity's `env` names. None if there is no such line.
pub fn address_in_text(env: &str) -> Option<PathBuf> {
    env.lines().find_map(|line| socket_of(line.strip_prefix("KEYHATCH_ADDR=")?))
}

fn socket_of(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix://").or_else(|| address.strip_prefix("unix:"))?;
    Some(PathBuf::from(path))
}
