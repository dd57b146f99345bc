//! OpenStep and CloseStep.
//!
//! Line first, file second: the line of an opening or a renewal precedes the rename that makes it visible, and the line
//! of a closing precedes the removal.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::may_open::check_blocks;
use super::request::{HOST_MOUNT, StepRequest, heartbeat_seconds, mount_path};
use super::runtime_dir::{CERTIFICATE, grantees};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::error::Error;
use crate::broker::registry::operators::{Executor, require_executor};
use crate::identity::KeyAndCertificate;
use crate::journal::{CloseReason, Closing, LiveOpening};
use crate::model::limits::{MAX_STEP_CERTIFICATE_LIFE, MIN_TTL};
use crate::model::{Id, Opening, RunName, StepKey, StepName, StepOwner, Timestamp, WorkflowName};
use crate::seal::random_id;

/// An open step, as its executor gets it.
#[derive(Debug)]
pub struct OpenedStep {
    /// The opening.
    pub opening: Opening,
    /// The SPIFFE ID of its certificate.
    pub spiffe_id: String,
    /// Its directory on this host.
    pub directory: String,
    /// The environment for the step.
    pub env: Vec<(String, String)>,
}

/// Which step to close.
#[derive(Debug)]
pub enum StepSelector {
    /// The step of an opening.
    Opening(Id),
    /// The open step of these names.
    Step(WorkflowName, RunName, StepName),
}

/// The result of closing a step.
#[derive(Debug)]
pub struct ClosedStep {
    /// Whether the step was open.
    pub closed: bool,
    /// Whether an administrator had closed it before.
    pub by_operator: bool,
    /// How many leases were revoked.
    pub revoked: usize,
    /// The mints whose credentials are ended for it, those under way included.
    pub endings: Vec<Id>,
}

impl Broker {
    /// Opens a step. `peer_uid` is the Unix user of the executor, who mounts the directory.
    ///
    /// # Errors
    /// See `ExecutorService.OpenStep`.
    pub async fn open_step(
        &self,
        caller: &Principal,
        peer_uid: u32,
        request: StepRequest,
    ) -> Result<OpenedStep, Error> {
        let executor = require_executor(caller)?;
        let key = request.key(&executor);
        // Blocks of others' workflows are not told.
        if self.check_scope(&key, &request.run_as).is_ok() {
            check_blocks(&self.snapshot().blocks, &key)?;
        }
        if let Some(open) = self.opened_before(&executor, &request)? {
            return Ok(self.opened(open.record().clone()));
        }
        self.take_open(&executor, &request)?;
        let (opening, certificate) = self.new_opening(executor, request).await?;
        let env = self.step_env(&opening);
        let prepared = self.prepare_directory(&opening, &certificate, &env, peer_uid);
        let listener = prepared.inspect_err(|_| self.remove_directory(opening.id))?;
        let taken = self
            .journal
            .open_step(self.now(), opening.clone(), |live| self.may_open(live, &opening));
        let live = taken.inspect_err(|_: &Error| self.remove_directory(opening.id))?;
        self.publish_opening(listener, live).await?;
        Ok(self.opened(opening))
    }

    fn opened(&self, opening: Opening) -> OpenedStep {
        OpenedStep {
            spiffe_id: opening.key.spiffe_id().uri(self.authority.domain()),
            directory: self.directory_text(&opening),
            env: self.step_env(&opening),
            opening,
        }
    }

    /// The new opening and the step's first certificate. An older attempt is closed first.
    async fn new_opening(
        &self,
        executor: Executor,
        request: StepRequest,
    ) -> Result<(Opening, KeyAndCertificate), Error> {
        let now = self.now();
        let ttl = self.step_ttl(request.ttl)?;
        let mount_path = mount_path(&request.mount_path)?;
        let key = request.key(&executor);
        let owner = request.owner(&mount_path)?;
        let heartbeat_seconds = heartbeat_seconds(request.heartbeat)?;
        self.check_scope(&key, &request.run_as)?;
        let attempt = self.next_attempt(&key, &request).await?;
        let expire_time = now.after(ttl);
        let certificate = self.issue_step(&key, now, expire_time)?;
        let opening = Opening {
            id: random_id()?,
            key,
            attempt,
            run_as: request.run_as,
            owner,
            heartbeat_seconds,
            allowed_targets: request.allowed_targets,
            request: request.named,
            open_time: now,
            expire_time,
            public_key: certificate.public_key.clone(),
            certificates: vec![certificate.issued.pinned.clone()],
            mount_path,
        };
        Ok((opening, certificate))
    }

