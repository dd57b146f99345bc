//! Steps come and go: opened, renewed, closed.
//!
//! Line first, file second: what the journal says of an opening or a renewal precedes the rename that
//! makes it visible, and what it says of a closing precedes the removal.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Broker;
use super::error::Error;
use super::operators::require_executor;
use super::step_directory::{CERTIFICATE, StepFile, StepListener};
use crate::access::Principal;
use crate::identity::KeyAndCertificate;
use crate::journal::{CloseReason, Event, Live, LiveOpening};
use crate::model::limits::{MAX_PATH_BYTES, MAX_STEP_CERTIFICATE_LIFE, MIN_TTL};
use crate::model::{Id, Opening, RunAs, RunName, StepKey, StepName, Timestamp, WorkflowName};
use crate::seal::random_id;

/// Where steps find their directory if their executor says nothing else.
const DEFAULT_MOUNT_PATH: &str = "/run/keyhatch";
/// The step reads its directory where it is.
const HOST_MOUNT: &str = "host";

/// When a renewal is tried again whose certificate may not have reached the step.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// What an executor asks for.
#[derive(Clone, Debug)]
pub struct StepRequest {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The run.
    pub run: RunName,
    /// The step.
    pub step: StepName,
    /// Which try; one more than the last if unset.
    pub attempt: Option<i32>,
    /// On whose behalf it runs.
    pub run_as: BTreeSet<RunAs>,
    /// The step's Unix user; the daemon's own if unset.
    pub uid: Option<u32>,
    /// The longest it may live.
    pub ttl: Option<Duration>,
    /// An absolute path, `host`, or empty for the default.
    pub mount_path: String,
}

/// An open step, as its executor gets it.
#[derive(Debug)]
pub struct OpenedStep {
    /// What was recorded.
    pub opening: Opening,
    /// Whom its certificate speaks for.
    pub spiffe_id: String,
    /// Its directory on this host.
    pub directory: String,
    /// What to put into its environment.
    pub env: Vec<(String, String)>,
}

/// Which step to close.
#[derive(Debug)]
pub enum StepSelector {
    /// By opening.
    Opening(Id),
    /// By names.
    Step(WorkflowName, RunName, StepName),
}

/// What closing did.
#[derive(Debug)]
pub struct ClosedStep {
    /// Whether there was something to close.
    pub closed: bool,
    /// How many leases were revoked.
    pub revoked: usize,
}

/// The sockets that listen, and how to stop each.
pub(super) struct Listeners {
    stops: Mutex<HashMap<Id, CancellationToken>>,
    sender: mpsc::UnboundedSender<StepListener>,
}

impl Listeners {
    pub(super) fn new(sender: mpsc::UnboundedSender<StepListener>) -> Self {
        Self { stops: Mutex::default(), sender }
    }

    fn start(&self, listener: std::os::unix::net::UnixListener, opening: Arc<LiveOpening>) {
        let stop = CancellationToken::new();
        self.stops.lock().insert(opening.record().id, stop.clone());
        // The receiver goes when the daemon drains; then nobody needs the socket.
        let _ = self.sender.send(StepListener { listener, opening, stop });
    }

    fn stop(&self, id: Id) {
        if let Some(stop) = self.stops.lock().remove(&id) {
            stop.cancel();
        }
    }
}

impl Broker {
    /// Opens a step.
    ///
    /// # Errors
    /// See `ExecutorService.OpenStep`.
    pub async fn open_step(
        &self,
        caller: &Principal,
        request: StepRequest,
    ) -> Result<OpenedStep, Error> {
        let (opening, certificate) = self.new_opening(caller, request).await?;
        let env = self.step_env(&opening);
        let prepared = self.prepare_directory(&opening, &certificate, &env);
        let listener = prepared.inspect_err(|_| self.remove_directory(opening.id))?;
        let taken = self
            .journal
            .open_step(self.now(), opening.clone(), |live| self.may_open(live, &opening));
        let live = taken.inspect_err(|_: &Error| self.remove_directory(opening.id))?;
        self.publish_opening(listener, live).await?;
        Ok(OpenedStep {
            spiffe_id: opening.key.spiffe_id().uri(self.authority.domain()),
            directory: self.directory_text(opening.id),
            env,
            opening,
        })
    }

    /// What is to be recorded of a new opening, and the step's first certificate. An older attempt is
    /// closed by then.
    async fn new_opening(
        &self,
        caller: &Principal,
        request: StepRequest,
    ) -> Result<(Opening, KeyAndCertificate), Error> {
        let executor = require_executor(caller)?;
        let now = self.now();
        let ttl = self.step_ttl(request.ttl)?;
        let mount_path = mount_path(&request.mount_path)?;
        let key =
            StepKey { executor, workflow: request.workflow, run: request.run, step: request.step };
        let uid = request.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        // chown(2) takes -1 for "leave it as it is".
        if uid == u32::MAX {
            return Err(Error::UidNotPermitted(uid));
        }
        self.check_scope(&key, &request.run_as)?;
        let attempt = self.next_attempt(&key, request.attempt).await?;
        let expire_time = now.after(ttl);
        let certificate = self.issue_step(&key, now, expire_time)?;
        let opening = Opening {
            id: random_id()?,
            key,
            attempt,
            run_as: request.run_as,
            uid,
            open_time: now,
            expire_time,
            public_key: certificate.public_key.clone(),
            certificates: vec![certificate.issued.pinned.clone()],
            mount_path,
        };
        Ok((opening, certificate))
    }

