//! `keyhatch init`: makes a broker's keys, CA, journal, store and first identities.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DaemonError;
use super::state::{FORMAT, StateDirectory, StateError, StateFile};
use crate::broker::{LOCAL_EXECUTOR, Offline, RuntimeDir, StartError};
use crate::identity::{Authority, KeyAndCertificate};
use crate::journal::Journal;
use crate::model::limits::CLIENT_CERTIFICATE_LIFE;
use crate::model::{
    Clock, ExecutorName, HostName, OperatorName, PinnedCertificate, SpiffeId, Timestamp,
    TrustDomain,
};
use crate::seal::{Keyring, NewKek, random_id};
use crate::store::Store;
use crate::sys::Trust;

/// The name of the first operator, an administrator.
pub const FIRST_OPERATOR: &str = "admin";
/// The first operator's identity, in the state directory.
pub const OPERATOR_DIRECTORY: &str = "operators/admin";
/// The local executor's identity, in the state directory.
pub const EXECUTOR_DIRECTORY: &str = "executors/local";

/// The daemon's certificate, in the state directory.
pub const CERTIFICATE: &str = "broker/tls.crt";
/// The daemon's private key, in the state directory.
pub(super) const KEY: &str = "broker/tls.key";

/// The options of a new broker.
pub struct InitOptions {
    /// The state directory to make; absent or empty.
    pub state: PathBuf,
    /// Directories above the state directory whose other writers are trusted.
    pub shared_parents: Vec<PathBuf>,
    /// The runtime directory, where its sockets will be.
    pub runtime: PathBuf,
    /// The source of the KEK; a file in the state directory if `None`.
    pub kek: Option<NewKek>,
    /// The trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// The broker's name, in its SPIFFE ID.
    pub name: String,
    /// The clock that dates what is made.
    pub clock: Clock,
}

/// A broker that was made.
pub struct Initialised {
    /// The KEK's file, if it comes from one.
    pub kek_file: Option<PathBuf>,
    /// True if the KEK's file is in the state directory.
    pub kek_beside_store: bool,
    /// The SHA-256 of the CA's root certificate.
    pub ca_sha256: [u8; 32],
    /// The first operator's identity directory.
    pub operator: PathBuf,
    /// The local executor's identity directory.
    pub executor: PathBuf,
}

/// Makes a new broker.
///
/// # Errors
/// If the directory is not empty, or a file cannot be written. Everything that was made is removed then.
pub fn init(options: &InitOptions) -> Result<Initialised, DaemonError> {
    let trust = Trust::of_process(&options.shared_parents);
    // A broker that cannot serve is not made.
    RuntimeDir::check(&options.runtime, &trust)?;
    // Locked first: if two inits run at once, one makes the broker, and the other finds it made.
    let (state, _lock) = StateDirectory::make(&options.state, &trust)?;
    let by_default = NewKek::File(PathBuf::from("kek"));
    let kek = options.kek.as_ref().unwrap_or(&by_default);
    let made = state.keys(None).create(kek, options.clock.now());
    let (keyring, kek_file) = made.map_err(|error| {
        clear(state.path());
        StateError::from(error)
    })?;
    let filled = fill(&state, options, keyring, kek_file.as_deref());
    if filled.is_err() {
        // The directory was empty and is locked, and the KEK is new: all files are this init's.
        let _ = kek_file.map(std::fs::remove_file);
        clear(state.path());
    }
    filled
}

fn fill(
    state: &StateDirectory,
    options: &InitOptions,
    keyring: Keyring,
    kek_file: Option<&Path>,
) -> Result<Initialised, DaemonError> {
    let now = options.clock.now();
    let serials = [random_id()?, random_id()?, random_id()?];
    let authority =
        Authority::create(options.trust_domain.clone(), serials, now).map_err(StateError::from)?;
    let authority = Arc::new(authority);
    state.write_authority(&authority, &keyring)?;
    state.make_issuer_keys(&keyring, now)?;
    state.write("ca.crt", 0o444, authority.root_pem().as_bytes())?;
    state.make_directory("broker")?;
    issue_daemon(state, &authority, (&options.name, &[]), now)?;
    Journal::create(&state.join("journal"), &keyring, now)
        .map_err(|source| StateError::Io { path: state.join("journal"), source })?;
    Store::create(&state.join("store"), &keyring).map_err(StartError::from)?;
    make_identities(state, &authority, keyring, options)?;

    let file = StateFile {
        format: FORMAT,
        name: options.name.clone(),
        trust_domain: options.trust_domain.clone(),
    };
    state.write_file(&file)?;
    Ok(Initialised {
        kek_beside_store: kek_file.is_some_and(|file| file.starts_with(state.path())),
        kek_file: kek_file.map(Path::to_owned),
        ca_sha256: authority.root_sha256(),
        operator: state.join(OPERATOR_DIRECTORY),
        executor: state.join(EXECUTOR_DIRECTORY),
    })
}