    /// Makes the directory of an opening visible, after its line is written, and listens in it.
    async fn publish_opening(
        &self,
        listener: std::os::unix::net::UnixListener,
        live: Arc<LiveOpening>,
    ) -> Result<(), Error> {
        let id = live.record().id;
        let published = self.runtime.publish(id);
        if published.is_ok() {
            self.sessions.begin(listener, Arc::clone(&live), live.record().open_time);
        }
        // The step may have been closed before its directory was complete.
        if live.is_closed() {
            self.sessions.end(id);
            self.remove_directory(id);
            return Err(Error::ClosedMeanwhile);
        }
        if let Err(error) = published {
            tracing::error!(%error, "a step's directory could not be made");
            self.close_opening(id, CloseReason::OpenFailed).await?;
            return Err(self.directory_unavailable(&error));
        }
        Ok(())
    }

    /// Closes a step. Returns when the line is on disk. The endings of credentials go on afterwards.
    ///
    /// # Errors
    /// See `ExecutorService.CloseStep`.
    pub async fn close_step(
        &self,
        caller: &Principal,
        selector: &StepSelector,
    ) -> Result<ClosedStep, Error> {
        let executor = require_executor(caller)?;
        match self.find_own(&executor, selector)? {
            Some(opening) => self.close_opening(opening.record().id, CloseReason::Executor).await,
            None => {
                let by_operator = self.is_ended_by_operator(&executor, selector)?;
                Ok(ClosedStep { by_operator, ..self.nothing_to_close().await? })
            }
        }
    }

    /// Whether an administrator has closed the step that an executor means.
    pub(super) fn is_ended_by_operator(
        &self,
        executor: &Executor,
        selector: &StepSelector,
    ) -> Result<bool, Error> {
        Ok(self.journal.with_live(|live| match selector {
            StepSelector::Opening(id) => live.ended_by_operators().has_opening(executor.uid, *id),
            StepSelector::Step(workflow, run, step) => {
                let key = step_key(executor, workflow, run, step);
                live.ended_by_operators().has_attempt(&key, live.last_attempt(&key))
            }
        })?)
    }

    /// An executor's open step. Another executor's step looks like a step that never existed.
    pub(super) fn find_own(
        &self,
        executor: &Executor,
        selector: &StepSelector,
    ) -> Result<Option<Arc<LiveOpening>>, Error> {
        let found = self.journal.with_live(|live| match selector {
            StepSelector::Opening(id) => live.opening(*id).cloned(),
            StepSelector::Step(workflow, run, step) => {
                live.open_attempt(&step_key(executor, workflow, run, step)).cloned()
            }
        })?;
        Ok(found.filter(|opening| opening.record().key.executor_uid == executor.uid))
    }

    /// The result if the step is not open. If another call is closing it, that is on disk when this returns.
    async fn nothing_to_close(&self) -> Result<ClosedStep, Error> {
        self.journal.synced(self.journal.last()?).await?;
        Ok(ClosedStep { closed: false, by_operator: false, revoked: 0, endings: Vec::new() })
    }

    pub(crate) async fn close_opening(
        &self,
        id: Id,
        reason: CloseReason,
    ) -> Result<ClosedStep, Error> {
        let (now, session) = (self.now(), self.sessions.find(id));
        let closed = self.journal.close(now, id, reason, |write| {
            if let Some(session) = session {
                session.journal_suppressed(now, &self.limits, write);
            }
        });
        let Some(Closing { position, revoked, mints }) = closed? else {
            return self.nothing_to_close().await;
        };
        // All of this happens before the first await, so that a dropped call leaves nothing half done. After a crash
        // before the sync, the start finds the opening without its directory and closes it again.
        self.leave(id);
        // The wait for the endings begins those that cannot begin now.
        let _ = self.endings.begin(&mints);
        self.journal.synced(position).await?;
        Ok(ClosedStep { closed: true, by_operator: false, revoked: revoked.len(), endings: mints })
    }

    /// Ends the session of an opening that is closed, and removes its directory.
    pub(crate) fn leave(&self, id: Id) {
        self.sessions.end_soon(id);
        self.remove_directory(id);
    }

    /// Listens again for a step that was open when the daemon stopped.
    pub(crate) fn reopen(&self, opening: Arc<LiveOpening>) -> std::io::Result<()> {
        let listener =
            self.runtime.rebind(opening.record().id, grantees(opening.record().owner))?;
        self.sessions.begin(listener, opening, self.now());
        Ok(())
    }