    /// Makes the directory of an opening that stands in the journal visible, and listens in it.
    async fn publish_opening(
        &self,
        listener: std::os::unix::net::UnixListener,
        live: Arc<LiveOpening>,
    ) -> Result<(), Error> {
        let id = live.record().id;
        let published = self.runtime.publish(id);
        if published.is_ok() {
            self.listeners.start(listener, Arc::clone(&live));
        }
        // Somebody may have closed it before it was all there.
        if live.is_closed() {
            self.listeners.stop(id);
            self.remove_directory(id);
            return Err(Error::ClosedMeanwhile);
        }
        if let Err(error) = published {
            tracing::error!(%error, "a step's directory could not be made");
            self.close_opening(id, CloseReason::OpenFailed).await?;
            return Err(Error::Internal(format!("the step's directory: {error}")));
        }
        Ok(())
    }

    /// Closes a step; acknowledged when the journal is on disk.
    ///
    /// # Errors
    /// See `ExecutorService.CloseStep`.
    pub async fn close_step(
        &self,
        caller: &Principal,
        selector: &StepSelector,
    ) -> Result<ClosedStep, Error> {
        let executor = require_executor(caller)?;
        let found = self.journal.look(|live| match selector {
            StepSelector::Opening(id) => live.opening(*id).cloned(),
            StepSelector::Step(workflow, run, step) => live
                .open_attempt(&StepKey {
                    executor: executor.clone(),
                    workflow: workflow.clone(),
                    run: run.clone(),
                    step: step.clone(),
                })
                .cloned(),
        })?;
        // Another executor's step is as unknown as one that never was.
        match found.filter(|opening| opening.record().key.executor == executor) {
            Some(opening) => self.close_opening(opening.record().id, CloseReason::Executor).await,
            None => self.nothing_to_close().await,
        }
    }

    /// There is nothing to close now; if somebody else is closing it, that is on disk when this returns.
    async fn nothing_to_close(&self) -> Result<ClosedStep, Error> {
        self.journal.synced(self.journal.last()?).await?;
        Ok(ClosedStep { closed: false, revoked: 0 })
    }

    /// What has to be done as time goes by: ends steps and leases, renews certificates, and writes down
    /// how many requests were refused for their rate. Called about once a second.
    pub async fn keep_house(&self) {
        let now = self.now();
        self.journal.expire(now);
        let Ok(openings) = self.journal.look(|live| live.openings().cloned().collect::<Vec<_>>())
        else {
            return tracing::error!("the journal hangs");
        };
        for opening in openings {
            let id = opening.record().id;
            let requests = opening.take_refused();
            let counted = Event::RateRefused { opening: id, requests };
            if requests > 0 && self.journal.append(now, &counted).is_err() {
                tracing::error!(opening.id = %id, requests, "refusals could not be journaled");
            }
            let outcome = if now >= opening.record().expire_time {
                self.close_opening(id, CloseReason::Expired).await.map(drop)
            } else {
                self.renew_if_due(&opening, now)
            };
            if let Err(error) = outcome {
                tracing::error!(opening.id = %id, %error, "a step could not be kept up");
            }
        }
    }

    pub(super) async fn close_opening(
        &self,
        id: Id,
        reason: CloseReason,
    ) -> Result<ClosedStep, Error> {
        let Some((position, revoked)) = self.journal.close(self.now(), id, reason)? else {
            return self.nothing_to_close().await;
        };
        // All of it before the first wait: a caller that goes away leaves nothing half done. A crash
        // before the sync finds the opening without its directory, and closes it again.
        self.listeners.stop(id);
        self.remove_directory(id);
        self.journal.synced(position).await?;
        Ok(ClosedStep { closed: true, revoked: revoked.len() })
    }

    /// Listens again for a step that was open when the daemon went down.
    pub(super) fn reopen(&self, opening: Arc<LiveOpening>) -> std::io::Result<()> {
        let listener = self.runtime.rebind(opening.record().id, opening.record().uid)?;
        self.listeners.start(listener, opening);
        Ok(())
    }

    /// Whether an executor is registered, for this workflow and to assert these principals.
    fn check_scope(&self, key: &StepKey, run_as: &BTreeSet<RunAs>) -> Result<(), Error> {
        let snapshot = self.snapshot();
        let executor = snapshot.catalog.executor(&key.executor).ok_or(Error::Unregistered)?;
        if !executor.scope.admits_workflow(&key.workflow) {
            return Err(Error::WorkflowNotPermitted(key.workflow.clone()));
        }
        match run_as.iter().find(|one| !executor.scope.admits_run_as(one)) {
            Some(one) => Err(Error::RunAsNotPermitted(one.clone())),
            None => Ok(()),
        }
    }

