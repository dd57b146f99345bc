//! The identity that a command uses, and the address of the broker. The first of these that is there:
//!
//! 1. For an operator the context of `--context`; for an operator or executor the state directory of `--state`.
//! 2. For an operator the context of `KEYHATCH_CONTEXT`.
//! 3. The directory in `KEYHATCH_DIR`. The socket is `keyhatch.sock` in it, or the address in its `env`.
//! 4. The files in `KEYHATCH_ADDR`, `KEYHATCH_CACERT`, `KEYHATCH_CLIENT_CERT` and `KEYHATCH_CLIENT_KEY`.
//! 5. For a step `/run/keyhatch`. For an operator or executor the identity under the state directory of `KEYHATCH_STATE`, an
//!    operator's current context, the user's own in `~/.config/keyhatch`, or the identity under the default state
//!    directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;

use super::contexts::{self, Contexts};
use super::identity_files::{IdentityFiles, is_missing, read, read_or_fail, step_has_ended};
use super::own_directory::own;
use super::renewal::renew_if_due;
use super::retry::{RETRY_TIME, RetryDeadline};
use super::unreachable;
use crate::cli::io::failure::{Failure, exit};
use crate::config::{default_identity, default_state};
use crate::daemon::{EXECUTOR_DIRECTORY, OPERATOR_DIRECTORY};
use crate::grpc::client::channel;
use crate::identity::{BrokerAddress, ConnectError, RemoteBroker, Svid};
use crate::model::{BrokerId, HostPort, Id, SpiffeId};

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

/// Which broker a command is for. By default that of the environment, of the current context, or of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// The state directory of `--state` or `KEYHATCH_STATE`.
    pub state: Option<&'a Path>,
    /// Whether it is that of `--state`, which comes before every variable.
    pub is_state_flag: bool,
    /// The context of `--context` or `KEYHATCH_CONTEXT`.
    pub context: Option<&'a str>,
}

/// An identity, and the address of the broker.
#[derive(Debug)]
pub struct Endpoint {
    address: BrokerAddress,
    pub(crate) files: IdentityFiles,
}

/// A broker that hangs up before any answer is either stopping or refusing this client. A stopping one is retried.
const MAX_HANG_UPS: u32 = 3;

const STEP_MOUNT: &str = "/run/keyhatch";
const AS_A_STEP: &str =
    "this is for steps: run it with keyhatch step run, or set KEYHATCH_DIR to a step's directory";