    /// The number of the new attempt. An older open attempt is closed first.
    async fn next_attempt(&self, key: &StepKey, request: &StepRequest) -> Result<i32, Error> {
        let (open, last) = self
            .journal
            .with_live(|live| (live.open_attempt(key).cloned(), live.last_attempt(key)))?;
        let attempt = request.attempt.unwrap_or_else(|| last.saturating_add(1));
        if attempt < 1 {
            return Err(Error::TargetInvalid("attempt counts from 1".to_owned()));
        }
        if let Some(open) = open {
            let record = open.record();
            // The same request may be under way twice: it does not close the step that it has just opened.
            let is_same = record.request.is_some() && record.request == request.named;
            if attempt <= record.attempt || is_same {
                return Err(Error::StepExists(record.attempt));
            }
            self.close_opening(record.id, CloseReason::NewAttempt).await?;
        }
        Ok(attempt)
    }

    fn step_ttl(&self, asked: Option<Duration>) -> Result<Duration, Error> {
        let most = Duration::from_secs(self.limits.max_step_seconds.into());
        let default = Duration::from_secs(self.limits.default_step_seconds.into()).min(most);
        let ttl = asked.unwrap_or(default);
        if (MIN_TTL..=most).contains(&ttl) {
            Ok(ttl)
        } else {
            Err(Error::TtlOutOfRange { what: "ttl", least: MIN_TTL, most })
        }
    }

    fn issue_step(
        &self,
        key: &StepKey,
        now: Timestamp,
        step_end: Timestamp,
    ) -> Result<KeyAndCertificate, Error> {
        let end = step_end.min(now.after(MAX_STEP_CERTIFICATE_LIFE));
        let id = key.spiffe_id();
        Ok(self.authority.issue_client_with_key(&id, random_id()?, now, end)?)
    }

    fn prepare_directory(
        &self,
        opening: &Opening,
        certificate: &KeyAndCertificate,
        env: &[(String, String)],
        opener: u32,
    ) -> Result<std::os::unix::net::UnixListener, Error> {
        let env_text: String =
            env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let files = [
            (CERTIFICATE, certificate.issued.chain_pem.as_str()),
            ("tls.key", &certificate.key_pem),
            ("ca.crt", self.authority.root_pem()),
            ("env", &env_text),
        ];
        self.runtime.prepare(opening.id, grantees(opening.owner), opener, &files).map_err(|error| {
            let why = match error.kind() {
                ErrorKind::InvalidInput => "it has no such user or group in its user namespace",
                ErrorKind::PermissionDenied => {
                    "its runtime directory keeps no access control lists, and it lacks CAP_CHOWN; have --runtime on \
                     a file system that keeps them, such as tmpfs"
                }
                ErrorKind::Unsupported => {
                    "its runtime directory keeps no access control lists, and you are neither root nor its own user; \
                     have --runtime on a file system that keeps them, such as tmpfs"
                }
                _ => return self.directory_unavailable(&error),
            };
            let StepOwner { uid, gid, is_for_anybody, .. } = opening.owner;
            let gid = gid.map_or_else(String::new, |gid| format!(", gid {gid}"));
            let whom = if is_for_anybody { opener } else { uid };
            Error::UidNotPermitted(format!("uid {whom}{gid}: {why}"))
        })
    }

    fn directory_unavailable(&self, error: &std::io::Error) -> Error {
        let directory = self.runtime.path().display().to_string();
        Error::DirectoryUnavailable { directory, cause: error.to_string() }
    }

    fn remove_directory(&self, id: Id) {
        if let Err(error) = self.runtime.remove(id) {
            tracing::error!(opening.id = %id, %error, "a step's directory could not be removed");
        }
    }

    pub(super) fn directory_text(&self, opening: &Opening) -> String {
        let path = self.runtime.step_path(opening.id, opening.owner);
        path.to_string_lossy().into_owned()
    }

    /// The environment for clients that are not ours. It has the paths that the step sees under its mount.
    fn step_env(&self, opening: &Opening) -> Vec<(String, String)> {
        let root = if opening.mount_path == HOST_MOUNT {
            self.directory_text(opening)
        } else {
            opening.mount_path.clone()
        };
        [
            ("KEYHATCH_ADDR", format!("unix://{root}/keyhatch.sock")),
            ("KEYHATCH_AUTHORITY", "localhost".to_owned()),
            ("KEYHATCH_CACERT", format!("{root}/ca.crt")),
            ("KEYHATCH_CLIENT_CERT", format!("{root}/tls.crt")),
            ("KEYHATCH_CLIENT_KEY", format!("{root}/tls.key")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// The key of an executor's step.
fn step_key(
    executor: &Executor,
    workflow: &WorkflowName,
    run: &RunName,
    step: &StepName,
) -> StepKey {
    StepKey {
        executor: executor.name.clone(),
        executor_uid: executor.uid,
        workflow: workflow.clone(),
        run: run.clone(),
        step: step.clone(),
    }
}
