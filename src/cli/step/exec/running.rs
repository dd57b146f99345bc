//! The command from its start to its end.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, kill_process};

use super::environment::Environment;
use super::files::CommandFiles;
use super::follow::{Follow, Followed};
use super::output::MaskedOutputs;
use super::streams::CommandStream;
use crate::cli::io::child;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::io::signals::ForwardedSignals;
use crate::cli::step::credential::Credential;
use crate::cli::step::listener::Listener;
use crate::cli::step::mask::{Masks, mask_values};

/// What the command is run with, and what outlives its start.
pub struct Running {
    /// It, and its arguments.
    pub command: Vec<OsString>,
    /// Its variables.
    pub environment: Environment,
    /// Its files.
    pub files: CommandFiles,
    /// What is done at a new version of either, if anything.
    pub following: Option<(Follow, Followed)>,
    /// How long it may take to end before it is begun again.
    pub stop_timeout: Duration,
    /// What it is served.
    pub listener: Option<Listener>,
    /// What is masked,
    pub masks: Arc<Masks>,
    /// and where.
    pub streams: Vec<CommandStream>,
    /// What this process is sent.
    pub signals: ForwardedSignals,
}

impl Running {
    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be begun.
    pub async fn run(mut self) -> Result<u8, Failure> {
        let is_alone = self.files.is_empty() && self.listener.is_none() && self.streams.is_empty();
        if is_alone && self.following.is_none() {
            // Nothing has to outlive the start of the command, so this process becomes it.
            let set_up = |command: &mut Command| {
                self.environment.apply(command);
                Ok(())
            };
            return child::start(&self.command, set_up, |command| Err(command.exec()));
        }
        let outputs = MaskedOutputs::open(&self.streams, &self.masks);
        let outputs = outputs.map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
        let code = self.attend(&outputs).await?;
        // Whoever reads it may take long; a signal means this process now.
        let rest = tokio::task::spawn_blocking(|| outputs.finish());
        tokio::select! {
            _ = rest => Ok(code),
            signal = self.signals.ending() => {
                // The files go, the thread does not: it would be waited for.
                drop(self.files);
                std::process::exit(128 + signal?.as_raw())
            }
        }
    }

    fn start(&self, outputs: &MaskedOutputs) -> Result<Pid, Failure> {
        let set_up = |command: &mut Command| {
            self.environment.apply(command);
            outputs.attach(command)
        };
        let child = child::start(&self.command, set_up, Command::spawn)?;
        Ok(Pid::from_child(&child))
    }

    /// Begins the command, and again where that follows from a new version. Gives its exit code.
    async fn attend(&mut self, outputs: &MaskedOutputs) -> Result<u8, Failure> {
        let mut command = self.start(outputs)?;
        loop {
            let (how, new) = tokio::select! {
                biased;
                code = self.signals.pass_on(command) => return code,
                next = next(&mut self.following) => next,
            };
            let handed_on = self.hand_on(how, command, &new);
            if let Some((_, followed)) = &mut self.following {
                match &handed_on {
                    Ok(_) => followed.took(new),
                    Err(failure) => followed.not_taken(failure),
                }
            }
            if handed_on.is_ok_and(|is_restart| is_restart) {
                match self.signals.end(command, self.stop_timeout).await? {
                    Some(code) => return Ok(code),
                    None => command = self.start(outputs)?,
                }
            }
        }
    }

    /// Gives the command what is new, and says so. Gives whether the command is to be begun again.
    fn hand_on(
        &mut self,
        how: Follow,
        command: Pid,
        new: &[Arc<Credential>],
    ) -> Result<bool, Failure> {
        let masked = (!self.streams.is_empty()).then_some(self.masks.as_ref());
        for credential in new {
            mask_values(masked, credential)?;
        }
        let (for_env, for_files) =
            new.split_at_checked(self.environment.parts()).unwrap_or_default();
        let has_variables = !self.environment.is_of(for_env);
        // First: what cannot be a variable changes no file.
        let environment = self.environment.with(for_env, self.listener.as_ref())?;
        let rewritten = self.files.rewrite(for_files)?;
        // What was told to end is not begun again.
        let is_restart = how == Follow::Restart && !self.signals.is_ending;
        let is_told = match how {
            Follow::Files => false,
            Follow::Restart => is_restart && (has_variables || !rewritten.is_empty()),
            Follow::Signal(_) => !rewritten.is_empty(),
        };
        let mut said: Vec<_> =
            rewritten.iter().map(|path| format!("{} is written anew", path.display())).collect();
        match (has_variables, is_restart) {
            (true, true) => {
                self.environment = environment;
                said.push("variables are set anew".to_owned());
            }
            (true, false) => said.push("variables stay as they are".to_owned()),
            (false, _) => {}
        }
        if is_told {
            said.push(how.done());
        }
        if !said.is_empty() {
            say(&format!("a new version: {}", said.join(", ")));
        }
        if let (true, Follow::Signal(signal)) = (is_told, how) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(command, signal);
        }
        Ok(is_told && is_restart)
    }
}

/// What is given next, if anything is followed.
async fn next(following: &mut Option<(Follow, Followed)>) -> (Follow, Vec<Arc<Credential>>) {
    match following {
        Some((how, followed)) => (*how, followed.next().await),
        None => std::future::pending().await,
    }
}