    fn may_open(&self, live: &Live, opening: &Opening) -> Result<(), Error> {
        // Asked again where nothing can change: an executor that was removed meanwhile opens nothing.
        self.check_scope(&opening.key, &opening.run_as)?;
        if live.open_count() >= self.limits.open_steps as usize {
            return Err(Error::TooManySteps(self.limits.open_steps));
        }
        match live.open_attempt(&opening.key) {
            Some(open) => Err(Error::StepExists(open.record().attempt)),
            None => Ok(()),
        }
    }

    /// The number of this attempt; an older one that is open is closed first.
    async fn next_attempt(&self, key: &StepKey, asked: Option<i32>) -> Result<i32, Error> {
        let (open, last) =
            self.journal.look(|live| (live.open_attempt(key).cloned(), live.last_attempt(key)))?;
        let attempt = asked.unwrap_or_else(|| last.saturating_add(1));
        if attempt < 1 {
            return Err(Error::TargetInvalid("attempt counts from 1".to_owned()));
        }
        if let Some(open) = open {
            if attempt <= open.record().attempt {
                return Err(Error::StepExists(open.record().attempt));
            }
            self.close_opening(open.record().id, CloseReason::NewAttempt).await?;
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
            Err(Error::TtlOutOfRange { least: MIN_TTL, most })
        }
    }

    fn issue_step(
        &self,
        key: &StepKey,
        now: Timestamp,
        step_end: Timestamp,
    ) -> Result<KeyAndCertificate, Error> {
        let end = step_end.min(now.after(MAX_STEP_CERTIFICATE_LIFE));
        self.authority
            .issue_client_with_key(&key.spiffe_id(), random_id()?, now, end)
            .map_err(|error| Error::Internal(error.to_string()))
    }

    fn renew_if_due(&self, opening: &LiveOpening, now: Timestamp) -> Result<(), Error> {
        let record = opening.record();
        let Some(newest) = opening.newest_certificate() else { return Ok(()) };
        // The last certificate ends with the step, which is written in whole seconds.
        let is_last = newest.not_after.seconds() >= record.expire_time.seconds();
        let due = newest.not_before.two_thirds_to(newest.not_after);
        let again = newest.not_before.after(RENEW_AGAIN);
        // One that may not have reached the directory is followed by another, but not at every look.
        let is_due =
            if opening.is_certificate_unwritten() { now >= again } else { !is_last && now >= due };
        if !is_due {
            return Ok(());
        }
        let end = record.expire_time.min(now.after(MAX_STEP_CERTIFICATE_LIFE));
        let issued = self
            .authority
            .issue_client(&record.key.spiffe_id(), &record.public_key, random_id()?, now, end)
            .map_err(|error| Error::Internal(error.to_string()))?;
        self.journal.renew_certificate(now, record.id, issued.pinned)?;
        let file =
            StepFile { name: CERTIFICATE, mode: 0o444, content: issued.chain_pem.as_bytes() };
        self.runtime
            .replace_file(record.id, record.uid, &file)
            .map_err(|error| Error::Internal(format!("the step's directory: {error}")))?;
        opening.certificate_written();
        Ok(())
    }

    fn prepare_directory(
        &self,
        opening: &Opening,
        certificate: &KeyAndCertificate,
        env: &[(String, String)],
    ) -> Result<std::os::unix::net::UnixListener, Error> {
        let env_text: String =
            env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let files = [
            StepFile {
                name: CERTIFICATE,
                mode: 0o444,
                content: certificate.issued.chain_pem.as_bytes(),
            },
            StepFile { name: "tls.key", mode: 0o400, content: certificate.key_pem.as_bytes() },
            StepFile { name: "ca.crt", mode: 0o444, content: self.authority.root_pem().as_bytes() },
            StepFile { name: "env", mode: 0o444, content: env_text.as_bytes() },
        ];
        self.runtime.prepare(opening.id, opening.uid, &files).map_err(|error| {
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                Error::UidNotPermitted(opening.uid)
            } else {
                Error::Internal(format!("the step's directory: {error}"))
            }
        })
    }

    fn remove_directory(&self, id: Id) {
        if let Err(error) = self.runtime.remove(id) {
            tracing::error!(opening.id = %id, %error, "a step's directory could not be removed");
        }
    }

    pub(super) fn directory_text(&self, id: Id) -> String {
        self.runtime.step_path(id).to_string_lossy().into_owned()
    }

    /// The variables for clients that are not ours; the step sees the paths under its mount.
    fn step_env(&self, opening: &Opening) -> Vec<(String, String)> {
        let root = if opening.mount_path == HOST_MOUNT {
            self.directory_text(opening.id)
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

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Where the step will find its directory.
fn mount_path(asked: &str) -> Result<String, Error> {
    match asked {
        "" => Ok(DEFAULT_MOUNT_PATH.to_owned()),
        HOST_MOUNT => Ok(HOST_MOUNT.to_owned()),
        path if path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !has_control(path) => {
            Ok(path.trim_end_matches('/').to_owned())
        }
        other => Err(Error::MountPathInvalid(other.chars().take(64).collect())),
    }
}
