//! `exec --follow`: new versions of what the command has.
//!
//! Each reference is a Watch of its own. What of a connection comes by several of them is held until all are of one
//! version, and what is changed at once is handed on at once. Where nothing can be had any more, such as of a connection
//! that is deleted, the command keeps what it has, and that may come back is asked now and then.

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

/// How many Watches one connection carries beside the requests of others: 32 streams.
const MOST_ON_A_CONNECTION: usize = 24;
/// For so long nothing follows what belongs together, and this is as long as it is waited for.
const QUIET: Duration = Duration::from_millis(200);
const MOST_UNREST: Duration = Duration::from_secs(2);
/// After how long what is refused, or was not handed on, is tried again: twice as long each time, up to the second.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// With these the step itself is over.
const OVER: [&str; 3] = ["IDENTITY_MISSING", "SOCKET_MISMATCH", "STEP_NOT_OPEN"];

/// What is done at a new version, beside writing files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    Files,
    /// The command is ended and begun again.
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
    /// `files`, `restart` or a signal's name, with SIG or without.
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

    /// What is done, in words.
    pub fn done(self) -> String {
        match self {
            Self::Files => String::new(),
            Self::Restart => "the command is begun again".to_owned(),
            Self::Signal(signal) => {
                let known = SIGNALS.iter().find(|(_, known)| *known == signal);
                format!("the command gets SIG{}", known.map_or("", |(name, _)| name))
            }
        }
    }
}

/// What came of one Watch.
struct WatchUpdate {
    place: usize,
    reference: Reference,
    outcome: Result<Arc<Credential>, Failure>,
}

/// All that a command has been given, and what comes after that.
pub struct Followed {
    told: UnboundedReceiver<WatchUpdate>,
    /// The newest of each Watch.
    newest: Vec<Option<Arc<Credential>>>,
    /// Why a Watch does not give any more, as it was said.
    ended: Vec<Option<String>>,
    /// What of that each part of the command's is.
    places: Vec<usize>,
    /// What the command has.
    given: Vec<Arc<Credential>>,
    /// What comes of a failure to give it something else.
    retry: Option<Retry>,
}

/// A new version that the command could not be given yet.
struct Retry {
    at: Instant,
    /// How long it was waited for that.
    pause: Duration,
    /// Why, as it was said.
    said: String,
}

