//! `keyhatch init --reissue-admin`: a new administrator certificate, for a broker whose certificates are lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::DaemonError;
use super::init::{
    EXECUTOR_DIRECTORY, FIRST_OPERATOR, OPERATOR_DIRECTORY, issue_client, write_address,
    write_identity,
};
use super::state::{StateDirectory, StateError};
use crate::broker::{LOCAL_EXECUTOR, LocalExecutor, Offline};
use crate::identity::{Authority, KeyAndCertificate, Svid, check_pair};
use crate::model::{Clock, ExecutorName, OperatorName, SpiffeId, TrustDomain};
use crate::seal::{Keyring, Unlock};
use crate::sys::{Trust, as_owner_of};

/// The options of [`reissue_admin`].
pub struct ReissueOptions {
    /// The state directory.
    pub state: PathBuf,
    /// Directories above the state directory whose other writers are trusted.
    pub shared_parents: Vec<PathBuf>,
    /// How to get the KEK.
    pub unlock: Unlock,
    /// The runtime directory, where the broker's sockets are. It is written into identities that have no address.
    pub runtime: PathBuf,
    /// The clock that dates the certificates.
    pub clock: Clock,
}

/// The identities that were made.
pub struct Reissued {
    /// The first operator's identity directory.
    pub operator: PathBuf,
    /// The local executor's identity directory, if its certificate was no longer valid.
    pub executor: Option<PathBuf>,
}

/// Makes the first operator an administrator with a new key and certificate; its old certificates are refused from then
/// on. The certificate is registered before the files are written: after a kill, call this again.
///
/// # Errors
/// If a daemon runs, the KEK is another one, or a file cannot be read or written.
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

/// [`reissue_admin`] in a directory that is open and locked.
pub(super) fn reissue_into(
    state: &StateDirectory,
    keyring: Keyring,
    authority: &Arc<Authority>,
    runtime: &Path,
    clock: &Clock,
) -> Result<Reissued, DaemonError> {
    let operator = OperatorName::parse(FIRST_OPERATOR)?;
    let now = clock.now();
    let admin = issue_client(authority, &SpiffeId::Operator(operator.clone()), now)?;
    let executor = SpiffeId::Executor(ExecutorName::parse(LOCAL_EXECUTOR)?);
    let local = issue_client(authority, &executor, now)?;
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

/// The certificate of an identity whose files are complete and belong together.
fn usable(state: &StateDirectory, directory: &str, domain: &TrustDomain) -> Option<Svid> {
    let certificate = state.read_text(&format!("{directory}/tls.crt")).ok()?;
    let key = Zeroizing::new(state.read_text(&format!("{directory}/tls.key")).ok()?);
    check_pair(certificate.as_bytes(), key.as_bytes()).ok()?;
    Svid::parse_pem(&certificate, domain).ok()
}

/// Writes the daemon's address into an identity that has none.
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
