//! Why the broker cannot be reached or an identity cannot be found, and what the user can do about it.

use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::cli::io::failure::{Failure, exit};
use crate::identity::{BrokerAddress, CertificateRefusal, ConnectError, RemoteBroker};

/// The directories of units of administrators and packages (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];
const UNIT: &str = "keyhatch.service";

const OWN_IDENTITY: &str = "set KEYHATCH_DIR to the directory of your identity";

/// Advice about a broker that does not listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartAdvice {
    /// A step cannot start a broker.
    Step,
    /// The packaged unit is installed.
    Unit,
    /// The unit is not installed.
    Serve,
}

impl StartAdvice {
    fn of(is_step: bool) -> Self {
        let is_installed = || UNIT_DIRECTORIES.iter().any(|at| Path::new(at).join(UNIT).exists());
        match is_step {
            true => Self::Step,
            false if is_installed() => Self::Unit,
            false => Self::Serve,
        }
    }
}

/// Explains why a connection to this address failed.
pub(super) fn failure(error: &ConnectError, address: &BrokerAddress, is_step: bool) -> Failure {
    if let BrokerAddress::Remote(broker) = address {
        return of_tcp(error, broker);
    }
    if let Some(failure) = Failure::of_certificates(error) {
        return failure;
    }
    let uid = rustix::process::geteuid().as_raw();
    let socket = address.to_string();
    let text = match error {
        ConnectError::Io(error) => explain(error, &socket, uid, StartAdvice::of(is_step)),
        other => format!("the broker cannot be reached at {socket} ({other})"),
    };
    Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
}

/// Explains why a connection over TCP failed.
fn of_tcp(error: &ConnectError, broker: &RemoteBroker) -> Failure {
    let RemoteBroker { address, id } = broker;
    let refused = |reason, text| Failure::new(reason, text, exit::FAILED);
    match error {
        ConnectError::Rejected(CertificateRefusal::WrongSocket) => refused(
            "REMOTE_DENIED",
            format!(
                "{address} takes no certificate of an executor, nor of an operator who may not connect over TCP; an \
                 administrator lets an operator in with: keyhatch operator update NAME --remote"
            ),
        ),
        ConnectError::OtherHost => refused(
            "BROKER_UNKNOWN",
            format!(
                "the certificate at {address} does not name {}; the broker's administrator gives that name to \
                 keyhatch serve --admin-name, or you take another bundle: keyhatch context add FILE",
                address.host
            ),
        ),
        ConnectError::OtherBroker => refused(
            "BROKER_UNKNOWN",
            format!(
                "another broker than {id} answers at {address}; ask its administrator which of the two is right, and \
                 take a bundle of that one: keyhatch context add FILE"
            ),
        ),
        ConnectError::Io(error) => {
            Failure::new("UNREACHABLE", explain_tcp(error, &address.to_string()), exit::UNREACHABLE)
        }
        other => Failure::of_certificates(other).unwrap_or_else(|| {
            let text = format!("the broker cannot be reached at {address} ({other})");
            Failure::new("UNREACHABLE", text, exit::UNREACHABLE)
        }),
    }
}

fn explain_tcp(error: &Error, address: &str) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "nobody listens at {address} ({error}): the broker is not running, or without --admin-listen; its \
             administrator sees with: keyhatch status"
        ),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!(
                "{address} does not answer ({error}): look whether this machine may reach it, for firewalls and VPNs"
            )
        }
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => format!(
            "{address} closed the connection before it answered ({error}): it has its most connections or handshakes, \
             of you or of all; try again, or have its administrator read its log"
        ),
        ErrorKind::InvalidData => format!(
            "{address} is not the broker of this context, or speaks no TLS ({error}); take another bundle of its \
             administrator: keyhatch context add FILE"
        ),
        _ => {
            format!("the connection to {address} failed ({error}); check the name and the network")
        }
    }
}

fn explain(error: &Error, socket: &str, uid: u32, advice: StartAdvice) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let next = match advice {
                StartAdvice::Step => format!(
                    "the step is another user's; have its executor open it with --uid {uid}"
                ),
                StartAdvice::Unit | StartAdvice::Serve => {
                    "run this as the daemon's user or root, or start the daemon \
                     with --admin-group and a group of yours"
                        .to_owned()
                }
            };
            format!("uid {uid} may not connect to {socket} ({error}): {next}")
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let next = match advice {
                StartAdvice::Step => {
                    "the broker is not running, or this step has ended; keyhatch doctor on its host tells which"
                }
                StartAdvice::Unit => {
                    "the broker is not running; start it with: systemctl start keyhatch"
                }
                StartAdvice::Serve => "the broker is not running; start it with: keyhatch serve",
            };
            format!("nobody listens at {socket} ({error}): {next}")
        }
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => format!(
            "the broker closed the connection to {socket} before it answered ({error}): either this socket is for \
             another user than {uid}, which this command runs as (open the step with --uid {uid}), or the broker has \
             its most connections open; its log says which"
        ),
        ErrorKind::TimedOut => format!(
            "the broker at {socket} accepts connections and does not answer ({error}): it hangs; its log says why"
        ),
        ErrorKind::WouldBlock => format!(
            "the broker accepts no connections at {socket} ({error}): it is overloaded or hangs; its log says why"
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

/// Adds what the user can do about an identity that this host does not have.
pub(super) fn missing(failure: Failure, state: &Path) -> Failure {
    let found = std::fs::metadata(state);
    let message = match found.map_err(|error| error.kind()) {
        Err(ErrorKind::NotFound) => format!(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_broker_comes_with_advice() {
        let explained = |kind: ErrorKind, advice| explain(&kind.into(), "/s", 7, advice);
        for kind in [ErrorKind::NotFound, ErrorKind::ConnectionRefused] {
            assert!(explained(kind, StartAdvice::Unit).ends_with("systemctl start keyhatch"));
            assert!(explained(kind, StartAdvice::Serve).ends_with("keyhatch serve"));
            let step = explained(kind, StartAdvice::Step);
            assert!(step.contains("this step has ended") && !step.contains("serve"), "{step}");
        }
        let kind = ErrorKind::PermissionDenied;
        assert!(explained(kind, StartAdvice::Unit).contains("uid 7 may not connect to /s"));
        assert!(explained(kind, StartAdvice::Serve).contains("--admin-group"));
        assert!(explained(kind, StartAdvice::Step).ends_with("--uid 7"));
        assert!(!explained(ErrorKind::InvalidData, StartAdvice::Serve).contains("start"));
    }
}
