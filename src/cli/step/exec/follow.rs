//! `exec --follow`: new versions of the command's credentials.
//!
//! Each request has its own Watch. Fields of one connection that come by several Watches are held until all are of one
//! version. Changes that come together are handed on together. If a credential is gone, such as one of a deleted
//! connection, the command keeps the old values, and the Watch is opened again from time to time.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::Common;
use crate::cli::identity::session::{FieldSelection, Session, Versions, requests};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::step::credential::Credential;
use crate::cli::step::watch::CredentialWatch;
use crate::model::Reference;

/// Watches on one connection to the broker, which allows 32 streams.
const WATCHES_PER_CHANNEL: usize = 24;
/// Changes belong together if none of them is later than this after the one before, and at most this long in all.
const QUIET: Duration = Duration::from_millis(200);
const LONGEST_BURST: Duration = Duration::from_secs(2);
/// The pause after a refusal or a failure, which doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The reasons that mean that the step has ended.
const STEP_ENDED: [&str; 3] = ["IDENTITY_MISSING", "SOCKET_MISMATCH", "STEP_NOT_OPEN"];

/// The reaction to a new version, beside writing files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// No other reaction.
    Files,
    /// The command is ended and started again.
    Restart,
    /// The command gets this signal.
    Signal(Signal),
}

const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
];

impl Follow {
    /// Parses `files`, `restart` or a signal's name, with SIG or without.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        match SIGNALS.iter().find(|(known, _)| *known == name) {
            _ if text == "files" => Ok(Self::Files),
            _ if text == "restart" => Ok(Self::Restart),
            Some((_, signal)) => Ok(Self::Signal(*signal)),
            None => {
                Err("there are files, restart, HUP, INT, QUIT, TERM, USR1, USR2 and WINCH".into())
            }
        }
    }

    /// The reaction in words.
    pub fn description(self) -> String {
        match self {
            Self::Files => String::new(),
            Self::Restart => "the command is started again".to_owned(),
            Self::Signal(signal) => {
                let known = SIGNALS.iter().find(|(_, known)| *known == signal);
                format!("the command gets SIG{}", known.map_or("", |(name, _)| name))
            }
        }
    }
}

/// A new version from one Watch, or why there is none.
struct WatchUpdate {
    index: usize,
    reference: Reference,
    outcome: Result<Arc<Credential>, Failure>,
}

/// The credentials of the command, and their new versions.
pub struct Followed {
    updates: UnboundedReceiver<WatchUpdate>,
    /// The newest version of each Watch.
    newest: Vec<Option<Arc<Credential>>>,
    /// The last reason for which each Watch failed, which the user knows.
    ended: Vec<Option<String>>,
    /// The index of the Watch for each selection of the command.
    indices: Vec<usize>,
    /// The credentials that the command has, in the order of its selections.
    current: Vec<Arc<Credential>>,
    /// Set after a failure to hand on new versions.
    retry: Option<Retry>,
}

/// New versions that could not be handed on yet.
struct Retry {
    at: Instant,
    /// The pause before this retry.
    pause: Duration,
    /// The reason, which the user knows.
    reason: String,
}