impl Endpoint {
    /// Finds the identity for a caller. Fails if there is none.
    pub fn find(caller: Caller, place: Place<'_>) -> Result<Self, Failure> {
        let state = place.state;
        if let Some(context) = place.context.filter(|_| caller == Caller::Operator) {
            return Self::of_context(&contexts::named(context)?);
        }
        if (caller == Caller::Step || !place.is_state_flag)
            && let Some(endpoint) = Self::of_environment(caller)?
        {
            return Ok(endpoint);
        }
        if state.is_none() {
            if caller == Caller::Operator
                && let Some(directory) = contexts::current()?
            {
                return Self::of_context(&directory);
            }
            if let Some(directory) = own_identity(caller)? {
                return Self::in_directory(&directory);
            }
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
            _ => with_pending_request(with_contexts(unreachable::missing(failure, &state))),
        })
    }

    /// The identity that variables name. None if they name none.
    fn of_environment(caller: Caller) -> Result<Option<Self>, Failure> {
        let named = std::env::var_os("KEYHATCH_DIR").filter(|directory| !directory.is_empty());
        let Some(directory) = named else { return Self::from_variables() };
        let found = Self::for_caller(caller, Path::new(&directory));
        found.map(Some).map_err(|failure| Failure {
            message: format!("{}; KEYHATCH_DIR names that directory", failure.message),
            ..failure
        })
    }

    /// The identity of a context. A damaged context is no missing identity, so no other identity stands for it.
    fn of_context(directory: &Path) -> Result<Self, Failure> {
        Self::in_directory(directory)
            .map_err(|failure| Failure { reason: "CONTEXT_INVALID".to_owned(), ..failure })
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

    /// Finds an operator's identity, or an executor's if there is no operator's, for requests that both may send. Fails if
    /// there is neither, or the operator's cannot be used: the executor's may be for another broker.
    pub(crate) fn find_any(place: Place<'_>) -> Result<Self, Failure> {
        match Self::find(Caller::Operator, place) {
            Err(missing) if missing.reason == "IDENTITY_MISSING" && place.context.is_none() => {
                Self::find(Caller::Executor, place).map_err(|_| missing)
            }
            found => found,
        }
    }

    /// Finds an identity in a state directory, an operator's before an executor's. Ignores the environment. Fails if
    /// there is neither.
    pub(crate) fn of_host(state: &Path) -> Result<Self, Failure> {
        let operator = Self::in_directory(&state.join(OPERATOR_DIRECTORY));
        operator.or_else(|missing| {
            Self::in_directory(&state.join(EXECUTOR_DIRECTORY)).map_err(|_| missing)
        })
    }

    /// The identity in this directory. Fails if the directory names no broker.
    pub fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let socket = directory.join("keyhatch.sock");
        let address = match socket.exists() {
            true => BrokerAddress::Socket(socket),
            false => address_in(directory)?,
        };
        Ok(Self { address, files: IdentityFiles::in_directory(directory) })
    }

    /// The identity that single variables name. None if they name none. Fails if they name a broker that cannot be used: the
    /// command must not go to another.
    fn from_variables() -> Result<Option<Self>, Failure> {
        let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(named) = value("KEYHATCH_ADDR") else { return Ok(None) };
        let unusable = || {
            let text = "KEYHATCH_ADDR is set, and is neither unix://PATH nor HOST:PORT beside KEYHATCH_BROKER, \
                        KEYHATCH_CACERT, KEYHATCH_CLIENT_CERT and KEYHATCH_CLIENT_KEY; unset KEYHATCH_ADDR, or set all of them";
            Failure::new("IDENTITY_INVALID", text, exit::FAILED)
        };
        let address =
            address_of(&named, value("KEYHATCH_BROKER").as_deref()).ok_or_else(unusable)?;
        let path = |name| value(name).map(PathBuf::from);
        let [ca, certificate, key] =
            ["KEYHATCH_CACERT", "KEYHATCH_CLIENT_CERT", "KEYHATCH_CLIENT_KEY"].map(path);
        match (ca, certificate, key, &address) {
            (Some(ca), Some(certificate), Some(key), _) => {
                let files = IdentityFiles { ca, certificate, key, step: None };
                Ok(Some(Self { address, files }))
            }
            (.., BrokerAddress::Socket(_)) => Ok(None),
            (.., BrokerAddress::Remote(_)) => Err(unusable()),
        }
    }

    pub fn address(&self) -> &BrokerAddress {
        &self.address
    }

    /// The Unix socket of the broker. None if it is reached over TCP.
    pub fn socket(&self) -> Option<&Path> {
        match &self.address {
            BrokerAddress::Socket(path) => Some(path),
            BrokerAddress::Remote(_) => None,
        }
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
            let error = match channel(self.address.clone(), self.files.read()?).await {
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

    /// Whether nothing listens at the address now, and may again. The directory of a socket exists then.
    fn is_away(&self, error: &ConnectError) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let is_absent = matches!(error, ConnectError::Io(error)
            if [ConnectionRefused, NotFound].contains(&error.kind()));
        is_absent && self.socket().is_none_or(|socket| socket.parent().is_some_and(Path::exists))
    }

    fn unreachable(&self, error: &ConnectError) -> Failure {
        let is_step = || self.identity().is_ok_and(|id| matches!(id, SpiffeId::Step { .. }));
        unreachable::failure(error, &self.address, self.files.step.is_some() || is_step())
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

/// The directory of the user's own identity. None if it is not for this caller.
fn own_identity(caller: Caller) -> Result<Option<PathBuf>, Failure> {
    if caller == Caller::Step {
        return Ok(None);
    }
    let Some(directory) = own()?.map(|own| own.path().to_owned()) else { return Ok(None) };
    let certificate = read(&directory.join("tls.crt")).ok();
    let id = certificate.and_then(|pem| Some(Svid::parse_own(&pem).ok()?.id));
    let is_callers = match id {
        Some(SpiffeId::Operator(_)) => caller == Caller::Operator,
        Some(SpiffeId::Executor(_)) => caller == Caller::Executor,
        _ => false,
    };
    Ok(is_callers.then_some(directory))
}

/// Adds that there are contexts of which none is current, if there are.
fn with_contexts(failure: Failure) -> Failure {
    let contexts = Contexts::of_user().ok().flatten();
    let names = contexts.and_then(|contexts| contexts.names().ok()).unwrap_or_default();
    let Some(first) = names.first() else { return failure };
    let message = format!(
        "{}; to use the context {first}, of {}: keyhatch context use {first}",
        failure.message,
        names.len()
    );
    Failure { message, ..failure }
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

fn address_in(directory: &Path) -> Result<BrokerAddress, Failure> {
    let path = directory.join("env");
    let text = read_or_fail(&path)?;
    address_in_text(&text).ok_or_else(|| {
        let text = format!(
            "{} has no line KEYHATCH_ADDR=unix://PATH, nor KEYHATCH_ADDR=HOST:PORT beside KEYHATCH_BROKER=ID",
            path.display()
        );
        Failure::new("IDENTITY_INVALID", text, exit::FAILED)
    })
}

/// The address of the broker that an identity's `env` names. None if there is no such line.
pub fn address_in_text(env: &str) -> Option<BrokerAddress> {
    let value = |name: &str| {
        env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    address_of(&value("KEYHATCH_ADDR")?, value("KEYHATCH_BROKER").as_deref())
}

/// The broker at an address. Over TCP its identity must be known, too.
fn address_of(address: &str, broker: Option<&str>) -> Option<BrokerAddress> {
    let path = address.strip_prefix("unix://").or_else(|| address.strip_prefix("unix:"));
    if let Some(path) = path {
        return Some(BrokerAddress::Socket(PathBuf::from(path)));
    }
    let address = HostPort::parse(address).ok()?;
    Some(BrokerAddress::Remote(RemoteBroker { address, id: BrokerId::parse(broker?).ok()? }))
}
