//! Why the broker cannot be reached, or an identity cannot be found, and what whoever meets that can do about it.

use std::io::{Error, ErrorKind};
use std::path::Path;

use super::endpoint::Caller;
use crate::cli::io::failure::{Failure, exit};
use crate::identity::ConnectError;

/// Where systemd looks for units of administrators and packages (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];
const UNIT: &str = "keyhatch.service";

const AS_A_STEP: &str =
    "this is for steps: run it with keyhatch step run, or set KEYHATCH_DIR to a step's directory";
const OWN_IDENTITY: &str = "set KEYHATCH_DIR to the directory of your identity";

/// Who meets it, and what they can do where nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// A step cannot start a broker.
    OfAStep,
    /// This host has our unit.
    Unit,
    /// It has none.
    Serve,
}

impl Remedy {
    fn of(is_step: bool) -> Self {
        let is_installed = || UNIT_DIRECTORIES.iter().any(|at| Path::new(at).join(UNIT).exists());
        match is_step {
            true => Self::OfAStep,
            false if is_installed() => Self::Unit,
            false => Self::Serve,
        }
    }
}

/// The failure of a connection to this socket.
pub(crate) fn failure(error: &ConnectError, socket: &Path, is_step: bool) -> Failure {
    if let Some(failure) = Failure::of_certificates(error) {
        return failure;
    }
    let uid = rustix::process::geteuid().as_raw();
    let socket = socket.display().to_string();
    let text = match error {
        ConnectError::Io(error) => explain(error, &socket, uid, Remedy::of(is_step)),
        other => format!("the broker cannot be reached at {socket} ({other})"),
    };
    Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
}

fn explain(error: &Error, socket: &str, uid: u32, remedy: Remedy) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let way_out = match remedy {
                Remedy::OfAStep => {
                    format!(
                        "the step is another user's; have its executor open it with --uid {uid}"
                    )
                }
                Remedy::Unit | Remedy::Serve => {
                    "run this as the daemon's user or root, or start the daemon with \
                                                 --admin-group and a group of yours"
                        .to_owned()
                }
            };
            format!("uid {uid} may not connect to {socket} ({error}): {way_out}")
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let way_out = match remedy {
                Remedy::OfAStep => {
                    "the broker is not running, or this step has ended; keyhatch doctor on its host tells which"
                }
                Remedy::Unit => {
                    "the broker is not running; start it with: systemctl start keyhatch"
                }
                Remedy::Serve => "the broker is not running; start it with: keyhatch serve",
            };
            format!("nobody listens at {socket} ({error}): {way_out}")
        }
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => format!(
            "the broker hung up at {socket} before it said anything ({error}): the socket is another user's than \
             {uid}, whom this runs as (open the step with --uid {uid}), or the broker has as many connections as it \
             takes; its log says which"
        ),
        ErrorKind::TimedOut => format!(
            "the broker at {socket} takes connections and says nothing ({error}): it hangs; its log says why"
        ),
        ErrorKind::WouldBlock => format!(
            "the broker takes no connections at {socket} ({error}): it is overloaded or hangs; its log says why"
        ),
        ErrorKind::InvalidData => format!(
            "the broker at {socket} and this identity do not go together ({error}): take ca.crt, tls.crt and the \
             socket from one broker"
        ),
        _ => format!(
            "the connection to the broker at {socket} failed ({error}); keyhatch doctor looks for the cause"
        ),
    }
}

/// A failure to find an identity that was looked for on this host, with what to do about it.
pub(crate) fn missing(failure: Failure, caller: Caller, state: &Path) -> Failure {
    let found = std::fs::metadata(state);
    let message = match (caller, found.map_err(|error| error.kind())) {
        (Caller::Step, _) => format!("{}; {AS_A_STEP}", failure.message),
        (_, Err(ErrorKind::NotFound)) => format!(
            "{state} is no state directory; make one with: keyhatch init --state {state}; or {OWN_IDENTITY}",
            state = state.display()
        ),
        _ => format!(
            "{}; {OWN_IDENTITY}, or name the broker's state directory with --state",
            failure.message
        ),
    };
    Failure { message, ..failure }
}

/// The failure to read a file of an identity.
pub(crate) fn unreadable(path: &Path, error: &Error) -> Failure {
    let text = match error.kind() {
        ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid().as_raw();
            format!("uid {uid} may not read {} ({error}): it is another user's", path.display())
        }
        _ => format!("{} cannot be read ({error})", path.display()),
    };
    Failure::new("IDENTITY_MISSING", text, exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_meets_a_stopped_broker_is_told_what_they_can_do() {
        let told = |kind: ErrorKind, remedy| explain(&kind.into(), "/s", 7, remedy);
        for kind in [ErrorKind::NotFound, ErrorKind::ConnectionRefused] {
            assert!(told(kind, Remedy::Unit).ends_with("systemctl start keyhatch"));
            assert!(told(kind, Remedy::Serve).ends_with("keyhatch serve"));
            let step = told(kind, Remedy::OfAStep);
            assert!(step.contains("this step has ended") && !step.contains("serve"), "{step}");
        }
        let kind = ErrorKind::PermissionDenied;
        assert!(told(kind, Remedy::Unit).contains("uid 7 may not connect to /s"));
        assert!(told(kind, Remedy::Serve).contains("--admin-group"));
        assert!(told(kind, Remedy::OfAStep).ends_with("--uid 7"));
        assert!(!told(ErrorKind::InvalidData, Remedy::Serve).contains("start"));
    }
}
