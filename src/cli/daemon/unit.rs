//! `keyhatch config systemd-unit`: systemd units for this program.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::io::failure::Failure;
use crate::cli::io::output;
use crate::cli::io::output::say;
use crate::config::{AdminListen, admin_listen, metrics_address};

const UNIT: &str = include_str!("packaging/keyhatch.service");
const RENEWAL: &str = include_str!("packaging/keyhatch-renew.service");
const TIMER: &str = include_str!("packaging/keyhatch-renew.timer");
/// The program in the packaged units.
const PROGRAM: &str = "/usr/local/bin/keyhatch";
/// The state directory in the packaged units.
const STATE: &str = "/var/lib/keyhatch";
/// The directory in which systemd makes state directories.
const STATES: &str = "/var/lib";
const STATE_DIRECTORY: &str = "StateDirectory=keyhatch\nStateDirectoryMode=0700\n";
/// What the closed unit says about itself, in its name and above its settings.
const CLOSED: &str = " (closed: it connects to nobody)";
const WHY_CLOSED: &str = "\
# This unit is closed: the daemon serves Unix sockets only and connects to nobody. It sees no network, its own loopback
# apart. For connections that are minted upstream, and for a KEK command that asks a KMS, print this with --network; for
# metrics, with --metrics ADDRESS; for operators over TCP, with --admin-listen ADDRESS --admin-name HOST.
";
const WHY_OPEN: &str = "\
# The daemon serves Unix sockets, and connects to the upstreams of minted connections. Its configuration says where to
# ([egress]).
";
const WHY_LOOPBACK: &str = "\
# This unit is closed but for loopback: the daemon serves Unix sockets and its metrics, and connects to nobody else.
";
const WHY_LISTENS: &str = "\
# The daemon serves Unix sockets, and operators over TCP. A firewall says from where they reach it. It connects to nobody
# unless its configuration has upstreams.
";
const NO_NETWORK: &str = "PrivateNetwork=yes\nRestrictAddressFamilies=AF_UNIX\n";
const NETWORK: &str = "PrivateNetwork=no\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n";
const LOOPBACK: &str = "IPAddressDeny=any\nIPAddressAllow=localhost\n";
/// The directories that ProtectHome and PrivateTmp hide from the daemon.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Arguments of `config systemd-unit`.
#[derive(clap::Args)]
pub struct SystemdUnit {
    /// Have the daemon serve metrics at this loopback address, such as 127.0.0.1:9464. It gets this host's loopback and
    /// no other network.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Have the daemon serve operators over TCP at this address, such as 0.0.0.0:7443. It gets the network.
    #[arg(long, value_name = "ADDRESS", requires = "admin_name")]
    admin_listen: Option<String>,
    /// A host by which operators reach that address; may be given more than once.
    #[arg(long, value_name = "HOST", requires = "admin_listen")]
    admin_name: Vec<String>,
    /// Give the daemon the network, for connections that are minted upstream and for a KEK command that asks a KMS. Without it
    /// the unit is closed: nothing is minted.
    #[arg(long)]
    network: bool,
    /// Write the unit into this directory, such as /etc/systemd/system, and beside it keyhatch-renew.service and
    /// keyhatch-renew.timer, which renew certificates that are due once a day.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The directory of an operator's or executor's identity to renew beside those of the state directory; may be given
    /// more than once.
    #[arg(long, value_name = "DIR", requires = "out")]
    renew: Vec<PathBuf>,
}

impl SystemdUnit {
    pub(crate) fn run(&self, state: Option<&Path>) -> Result<(), Failure> {
        let program = std::env::current_exe()?;
        let state = plain(state.unwrap_or(Path::new(STATE)))?;
        warn_about(&program, Path::new(&state));
        // A path that systemd would read differently is left to the user.
        let program = plain(&program).unwrap_or_else(|_| PROGRAM.to_owned());
        let metrics = self.metrics.as_deref().map(metrics_address).transpose();
        let metrics = metrics.map_err(|error| Failure::usage(error.to_string()))?;
        let operators = admin_listen(self.admin_listen.clone(), &self.admin_name);
        let operators = operators.map_err(|error| Failure::usage(error.to_string()))?;
        let unit = daemon(&program, &state, metrics, operators.as_ref(), self.network);
        let Some(directory) = &self.out else { return output::write(unit.as_bytes()) };
        let renewed = self.renew.iter().map(|path| plain(path)).collect::<Result<Vec<_>, _>>()?;
        for (name, text) in [
            ("keyhatch.service", unit),
            ("keyhatch-renew.service", renewal(&program, &state, &renewed)),
            ("keyhatch-renew.timer", TIMER.to_owned()),
        ] {
            let path = directory.join(name);
            let written = std::fs::write(&path, text);
            written.map_err(|error| {
                Failure::usage(format!(
                    "--out: {}: {error}; name a directory to write to",
                    path.display()
                ))
            })?;
            output::line(&path.display().to_string())?;
        }
        Ok(())
    }
}

