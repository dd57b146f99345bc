//! The health of the broker, for status, metrics and the health service.

use std::fmt;

use tokio::sync::watch;

use super::Broker;
use super::connections::lost::LostSearch;
use super::endings::list::EndingCounts;
use super::registry::tcp::TcpDoor;
use crate::catalog::Registered;
use crate::journal::{CommitError, JournalStatus, NewestSignature};
use crate::model::{JournalMode, ResourceName, Timestamp};
use crate::seal::{KekKind, KeyId, MemoryProtection};

/// The service that the broker gives its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does everything.
    Serving,
    /// The broker resolves and refuses changes: the store takes no writes.
    ReadOnly,
    /// The broker takes changes and resolves nothing: it was restored from a backup, and no administrator has confirmed it.
    Quarantined,
    /// It neither resolves nor changes: the journal takes no lines.
    NoSecrets,
    /// It neither resolves nor changes: it is shutting down.
    Draining,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Serving, Self::ReadOnly, Self::Quarantined, Self::NoSecrets, Self::Draining];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::ReadOnly => "read-only",
            Self::Quarantined => "quarantined",
            Self::NoSecrets => "no-secrets",
            Self::Draining => "draining",
        })
    }
}

/// The health of the broker.
pub struct Health {
    /// The state.
    pub state: State,
    /// The start of the daemon.
    pub start_time: Timestamp,
    /// The trust domain.
    pub trust_domain: String,
    /// The numbers of resources.
    pub counts: Counts,
    /// The endings of credentials upstream that are not over. While the journal hangs, they are unknown, and 0.
    pub endings: EndingCounts,
    /// The last batch in force.
    pub head: u64,
    /// When step decisions must be on disk.
    pub journal_mode: JournalMode,
    /// The journal's status; `None` while the journal hangs.
    pub journal: Option<JournalStatus>,
    /// The journal's newest signature.
    pub signature: Option<NewestSignature>,
    /// The keys at rest.
    pub keys: KeyState,
    /// The keys and values in memory.
    pub memory: MemoryProtection,
    /// The end of the daemon's certificate.
    pub certificate_end: Timestamp,
    /// The end of the CA.
    pub authority_end: Timestamp,
    /// The SHA-256 of the CA's root certificate.
    pub authority_sha256: [u8; 32],
    /// The full names of the resources that a newer keyhatch wrote.
    pub newer: Vec<String>,
    /// The door for operators over TCP, if there is one.
    pub tcp_door: Option<TcpDoor>,
    /// The search for credentials that were made after a backup; `None` if there was no search since the start.
    pub lost_search: Option<LostSearch>,
    /// What operators have blocked, sorted.
    pub blocked: Vec<String>,
}

/// The numbers of resources. While the journal hangs, open steps and live leases are unknown, and 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections.
    pub connections: usize,
    /// Connection groups.
    pub groups: usize,
    /// Secrets of workflows.
    pub secrets: usize,
    /// Operators' own integrations.
    pub own_integrations: usize,
    /// Operators.
    pub operators: usize,
    /// Operators that may connect over TCP.
    pub remote_operators: usize,
    /// Executors.
    pub executors: usize,
    /// Open steps.
    pub open_steps: usize,
    /// Live leases.
    pub live_leases: usize,
    /// Open Watches.
    pub watches: usize,
    /// Connections whose refresh token is of no use.
    pub reauthorizations: usize,
}

/// The keys at rest.
#[derive(Clone, Copy, Debug)]
pub struct KeyState {
    /// The key that wraps the others.
    pub kek: KeyId,
    /// Its source.
    pub kek_kind: KekKind,
    /// The number of DEKs.
    pub deks: usize,
}

impl KeyState {
    /// True while records are sealed under an older DEK: that DEK is dropped with the last of them.
    pub fn is_resealing(&self) -> bool {
        self.deks > 1
    }
}

impl Broker {
    /// Follows whether a write to the journal hangs, which holds up the thread that writes.
    pub fn write_hangs(&self) -> watch::Receiver<bool> {
        self.journal.write_hangs()
    }

    /// The health of the broker, without the journal's part while the journal hangs.
    pub fn health(&self) -> Health {
        let looked = self
            .journal
            .with_live(|live| (live.open_count(), live.leases().len(), EndingCounts::of(live)));
        let (open_steps, live_leases, endings) = looked.unwrap_or_default();
        Health {
            state: self.state(),
            start_time: self.start_time,
            trust_domain: self.authority.domain().to_string(),
            counts: Counts { open_steps, live_leases, ..self.counts() },
            endings,
            head: self.snapshot().head,
            journal_mode: self.journal_mode,
            journal: self.journal.status(self.now()).ok(),
            signature: self.journal.newest_signature(),
            keys: KeyState {
                kek: self.keyring.kek_id(),
                kek_kind: self.keys.kek_kind,
                deks: self.keyring.deks().len(),
            },
            memory: MemoryProtection::of_this_process(),
            certificate_end: *self.certificate_end.borrow(),
            authority_end: self.authority.expire_time(),
            authority_sha256: self.authority.root_sha256(),
            newer: self.newer("", ""),
            tcp_door: self.tcp_door.clone(),
            lost_search: self.lost_search(),
            blocked: self.blocked(),
        }
    }

    fn blocked(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let blocked = snapshot.blocks.iter().map(|block| block.target.to_string());
        let mut blocked: Vec<String> = blocked.collect();
        blocked.sort_unstable();
        blocked
    }

    /// The state. Status, metrics and the health services of both sockets all use it.
    pub(super) fn state(&self) -> State {
        if self.check_serving().is_err() {
            return State::Draining;
        }
        match self.journal.may_decide() {
            Err(CommitError::Quarantined) => State::Quarantined,
            Err(_) => State::NoSecrets,
            Ok(()) if self.store.is_writable() && self.journal.has_room() => State::Serving,
            Ok(()) => State::ReadOnly,
        }
    }

    /// The numbers that the catalogue knows.
    fn counts(&self) -> Counts {
        let snapshot = self.snapshot();
        let catalog = &snapshot.catalog;
        let is_operator = |who: &Registered| matches!(who, Registered::Operator(_));
        let operators = catalog.registrations().filter(|one| is_operator(&one.who)).count();
        Counts {
            connections: catalog.connection_count(),
            groups: catalog.group_count(),
            secrets: catalog.secret_count(),
            own_integrations: catalog.own_integrations().count(),
            operators,
            remote_operators: catalog.registrations().filter(|one| one.remote).count(),
            executors: catalog.registrations().count() - operators,
            watches: self.watchers.count(),
            reauthorizations: catalog.unusable_count(),
            ..Counts::default()
        }
    }

    /// The full names with this prefix of resources that a newer keyhatch wrote. Only the last page of a list has them,
    /// so the names are empty beside a token of a next page.
    pub fn newer(&self, prefix: &str, next_page_token: &str) -> Vec<String> {
        if !next_page_token.is_empty() {
            return Vec::new();
        }
        let snapshot = self.snapshot();
        let names = snapshot.catalog.all_newer().map(|one| one.name.clone());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// The end of each operator's and executor's newest certificate.
    pub fn registration_ends(&self) -> Vec<(ResourceName, Timestamp)> {
        let snapshot = self.snapshot();
        let ends = snapshot.catalog.registrations().filter_map(|one| {
            let end = one.certificates.iter().map(|pinned| pinned.not_after).max()?;
            Some((one.who.resource(), end))
        });
        ends.collect()
    }
}