impl Followed {
    /// Opens the Watches, and waits for the current version of every selection.
    pub async fn begin(
        common: &Common,
        timeout: Duration,
        session: &Arc<Session>,
        selections: &[FieldSelection<'_>],
    ) -> Result<Self, Failure> {
        let (requests, indices) = requests(selections);
        let (sender, updates) = unbounded_channel();
        let (newest, ended) = (vec![None; requests.len()], vec![None; requests.len()]);
        let mut session = Arc::clone(session);
        for (index, request) in requests.into_iter().enumerate() {
            if index % WATCHES_PER_CHANNEL == WATCHES_PER_CHANNEL - 1 {
                session = Arc::new(Session::open(common, timeout).await?);
            }
            let watch = CredentialWatch::new(Arc::clone(&session), request, None);
            tokio::spawn(forward(index, watch, sender.clone()));
        }
        let current = Vec::new();
        let mut followed = Self { updates, newest, ended, indices, current, retry: None };
        loop {
            let gone = || Failure::new("INTERNAL", "nothing is watched any more", exit::FAILED);
            let WatchUpdate { index, outcome, .. } =
                followed.updates.recv().await.ok_or_else(gone)?;
            followed.record(index, outcome?);
            if let Some(all) = followed.consistent() {
                followed.current = all;
                return Ok(followed);
            }
        }
    }

    /// The credentials that the command has, in the order of its selections.
    pub fn current(&self) -> &[Arc<Credential>] {
        &self.current
    }

    /// Waits for credentials with a value that the command does not have. Returns them again after a pause until
    /// [`Followed::handed_on`] is called. Reports to the user which Watches fail.
    pub async fn next(&mut self) -> Vec<Arc<Credential>> {
        loop {
            let at = self.retry.as_ref().map(|retry| retry.at);
            let retry = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let update = tokio::select! {
                Some(update) = self.updates.recv() => Some(update),
                () = retry => None,
            };
            if let Some(update) = update {
                self.take(update);
                self.take_burst().await;
            }
            let is_new = |all: &Vec<Arc<Credential>>| {
                !all.iter().zip(&self.current).all(|(new, old)| new.has_values_of(old))
            };
            // A failure may have handed on a part, so even the old values must be handed on again.
            let next = self.consistent().filter(|all| self.retry.is_some() || is_new(all));
            if let Some(all) = next {
                return all;
            }
            if let Some(retry) = &mut self.retry {
                retry.at = Instant::now() + retry.pause;
            }
        }
    }

    /// Takes the updates that belong together.
    async fn take_burst(&mut self) {
        let burst = async {
            while let Ok(Some(update)) = timeout(QUIET, self.updates.recv()).await {
                self.take(update);
            }
        };
        let _ = timeout(LONGEST_BURST, burst).await;
    }

    /// Records the credentials that the command has now.
    pub fn handed_on(&mut self, all: Vec<Arc<Credential>>) {
        (self.current, self.retry) = (all, None);
    }

    /// Records a failure to hand on the next credentials. Reports each reason once.
    pub fn not_handed_on(&mut self, Failure { reason, message, .. }: &Failure) {
        let why = format!("{reason}: {message}");
        let (pause, before) = match self.retry.take() {
            Some(Retry { pause, reason, .. }) => (LONGEST_PAUSE.min(pause * 2), reason),
            None => (PAUSE, String::new()),
        };
        if why != before {
            say(&format!(
                "a new version is not handed on: {why}; the command keeps what it has, and this is tried again"
            ));
        }
        self.retry = Some(Retry { at: Instant::now() + pause, pause, reason: why });
    }

    fn take(&mut self, WatchUpdate { index, reference, outcome }: WatchUpdate) {
        let failure = match outcome {
            Ok(credential) => return self.record(index, credential),
            Err(failure) => failure,
        };
        let Some(ended) = self.ended.get_mut(index) else { return };
        if ended.as_ref() != Some(&failure.reason) {
            let Failure { reason, message, .. } = &failure;
            say(&format!(
                "{reference} is not followed now: {reason}: {message}; the command keeps what it has"
            ));
            *ended = Some(failure.reason);
        }
    }

    fn record(&mut self, index: usize, credential: Arc<Credential>) {
        if let (Some(newest), Some(ended)) = (self.newest.get_mut(index), self.ended.get_mut(index))
        {
            (*newest, *ended) = (Some(credential), None);
        }
    }

    /// The newest credentials. None if one is missing, or a connection is there in two versions.
    fn consistent(&self) -> Option<Vec<Arc<Credential>>> {
        let mut versions = Versions::default();
        let are_one = self.newest.iter().flatten().all(|credential| versions.agree(credential));
        let all = self.indices.iter().map(|index| self.newest.get(*index).cloned().flatten());
        all.collect::<Option<Vec<_>>>().filter(|_| are_one)
    }
}

/// Forwards the versions of a Watch until the step ends or the receiver is gone.
async fn forward(index: usize, mut watch: CredentialWatch, updates: UnboundedSender<WatchUpdate>) {
    let mut pause = PAUSE;
    loop {
        let outcome = watch.next().await.map(|version| version.credential);
        let refused = outcome.as_ref().err().map(|failure| failure.reason.clone());
        let reference = watch.request().reference.clone();
        if updates.send(WatchUpdate { index, reference, outcome }).is_err() {
            return;
        }
        match refused {
            None => pause = PAUSE,
            Some(reason) if STEP_ENDED.contains(&reason.as_str()) => return,
            Some(_) => {
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reaction_to_a_new_version_is_understood() {
        assert_eq!(Follow::parse("files"), Ok(Follow::Files));
        assert_eq!(Follow::parse("restart"), Ok(Follow::Restart));
        for name in ["HUP", "SIGHUP"] {
            assert_eq!(Follow::parse(name), Ok(Follow::Signal(Signal::HUP)));
        }
        for bad in ["", "hup", "KILL", "SIG", "1", "Restart"] {
            assert!(Follow::parse(bad).is_err(), "{bad}");
        }
    }
}