impl Followed {
    /// Begins with the current version of everything.
    ///
    /// # Errors
    /// If something cannot be had.
    pub async fn begin(
        common: &Common,
        timeout: Duration,
        session: &Arc<Session>,
        wants: &[FieldSelection<'_>],
    ) -> Result<Self, Failure> {
        let (requests, places) = requests(wants);
        let (sender, told) = unbounded_channel();
        let (newest, ended) = (vec![None; requests.len()], vec![None; requests.len()]);
        let mut session = Arc::clone(session);
        for (place, request) in requests.into_iter().enumerate() {
            if place % MOST_ON_A_CONNECTION == MOST_ON_A_CONNECTION - 1 {
                session = Arc::new(Session::open(common, timeout).await?);
            }
            let watch = CredentialWatch::new(Arc::clone(&session), request, None);
            tokio::spawn(tell(place, watch, sender.clone()));
        }
        let mut followed = Self { told, newest, ended, places, given: Vec::new(), retry: None };
        loop {
            let gone = || Failure::new("INTERNAL", "nothing is watched any more", exit::FAILED);
            let WatchUpdate { place, outcome, .. } = followed.told.recv().await.ok_or_else(gone)?;
            followed.note(place, outcome?);
            if let Some(all) = followed.agreed() {
                followed.given = all;
                return Ok(followed);
            }
        }
    }

    /// What the command has, in the order in which it was wanted.
    pub fn given(&self) -> &[Arc<Credential>] {
        &self.given
    }

    /// The next of which any value differs from what the command has; again, after a pause, until [`Followed::took`] hears
    /// of it. Says what does not come any more.
    pub async fn next(&mut self) -> Vec<Arc<Credential>> {
        loop {
            let at = self.retry.as_ref().map(|retry| retry.at);
            let again = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let told = tokio::select! {
                Some(told) = self.told.recv() => Some(told),
                () = again => None,
            };
            if let Some(told) = told {
                self.take(told);
                self.settle().await;
            }
            let is_new = |all: &Vec<Arc<Credential>>| {
                !all.iter().zip(&self.given).all(|(new, old)| new.has_values_of(old))
            };
            // After a failure a part may have been handed on, so even what the command had is to be.
            let agreed = self.agreed().filter(|all| self.retry.is_some() || is_new(all));
            if let Some(all) = agreed {
                return all;
            }
            if let Some(retry) = &mut self.retry {
                retry.at = Instant::now() + retry.pause;
            }
        }
    }

    /// Takes what belongs together.
    async fn settle(&mut self) {
        let settled = async {
            while let Ok(Some(told)) = timeout(QUIET, self.told.recv()).await {
                self.take(told);
            }
        };
        // What never rests is as it is.
        let _ = timeout(MOST_UNREST, settled).await;
    }

    /// Notes that the command has this now.
    pub fn took(&mut self, all: Vec<Arc<Credential>>) {
        (self.given, self.retry) = (all, None);
    }

    /// Notes that the next could not be handed on, and says why, once.
    pub fn not_taken(&mut self, Failure { reason, message, .. }: &Failure) {
        let why = format!("{reason}: {message}");
        let (pause, before) = match self.retry.take() {
            Some(Retry { pause, said, .. }) => (LONGEST_PAUSE.min(pause * 2), said),
            None => (PAUSE, String::new()),
        };
        if why != before {
            say(&format!(
                "a new version is not handed on: {why}; the command keeps what it has, and it is tried again"
            ));
        }
        self.retry = Some(Retry { at: Instant::now() + pause, pause, said: why });
    }

    fn take(&mut self, WatchUpdate { place, reference, outcome }: WatchUpdate) {
        let failure = match outcome {
            Ok(credential) => return self.note(place, credential),
            Err(failure) => failure,
        };
        let Some(ended) = self.ended.get_mut(place) else { return };
        if ended.as_ref() != Some(&failure.reason) {
            let Failure { reason, message, .. } = &failure;
            say(&format!(
                "{reference} is not followed now: {reason}: {message}; the command keeps what it has"
            ));
            *ended = Some(failure.reason);
        }
    }

    fn note(&mut self, place: usize, credential: Arc<Credential>) {
        if let (Some(newest), Some(ended)) = (self.newest.get_mut(place), self.ended.get_mut(place))
        {
            (*newest, *ended) = (Some(credential), None);
        }
    }

    /// The newest of everything, if all is there and nothing is of two versions.
    fn agreed(&self) -> Option<Vec<Arc<Credential>>> {
        let mut versions = Versions::default();
        let are_one = self.newest.iter().flatten().all(|credential| versions.agree(credential));
        let all = self.places.iter().map(|place| self.newest.get(*place).cloned().flatten());
        all.collect::<Option<Vec<_>>>().filter(|_| are_one)
    }
}

/// Tells what a Watch gives until the step is over, or nobody listens.
async fn tell(place: usize, mut watch: CredentialWatch, listener: UnboundedSender<WatchUpdate>) {
    let mut pause = PAUSE;
    loop {
        let outcome = watch.next().await.map(|delivery| delivery.credential);
        let refused = outcome.as_ref().err().map(|failure| failure.reason.clone());
        let told = WatchUpdate { place, reference: watch.request().reference.clone(), outcome };
        if listener.send(told).is_err() {
            return;
        }
        match refused {
            None => pause = PAUSE,
            Some(reason) if OVER.contains(&reason.as_str()) => return,
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
    fn what_is_done_at_a_new_version_is_understood() {
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
