//! `keyhatch init --reissue-admin`: the way back in, for who holds the KEK.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::DaemonError;
use super::init::{
    EXECUTOR_DIRECTORY, FIRST_OPERATOR, OPERATOR_DIRECTORY, write_address, write_identity,
};
use super::state::{StateDirectory, StateError};
use crate::broker::{LOCAL_EXECUTOR, LocalExecutor, Offline};
use crate::identity::{Authority, KeyAndCertificate, Svid, check_pair};
use crate::model::limits::CLIENT_CERTIFICATE_LIFE;
use crate::model::{Clock, ExecutorName, OperatorName, SpiffeId, TrustDomain};
use crate::seal::{Keyring, Unlock, random_id};
use crate::sys::{Trust, as_owner_of};

/// What the first operator is made again from.
pub struct ReissueOptions {
    /// The state directory.
    pub state: PathBuf,
    /// The directories above the state directory that others may write to, and are trusted with.
    pub shared_parents: Vec<PathBuf>,
    /// What is given to get at the KEK, beside what the keyring says.
    pub unlock: Unlock,
    /// Where the broker's sockets are: written into identities that do not say so yet.
    pub runtime: PathBuf,
    /// When.
    pub clock: Clock,
}

/// What was made.
pub struct Reissued {
    /// The first operator's identity directory.
    pub operator: PathBuf,
    /// The local executor's, if its certificate was good no more.
    pub executor: Option<PathBuf>,
}

/// Makes the first operator an administrator with a new key and certificate; its old ones are refused from
/// then on. It is registered first, and given its files then: done again, it is whole.
///
/// # Errors
/// If a daemon runs, the KEK is another one, or something cannot be read or written.
pub fn reissue_admin(options: &ReissueOptions) -> Result<Reissued, DaemonError> {
    as_owner_of(&options.state, || reissue(options)).map_err(DaemonError::Threads)?
}

fn reissue(options: &ReissueOptions) -> Result<Reissued, DaemonError> {
    let trust = Trust::of_process(&options.shared_parents);
    let state = StateDirectory::open(&options.state, &trust)?;
    state.read()?;
    let _lock = state.lock()?;
    let keyring = state.unlock(Some(&options.unlock))?.keyring().map_err(StateError::from)?;
    let authority = Arc::new(state.authority(&keyring)?);
    reissue_into(&state, keyring, &authority, &options.runtime, &options.clock)
}

/// The same in a directory that is locked and open already.
pub(super) fn reissue_into(
    state: &StateDirectory,
    keyring: Keyring,
    authority: &Arc<Authority>,
    runtime: &Path,
    clock: &Clock,
) -> Result<Reissued, DaemonError> {
    let operator = OperatorName::parse(FIRST_OPERATOR)?;
    let admin = issue(authority, &SpiffeId::Operator(operator.clone()), clock)?;
    let executor = SpiffeId::Executor(ExecutorName::parse(LOCAL_EXECUTOR)?);
    let local = issue(authority, &executor, clock)?;
    let in_files = usable(state, EXECUTOR_DIRECTORY, authority.domain());
    let offline = Offline {
        journal: &state.join("journal"),
        store: &state.join("store"),
        keyring,
        authority: Arc::clone(authority),
        clock: clock.clone(),
    };
    let pinned = LocalExecutor {
        in_files: in_files.map(|svid| svid.sha256),
        new: local.issued.pinned.clone(),
    };
    let reissued = offline.reissue(operator, admin.issued.pinned.clone(), pinned);
    let is_executor_reissued = super::offline(reissued)??;
    let write = |directory: &str, identity: &KeyAndCertificate| {
        write_identity(state, directory, identity, authority)?;
        keep_address(state, directory, runtime)?;
        Ok::<_, DaemonError>(state.join(directory))
    };
    Ok(Reissued {
        operator: write(OPERATOR_DIRECTORY, &admin)?,
        executor: is_executor_reissued.then(|| write(EXECUTOR_DIRECTORY, &local)).transpose()?,
    })
}

/// What is in an identity's files, if they are all there and belong together.
fn usable(state: &StateDirectory, directory: &str, domain: &TrustDomain) -> Option<Svid> {
    let certificate = state.read_text(&format!("{directory}/tls.crt")).ok()?;
    let key = Zeroizing::new(state.read_text(&format!("{directory}/tls.key")).ok()?);
    check_pair(certificate.as_bytes(), key.as_bytes()).ok()?;
    Svid::parse_pem(&certificate, domain).ok()
}

fn issue(
    authority: &Authority,
    id: &SpiffeId,
    clock: &Clock,
) -> Result<KeyAndCertificate, DaemonError> {
    let now = clock.now();
    let end = now.after(CLIENT_CERTIFICATE_LIFE);
    let issued = authority.issue_client_with_key(id, random_id()?, now, end);
    Ok(issued.map_err(StateError::from)?)
}

/// An identity that says where the broker is goes on saying it.
fn keep_address(
    state: &StateDirectory,
    directory: &str,
    runtime: &Path,
) -> Result<(), DaemonError> {
    match state.join(directory).join("env").exists() {
        true => Ok(()),
        false => write_address(state, directory, runtime),
    }
}
