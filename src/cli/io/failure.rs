//! How commands fail: with a reason for scripts, a sentence for people, and an exit code.

use std::fmt;

use tonic::Code;
use tonic_types::StatusExt as _;

use super::text::printable;
use crate::daemon::DaemonError;
use crate::identity::{CertificateRefusal, ConnectError};
use crate::mask::TooLarge;
use crate::model::Invalid;

/// Exit codes; docs/steps.md lists them.
pub mod exit {
    /// The request was refused or failed.
    pub const FAILED: u8 = 1;
    /// The command line or an input file is wrong. clap uses the same.
    pub const USAGE: u8 = 2;
    /// The broker cannot be reached.
    pub const UNREACHABLE: u8 = 3;
    /// `journal verify` found no problem, but was not given the CA of the broker.
    pub const NO_PROOF: u8 = 4;
    /// `exec`, `step run` and `dev` failed before the command was started.
    pub const BEFORE_COMMAND: u8 = 125;
    /// The command cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The command was not found.
    pub const NOT_FOUND: u8 = 127;
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// Stable, for scripts: an error's reason in the API, or one of the CLI's own.
    pub reason: String,
    /// The problem and the next step.
    pub message: String,
    /// Single problems, a line each, printed before the message.
    pub details: Vec<String>,
    /// The process's exit code.
    pub exit_code: u8,
}

impl Failure {
    /// Wrong arguments or input.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("USAGE", message, exit::USAGE)
    }

    /// Wrong input: its only problem, or the number of its problems with `summary` behind it, and each as a detail.
    pub fn of_problems(problems: Vec<String>, summary: &str) -> Self {
        match problems.as_slice() {
            [only] => Self::usage(only),
            all => {
                let message = format!("{} problems{summary}", all.len());
                Self { details: problems, ..Self::usage(message) }
            }
        }
    }

    /// Any other failure of the CLI's own.
    pub fn new(reason: &str, message: impl Into<String>, exit_code: u8) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), details: Vec::new(), exit_code }
    }

    /// A certificate of either side that the other does not accept; none of any other error.
    pub(crate) fn of_certificates(error: &ConnectError) -> Option<Self> {
        let (reason, next) = match error {
            ConnectError::Io(_)
            | ConnectError::Tls(_)
            | ConnectError::OtherHost
            | ConnectError::OtherBroker => return None,
            ConnectError::NotYetValid { .. } => (
                "CERTIFICATE_NOT_YET_VALID",
                "the clock here is behind the broker's; set it, for example with: timedatectl set-ntp true",
            ),
            ConnectError::Expired { .. } => (
                "CERTIFICATE_EXPIRED",
                "if the clock here is right, the daemon could not renew it: see keyhatch doctor and the daemon's log",
            ),
            ConnectError::Rejected(CertificateRefusal::WrongSocket) => (
                "SOCKET_MISMATCH",
                "take socket and certificate from one directory; over TCP an administrator lets an operator in with: \
                     keyhatch operator update NAME --remote",
            ),
            ConnectError::Rejected(CertificateRefusal::Expired) => (
                "SVID_INVALID",
                "if the broker's clock is right, ask an administrator for another, or the executor for another step",
            ),
            ConnectError::Rejected(CertificateRefusal::Unknown) => (
                "SVID_INVALID",
                "ask an administrator for another, or the executor for another step",
            ),
        };
        Some(Self::new(reason, format!("{error}; {next}"), exit::FAILED))
    }

    /// True if another connection may succeed: the broker is away or shuts down, or the connection is older than a
    /// renewed certificate.
    pub fn is_of_the_connection(&self) -> bool {
        ["UNREACHABLE", "DRAINING", "SVID_INVALID"].contains(&self.reason.as_str())
    }

    /// The same failure with another exit code.
    pub fn with_exit_code(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for detail in &self.details {
            writeln!(f, "  {}", printable(detail))?;
        }
        // Scripts read the last line, so the message is one line, whatever a file or name in it holds.
        let message = self.message.replace('\n', " ");
        write!(f, "error: {}: {}", self.reason, printable(&message))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A channel that had to connect again reports its error as a status.
        if let Some(failure) = ConnectError::find_in(&status).and_then(Self::of_certificates) {
            return failure;
        }
        let details = status.get_error_details();
        let mut lines = Vec::new();
        for violation in
            details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default()
        {
            lines.push(format!("{}: {}", violation.field, violation.description));
        }
        let mut message = status.message().to_owned();
        // A problem that the message repeats is left out, and an only problem becomes the message.
        lines.retain(|line: &String| {
            let text = line.split_once(": ").map_or(line.as_str(), |(_, text)| text);
            !message.contains(text)
        });
        if let [only] = lines.as_slice() {
            message = only.trim_start_matches(": ").to_owned();
            lines.clear();
        }
        let reason = match details.error_info() {
            Some(info) => {
                if let Some(id) = info.metadata.get("decision_id")
                    && !message.contains(id.as_str())
                {
                    message = format!("{message} (decision {id})");
                }
                info.reason.clone()
            }
            None if status.code() == Code::Unimplemented => {
                message = "this identity cannot do that: get, send, exec and helper are for steps (keyhatch step \
                           run … -- …), everything else for operators and executors; check KEYHATCH_DIR"
                    .to_owned();
                "WRONG_DOOR".to_owned()
            }
            None => {
                message = format!("the connection to the broker broke off ({message}); try again");
                "UNREACHABLE".to_owned()
            }
        };
        let exit_code = if reason == "UNREACHABLE" { exit::UNREACHABLE } else { exit::FAILED };
        Self { reason, message, details: lines, exit_code }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::usage(invalid.to_string())
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        Self::new("START_FAILED", error.to_string(), exit::FAILED)
    }
}

impl From<TooLarge> for Failure {
    fn from(_: TooLarge) -> Self {
        let text =
            "the values are too large to be masked; give --no-mask to leave the output as it is";
        Self::new("VALUE_UNFIT", text, exit::FAILED)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new("IO", error.to_string(), exit::FAILED)
    }
}