fn daemon(
    program: &str,
    state: &str,
    metrics: Option<SocketAddr>,
    operators: Option<&AdminListen>,
    has_network: bool,
) -> String {
    let directory = match Path::new(state).strip_prefix(STATES) {
        Ok(below) if below != Path::new("") => {
            STATE_DIRECTORY.replace("keyhatch", &below.to_string_lossy())
        }
        _ => format!("ReadWritePaths={state}\n"),
    };
    let (closed, network) = match (has_network, operators, metrics) {
        (true, ..) => ("", format!("{WHY_OPEN}{NETWORK}")),
        (false, Some(_), _) => ("", format!("{WHY_LISTENS}{NETWORK}")),
        (false, None, Some(_)) => (CLOSED, format!("{WHY_LOOPBACK}{NETWORK}{LOOPBACK}")),
        (false, None, None) => (CLOSED, format!("{WHY_CLOSED}{NO_NETWORK}")),
    };
    let mut option = metrics.map(|address| format!(" --metrics {address}")).unwrap_or_default();
    if let Some(AdminListen { address, hosts }) = operators {
        option.push_str(&format!(" --admin-listen {address}"));
        hosts.iter().for_each(|host| option.push_str(&format!(" --admin-name {host}")));
    }
    let begin = format!("ExecStart={PROGRAM} serve");
    UNIT.replace(STATE_DIRECTORY, &directory)
        .replace(CLOSED, closed)
        .replace(&format!("{WHY_CLOSED}{NO_NETWORK}"), &network)
        .replace(&begin, &format!("{begin}{option}"))
        .replace(STATE, state)
        .replace(PROGRAM, program)
}

fn renewal(program: &str, state: &str, others: &[String]) -> String {
    let mut text = String::new();
    for line in RENEWAL.split_inclusive('\n') {
        text.push_str(line);
        for other in others {
            if line.starts_with("ExecStart=") {
                text.push_str(&format!("ExecStart={PROGRAM} renew --if-due {other}\n"));
            } else if line.starts_with("ReadWritePaths=") {
                text.push_str(&format!("ReadWritePaths={other}\n"));
            }
        }
    }
    text.replace(STATE, state).replace(PROGRAM, program)
}

/// An absolute path that systemd reads as it is.
fn plain(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match absolute.to_str().filter(|path| path.chars().all(is_plain)) {
        Some(path) => Ok(path.trim_end_matches('/').to_owned()),
        None => Err(Failure::usage(format!(
            "{}: a path in a unit has letters, digits and / . _ - + only; choose another",
            absolute.display()
        ))),
    }
}

/// Warns about paths that the daemon of the unit cannot use.
fn warn_about(program: &Path, state: &Path) {
    let install = format!("install -m 755 {} {PROGRAM}", program.display());
    if let Some(above) = hiding(program) {
        say(&format!(
            "warning: {} is below {above}, which the unit hides from the daemon: {install}, and print the unit with \
             {PROGRAM}",
            program.display()
        ));
    } else if let Some(closed) = closed_to_others(program) {
        say(&format!(
            "warning: {} is closed to other users, and the daemon is one: {install}, and print the unit with {PROGRAM}",
            closed.display()
        ));
    }
    if let Some(above) = hiding(state) {
        say(&format!(
            "warning: the state directory {} is below {above}, which the unit hides from the daemon; choose another \
             with --state",
            state.display()
        ));
    }
}

fn hiding(path: &Path) -> Option<&'static str> {
    HIDDEN.into_iter().find(|above| path.starts_with(above))
}

/// The program itself or a directory above it, if its mode keeps other users from executing the program.
fn closed_to_others(program: &Path) -> Option<&Path> {
    let is_closed = |path: &&Path| {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 == 0)
    };
    program.ancestors().find(is_closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_the_unit_hides_is_found() {
        for path in ["/root/.cargo/bin/keyhatch", "/home/al/keyhatch", "/tmp/k", "/run/user/0/k"] {
            assert!(hiding(Path::new(path)).is_some(), "{path}");
        }
        for path in ["/usr/local/bin/keyhatch", "/opt/home/keyhatch", "/rootless/keyhatch"] {
            assert_eq!(hiding(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_program_that_others_cannot_execute_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("keyhatch");
        std::fs::write(&program, "").unwrap();
        let set = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        set(&program, 0o755);
        set(directory.path(), 0o700);
        assert_eq!(closed_to_others(&program), Some(directory.path()));
        set(directory.path(), 0o711);
        assert_eq!(closed_to_others(&program), None);
        set(&program, 0o750);
        assert_eq!(closed_to_others(&program), Some(program.as_path()));
    }
}
