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
use crate::cli::step::mask::mask_values;
use crate::cli::step::served::Served;
use crate::mask::Masks;

/// A prepared command.
pub struct Running {
    pub command: Vec<OsString>,
    pub environment: Environment,
    pub files: CommandFiles,
    /// Its new versions. None without --follow.
    pub following: Option<(Follow, Followed)>,
    /// The time that the command gets to end before a restart.
    pub stop_timeout: Duration,
    pub served: Option<Served>,
    pub masks: Arc<Masks>,
    pub streams: Vec<CommandStream>,
    pub signals: ForwardedSignals,
}

impl Running {
    /// Runs the command to its end, and returns its exit code.
    pub async fn run(mut self) -> Result<u8, Failure> {
        let is_alone = self.files.is_empty() && self.served.is_none() && self.streams.is_empty();
        if is_alone && self.following.is_none() {
            // Nothing has to outlive the start of the command, so this process becomes the command.
            let set_up = |command: &mut Command| {
                self.environment.apply(command);
                Ok(())
            };
            return child::start(&self.command, set_up, |command| Err(command.exec()));
        }
        let outputs = MaskedOutputs::open(&self.streams, &self.masks);
        let outputs = outputs.map_err(|failure| failure.with_exit_code(exit::BEFORE_COMMAND))?;
        let code = self.supervise(&outputs).await?;
        // The reader of the output may be slow. A signal is for this process now.
        let rest = tokio::task::spawn_blocking(|| outputs.finish());
        tokio::select! {
            _ = rest => Ok(code),
            signal = self.signals.ending() => {
                // Exits without waiting for the thread, but removes the files.
                drop((self.files, self.served));
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

    /// Starts the command, hands on new versions and restarts it for them. Returns its exit code.
    async fn supervise(&mut self, outputs: &MaskedOutputs) -> Result<u8, Failure> {
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
                    Ok(_) => followed.handed_on(new),
                    Err(failure) => followed.not_handed_on(failure),
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

    /// Gives new values to the command, and reports that. Returns true if the command must be restarted.
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
            new.split_at_checked(self.environment.credentials()).unwrap_or_default();
        let has_variables = !self.environment.has_values_of(for_env);
        // The environment comes first: a value that no variable can hold must not change a file.
        let environment = self.environment.with(for_env, self.served.as_ref())?;
        let rewritten = self.files.rewrite(for_files)?;
        // A command that is ending is not started again.
        let is_restart = how == Follow::Restart && !self.signals.is_ending;
        let reacts = match how {
            Follow::Files => false,
            Follow::Restart => is_restart && (has_variables || !rewritten.is_empty()),
            Follow::Signal(_) => !rewritten.is_empty(),
        };
        let mut changes: Vec<_> =
            rewritten.iter().map(|path| format!("{} is written anew", path.display())).collect();
        match (has_variables, is_restart) {
            (true, true) => {
                self.environment = environment;
                changes.push("variables are set anew".to_owned());
            }
            (true, false) => changes.push("variables stay as they are".to_owned()),
            (false, _) => {}
        }
        if reacts {
            changes.push(how.description());
        }
        if !changes.is_empty() {
            say(&format!("a new version: {}", changes.join(", ")));
        }
        if let (true, Follow::Signal(signal)) = (reacts, how) {
            // The command may have ended meanwhile.
            let _ = kill_process(command, signal);
        }
        Ok(reacts && is_restart)
    }
}

/// Waits for the next credentials. Waits forever without --follow.
async fn next(following: &mut Option<(Follow, Followed)>) -> (Follow, Vec<Arc<Credential>>) {
    match following {
        Some((how, followed)) => (*how, followed.next().await),
        None => std::future::pending().await,
    }
}