/// Makes and registers the first operator and the first executor.
fn make_identities(
    state: &StateDirectory,
    authority: &Arc<Authority>,
    keyring: Keyring,
    options: &InitOptions,
) -> Result<(), DaemonError> {
    let now = options.clock.now();
    let operator = OperatorName::parse(FIRST_OPERATOR)?;
    let executor = ExecutorName::parse(LOCAL_EXECUTOR)?;
    let issue = |id: &SpiffeId, directory: &str| -> Result<PinnedCertificate, DaemonError> {
        let issued = issue_client(authority, id, now)?;
        write_identity(state, directory, &issued, authority)?;
        write_address(state, directory, &options.runtime)?;
        Ok(issued.issued.pinned)
    };
    let admin = issue(&SpiffeId::Operator(operator.clone()), OPERATOR_DIRECTORY)?;
    let local = issue(&SpiffeId::Executor(executor.clone()), EXECUTOR_DIRECTORY)?;
    let offline = Offline {
        journal: &state.join("journal"),
        store: &state.join("store"),
        keyring,
        authority: Arc::clone(authority),
        clock: options.clock.clone(),
    };
    let seeded = offline.seed_registrations((operator, admin), (executor, local));
    Ok(super::offline(seeded)??)
}

/// Issues a key and certificate of an operator or executor.
pub(super) fn issue_client(
    authority: &Authority,
    id: &SpiffeId,
    now: Timestamp,
) -> Result<KeyAndCertificate, DaemonError> {
    let end = now.after(CLIENT_CERTIFICATE_LIFE);
    let issued = authority.issue_client_with_key(id, random_id()?, now, end);
    Ok(issued.map_err(StateError::from)?)
}

/// Gives the daemon a new key and certificate, for its name and the hosts by which it is reached over TCP.
pub(super) fn issue_daemon(
    state: &StateDirectory,
    authority: &Authority,
    (name, hosts): (&str, &[HostName]),
    now: Timestamp,
) -> Result<(), DaemonError> {
    let issued = authority
        .issue_daemon(name, hosts, random_id()?, now, CLIENT_CERTIFICATE_LIFE)
        .map_err(StateError::from)?;
    state.write(KEY, 0o400, issued.key_pem.as_bytes())?;
    state.write(CERTIFICATE, 0o444, issued.issued.chain_pem.as_bytes())?;
    Ok(())
}

/// Writes an identity's directory: key, certificate and CA.
pub(super) fn write_identity(
    state: &StateDirectory,
    directory: &str,
    identity: &KeyAndCertificate,
    authority: &Authority,
) -> Result<(), DaemonError> {
    state.make_directory(directory)?;
    let name = |file: &str| format!("{directory}/{file}");
    state.write(&name("tls.crt"), 0o444, identity.issued.chain_pem.as_bytes())?;
    state.write(&name("tls.key"), 0o400, identity.key_pem.as_bytes())?;
    state.write(&name("ca.crt"), 0o444, authority.root_pem().as_bytes())?;
    Ok(())
}

/// Writes the daemon's address into the identities of this host.
pub(super) fn update_addresses(state: &StateDirectory, runtime: &Path) -> Result<(), DaemonError> {
    // An identity that was moved elsewhere, with a link or without, is no longer the daemon's to change.
    let is_here = |identity: &&str| {
        std::fs::symlink_metadata(state.join(identity)).is_ok_and(|found| found.is_dir())
    };
    let mut here = [OPERATOR_DIRECTORY, EXECUTOR_DIRECTORY].into_iter().filter(is_here);
    here.try_for_each(|identity| write_address(state, identity, runtime))
}

/// Writes the daemon's address into an identity, unless it is there already.
pub(super) fn write_address(
    state: &StateDirectory,
    directory: &str,
    runtime: &Path,
) -> Result<(), DaemonError> {
    let env = format!(
        "KEYHATCH_ADDR=unix://{}\nKEYHATCH_AUTHORITY=localhost\n",
        runtime.join("admin.sock").display()
    );
    let file = format!("{directory}/env");
    if state.read_text(&file).ok().as_deref() != Some(env.as_str()) {
        state.write(&file, 0o444, env.as_bytes())?;
    }
    Ok(())
}

/// Empties a directory that was empty before a failed attempt.
pub(super) fn clear(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    // The lock goes last: until then no other attempt begins.
    for entry in entries.filter(|entry| entry.file_name() != "lock") {
        let path = entry.path();
        let _ =
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    let _ = std::fs::remove_file(directory.join("lock"));
}
