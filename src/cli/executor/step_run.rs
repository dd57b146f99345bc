//! `keyhatch step run`: opens a step, runs a command as the step, and closes it.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use tonic::transport::Channel;

use super::open_step::{NewStep, StepUid, close, open, to_message};
use super::placeholder::{MOUNT_PATH, fill_in, is_for_a_container};
use crate::cli::identity::endpoint::Endpoint;
use crate::cli::identity::retry::RETRY_TIME;
use crate::cli::io::child;
use crate::cli::io::endings::pending_lines;
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::say;
use crate::cli::io::signals::ForwardedSignals;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::executor_service_client::ExecutorServiceClient;
use crate::sys::OtherUser;

/// Arguments of `step run`.
#[derive(clap::Args)]
pub struct StepRun {
    #[command(flatten)]
    step: NewStep,
    /// Run the command as the user of --uid, with that user's groups and environment. Takes root. The command shares
    /// this terminal, and may type into it if the kernel still allows that (TIOCSTI): keep root's terminal from the
    /// command of another user, by `setsid -w keyhatch step run …` or from a service.
    #[arg(long, requires = "uid")]
    switch: bool,
    /// With --switch, a variable that the command inherits; may be given more than once. Other variables are inherited
    /// only if they are TERM, COLORTERM, LANG, LANGUAGE, LC_*, TZ, CI or KEYHATCH_HELPER_*.
    #[arg(long, requires = "switch", value_name = "NAME")]
    preserve_env: Vec<OsString>,
    /// The command. {mount} in it becomes DIRECTORY:/run/keyhatch:ro, for `docker run -v {mount}`, and
    /// {env-file} the file with the step's variables, for `docker run --env-file {env-file}`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The time between two reports that the step still runs.
const HEARTBEAT: Duration = Duration::from_secs(60);

impl StepRun {
    pub(crate) async fn run(self, endpoint: &Endpoint) -> Result<u8, Failure> {
        let before = |failure: Failure| failure.with_exit_code(exit::BEFORE_COMMAND);
        let user = self.user().map_err(before)?;
        let mount_path = if is_for_a_container(&self.command) { MOUNT_PATH } else { "host" };
        let request = pb::OpenStepRequest {
            heartbeat: Some(to_message(HEARTBEAT)),
            ..self.step.request(mount_path.to_owned(), endpoint)
        };
        let channel = endpoint.connect().await.map_err(before)?;
        let opened = open(channel.clone(), request).await.map_err(before)?;
        let user = user.as_ref().map(|user| (user, self.preserve_env.as_slice()));
        let ran = tokio::select! {
            ran = run_as(&opened, user, &self.command) => ran,
            never = send_heartbeats(channel, opened.name.clone()) => match never {},
        };
        let request = pb::CloseStepRequest { name: opened.name.clone(), ..Default::default() };
        let close = async |channel| close(channel, request.clone()).await;
        // The exit code of the command matters more. A step that cannot be closed ends by itself.
        match endpoint.with_retries(RETRY_TIME, close).await {
            Ok(closed) if closed.closed => {
                pending_lines(&closed.pending_endings).iter().for_each(|line| say(line));
            }
            Ok(_) => say(
                "warning: the step had ended before its command did: its ttl was over, or it was closed",
            ),
            Err(failure) => say(&format!(
                "warning: {} could not be closed, and stays open until {}: {}: {}",
                opened.name,
                moment(opened.expire_time.as_ref()),
                failure.reason,
                failure.message
            )),
        }
        ran
    }

    /// The user for the command. None if it is the user of this process.
    fn user(&self) -> Result<Option<OtherUser>, Failure> {
        match (self.switch, self.step.uid) {
            (false, _) => Ok(None),
            (true, Some(StepUid::Only(uid))) if rustix::process::geteuid().is_root() => {
                Ok(Some(OtherUser::find(uid)?))
            }
            (true, Some(StepUid::Only(_))) => {
                Err(Failure::usage("--switch takes root; without it, run this as the step's user"))
            }
            (true, _) => Err(Failure::usage("--switch becomes one user: name it with --uid")),
        }
    }
}

/// Runs a command as an open step, and as another user if one is given, who inherits the named variables.
pub(crate) async fn run_as(
    opened: &pb::OpenedStep,
    user: Option<(&OtherUser, &[OsString])>,
    words: &[OsString],
) -> Result<u8, Failure> {
    let words: Vec<_> = words.iter().map(|word| fill_in(word, &opened.directory)).collect();
    let directory = match opened.mount_path.as_str() {
        "host" => &opened.directory,
        mounted => mounted,
    };
    let set_up = |command: &mut Command| {
        if let Some((user, preserved)) = user {
            child::become_user(command, user, preserved);
        }
        child::become_step(command, directory, opened.env.iter());
        Ok(())
    };
    let mut signals = ForwardedSignals::listen()?;
    let start = || child::start(&words, set_up, Command::spawn);
    let child = match user {
        Some((user, _)) => user.work_as(start)??,
        None => start()?,
    };
    signals.pass_on(Pid::from_child(&child)).await
}

/// Reports repeatedly that the step still runs. Failures are ignored, because the downtime of a daemon does not count.
async fn send_heartbeats(channel: Channel, opening: String) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let request = pb::RenewStepRequest { name: opening.clone(), ..Default::default() };
        let _ = ExecutorServiceClient::new(channel.clone()).renew_step(request).await;
    }
}
