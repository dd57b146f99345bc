//! The daemon's configuration: flags, environment, file, defaults, in this order.
//!
//! clap reads flags and environment. This room joins them with the file and the defaults. No other room reads the
//! configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::egress::{EgressTable, InvalidRule, Rules};
use crate::identity::IssuerUrl;
use crate::model::{HostName, Invalid, JournalMode, Limits};
use crate::sys::{DirectoryError, Trust, group_id, input};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An entry of the table `egress` cannot be used.
    #[error("the table egress of the configuration file {}: {fault}", .path.display())]
    Egress {
        /// The file.
        path: PathBuf,
        /// The entry and its fault.
        fault: InvalidRule,
    },
    /// The URL of the issuer has another form.
    #[error(
        "the table issuer of the configuration file {}: url = {url:?}: {}", .path.display(), IssuerUrl::FORM
    )]
    IssuerUrl {
        /// The file.
        path: PathBuf,
        /// The URL.
        url: String,
    },
    /// A limit is zero.
    #[error("the configuration file {}: {limit} must be at least 1", .path.display())]
    ZeroLimit {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: &'static str,
    },
    /// The table `kek` cannot be used.
    #[error("the table kek of the configuration file {}: {message}", .path.display())]
    Kek {
        /// The file.
        path: PathBuf,
        /// The fault.
        message: String,
    },
    /// The admin group does not exist.
    #[error(
        "the admin group {0:?} is neither a group of /etc/group nor a group id; of a directory service's group give the \
         id, which is the third part of what this prints: getent group NAME"
    )]
    GroupUnknown(String),
    /// The address for operators over TCP has another form.
    #[error(
        "the address {0:?} of --admin-listen is not an IP address of this host and a port, such as 10.0.0.5:7443, \
         [2001:db8::5]:7443 or, for all addresses, [::]:7443"
    )]
    AdminListen(String),
    /// A name of `--admin-name` is malformed.
    #[error("--admin-name: {0}")]
    AdminName(#[from] Invalid),
    /// Operators over TCP need both an address and a name.
    #[error(
        "--admin-listen and --admin-name go together: the address at which operators are served over TCP, and the host \
         by which they reach it, such as --admin-listen [::]:7443 --admin-name broker.example.com"
    )]
    AdminListenAlone,
    /// The metrics address is not a loopback address.
    #[error(
        "the metrics address {0:?} must be a loopback address with a port, such as 127.0.0.1:9464 or [::1]:9464: \
         everybody who can connect can read the metrics"
    )]
    MetricsAddress(String),
    /// The file cannot be read.
    #[error("the configuration file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not well formed.
    #[error("the configuration file {}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The fault and its line.
        message: String,
    },
}

/// The table `kek` of the file: the source of the KEK, of which one is given.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KekTable {
    /// A file that holds the KEK.
    pub file: Option<PathBuf>,
    /// A program that prints the KEK, and its arguments.
    pub command: Option<Vec<String>>,
    /// A file that holds the passphrase of the KEK.
    pub passphrase_file: Option<PathBuf>,
}

/// The table `issuer` of the file: the broker as an issuer of tokens that name a step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct IssuerTable {
    /// The issuer's URL, below which its documents are hosted.
    url: Option<String>,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    state: Option<PathBuf>,
    runtime: Option<PathBuf>,
    shared_parent: Vec<PathBuf>,
    admin_group: Option<String>,
    admin_listen: Option<String>,
    admin_name: Vec<String>,
    journal: Option<JournalMode>,
    metrics: Option<String>,
    kek: Option<KekTable>,
    egress: EgressTable,
    issuer: IssuerTable,
    limits: Limits,
}

/// The values of flags and environment.
#[derive(Debug, Default)]
pub struct Given {
    /// `--state`, `KEYHATCH_STATE`
    pub state: Option<PathBuf>,
    /// `--runtime`, `KEYHATCH_RUNTIME`
    pub runtime: Option<PathBuf>,
    /// `--shared-parent`, `KEYHATCH_SHARED_PARENT`
    pub shared_parents: Vec<PathBuf>,
    /// `--admin-group`, `KEYHATCH_ADMIN_GROUP`
    pub admin_group: Option<String>,
    /// `--admin-listen`, `KEYHATCH_ADMIN_LISTEN`
    pub admin_listen: Option<String>,
    /// `--admin-name`, `KEYHATCH_ADMIN_NAME`
    pub admin_names: Vec<String>,
    /// `--journal`, `KEYHATCH_JOURNAL`
    pub journal: Option<JournalMode>,
    /// `--metrics`, `KEYHATCH_METRICS`
    pub metrics: Option<String>,
    /// `--expect-head`
    pub expect_head: Option<u64>,
    /// `--config`
    pub file: Option<PathBuf>,
}

/// Where operators are served over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminListen {
    /// The address to listen at.
    pub address: SocketAddr,
    /// The hosts by which operators reach it; at least one.
    pub hosts: Vec<HostName>,
}

/// The checked configuration of a daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub state: PathBuf,
    /// The runtime directory, where sockets are made.
    pub runtime: PathBuf,
    /// Directories above these two whose other writers are trusted.
    pub shared_parents: Vec<PathBuf>,
    /// The id of the group that may connect to the admin socket, besides the daemon's own user.
    pub admin_group: Option<u32>,
    /// Where operators are served over TCP; `None` if they are not.
    pub admin_listen: Option<AdminListen>,
    /// When a decision on the step door is answered.
    pub journal: JournalMode,
    /// The loopback address that metrics are served at; `None` for no metrics.
    pub metrics: Option<SocketAddr>,
    /// The least change that the store must have, if one is expected.
    pub expect_head: Option<u64>,
    /// The source of the KEK, if the file names one.
    pub kek: Option<KekTable>,
    /// Where the daemon may connect to.
    pub egress: Rules,
    /// The URL of the issuer of tokens that name a step; `None` if the broker is no issuer.
    pub issuer: Option<IssuerUrl>,
    /// The limits.
    pub limits: Limits,
}

impl Config {
    /// The default configuration with these directories.
    pub fn in_directories(state: PathBuf, runtime: PathBuf) -> Self {
        Self {
            state,
            runtime,
            shared_parents: Vec::new(),
            admin_group: None,
            admin_listen: None,
            journal: JournalMode::default(),
            metrics: None,
            expect_head: None,
            kek: None,
            egress: Rules::default(),
            issuer: None,
            limits: Limits::default(),
        }
    }

    /// Joins flags and environment with the file and the defaults.
    ///
    /// # Errors
    /// If the file cannot be read, is malformed or has an invalid value; if the group does not exist; if the metrics address
    /// is not a loopback address.
    pub fn load(given: Given) -> Result<Self, ConfigError> {
        let trust = Trust::of_process(&given.shared_parents);
        let read = given.file.as_deref().map(|path| read(path, &trust)).transpose()?;
        let (file, fault) = read.unwrap_or_default();
        let admin_group = given.admin_group.or(file.admin_group);
        let metrics = given.metrics.or(file.metrics);
        let names = if given.admin_names.is_empty() { file.admin_name } else { given.admin_names };
        let admin_listen = admin_listen(given.admin_listen.or(file.admin_listen), &names)?;
        let is_given = !given.shared_parents.is_empty();
        let state = given.state.or(file.state).unwrap_or_else(default_state);
        if let (Some(kek), Some(path)) = (&file.kek, &given.file) {
            check_kek(kek, path, &state, fault)?;
        }
        let path = given.file.unwrap_or_default();
        let issuer = file.issuer.url.map(|url| match IssuerUrl::parse(&url) {
            Some(url) => Ok(url),
            None => Err(ConfigError::IssuerUrl { path: path.clone(), url }),
        });
        let issuer = issuer.transpose()?;
        let egress = file.egress.rules().map_err(|fault| ConfigError::Egress { path, fault })?;
        Ok(Self {
            state,
            runtime: given.runtime.or(file.runtime).unwrap_or_else(default_runtime),
            shared_parents: if is_given { given.shared_parents } else { file.shared_parent },
            admin_group: admin_group.as_deref().map(group).transpose()?,
            admin_listen,
            journal: given.journal.or(file.journal).unwrap_or_default(),
            metrics: metrics.as_deref().map(metrics_address).transpose()?,
            expect_head: given.expect_head,
            kek: file.kek,
            egress,
            issuer,
            limits: file.limits,
        })
    }
}

/// Checks that a table `kek` may decide the source of the KEK. Users who can write the state directory must not decide it,
/// nor users who could have written the file: `fault` is why they could.
fn check_kek(
    kek: &KekTable,
    path: &Path,
    state: &Path,
    fault: Option<String>,
) -> Result<(), ConfigError> {
    let kek_error = |message: String| ConfigError::Kek { path: path.to_owned(), message };
    let failed = |message: &str| kek_error(message.to_owned());
    let said = [kek.file.is_some(), kek.command.is_some(), kek.passphrase_file.is_some()];
    if said.into_iter().filter(|said| *said).count() != 1 {
        return Err(failed("give one of file, command and passphrase_file"));
    }
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if canonical(path).starts_with(canonical(state)) {
        return Err(failed("the file must be outside of the state directory; move it"));
    }
    fault.map_or(Ok(()), |message| Err(kek_error(message)))
}

/// Every key of the file; keys of the tables `kek`, `egress` and `issuer` as `kek.file`.
pub fn file_keys() -> Vec<String> {
    let keys = |value: serde_json::Result<serde_json::Value>| {
        let value = value.unwrap_or_default();
        let keys = value.as_object().map(|keys| keys.keys().cloned().collect::<Vec<_>>());
        keys.unwrap_or_default()
    };
    let tables = [
        ("kek", keys(serde_json::to_value(KekTable::default()))),
        ("egress", keys(serde_json::to_value(EgressTable::default()))),
        ("issuer", keys(serde_json::to_value(IssuerTable::default()))),
    ];
    let mut all = keys(serde_json::to_value(ConfigFile::default()));
    all.retain(|key| tables.iter().all(|(table, _)| key != table));
    let below = |(table, keys): (&str, Vec<String>)| {
        keys.into_iter().map(move |key| format!("{table}.{key}")).collect::<Vec<_>>()
    };
    all.extend(tables.into_iter().flat_map(below));
    all
}

/// The values and the meaning of a key that no flag explains.
pub fn meaning(key: &str) -> Option<(&'static str, &'static str)> {
    match key {
        "egress.allow" => Some((
            "CIDR, HOST, http://HOST:PORT",
            "destinations that the daemon may connect to although they are denied by default: loopback, link-local and \
             metadata addresses, this host's own, and private ones where a step sees the reply. http://HOST:PORT alone \
             permits plain HTTP",
        )),
        "egress.deny" => Some((
            "CIDR, HOST",
            "destinations that the daemon never connects to, whatever is allowed",
        )),
        "egress.proxy" => Some((
            "http://HOST:PORT",
            "the proxy through which the hosts of egress.allow are reached; all others are dialled directly, because \
             a proxy resolves names by itself",
        )),
        "issuer.url" => Some((
            "https://HOST/PATH",
            "the broker is an issuer of tokens that name a step (OpenID Connect). keyhatch issuer write prints its \
             documents, which are hosted below this URL, by any web server",
        )),
        _ => None,
    }
}

/// The default of a key of the file, in words; `None` if it has no default.
pub fn default_in_words(key: &str) -> Option<String> {
    let of_user =
        |root: &str, base: &str, name: &str| format!("`{root}`; `{base}/{name}` if not root");
    match key {
        "state" => Some(of_user(ROOT_STATE, "$XDG_STATE_HOME", NAME)),
        "runtime" => Some(of_user(ROOT_RUNTIME, "$XDG_RUNTIME_DIR", RUNTIME_NAME)),
        "journal" => {
            let mode = serde_json::to_value(JournalMode::default()).ok()?;
            Some(format!("`{}`", mode.as_str()?))
        }
        _ => None,
    }
}

/// Parses the address and the names for operators over TCP.
///
/// # Errors
/// If either is malformed, or given without the other.
pub fn admin_listen(
    address: Option<String>,
    names: &[String],
) -> Result<Option<AdminListen>, ConfigError> {
    let mut hosts = Vec::new();
    for name in names {
        let host = HostName::parse(name)?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    match address {
        None if hosts.is_empty() => Ok(None),
        Some(text) if !hosts.is_empty() => {
            let address = text.parse().map_err(|_| ConfigError::AdminListen(text))?;
            Ok(Some(AdminListen { address, hosts }))
        }
        _ => Err(ConfigError::AdminListenAlone),
    }
}

/// A group by its name or id.
fn group(text: &str) -> Result<u32, ConfigError> {
    // chown(2) takes -1 for "leave it as it is".
    let is_one = |gid: &u32| *gid != u32::MAX;
    let id = text.parse().ok().or_else(|| group_id(text)).filter(is_one);
    id.ok_or_else(|| ConfigError::GroupUnknown(text.to_owned()))
}

/// Parses a loopback address with a port.
///
/// # Errors
/// [`ConfigError::MetricsAddress`]
pub fn metrics_address(text: &str) -> Result<SocketAddr, ConfigError> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.ok_or_else(|| ConfigError::MetricsAddress(text.to_owned()))
}

/// Reads the file. Returns it with the reason why another user could have written it, if one could. The file stays open, so
/// that the file that was checked is the file that is read.
fn read(path: &Path, trust: &Trust) -> Result<(ConfigFile, Option<String>), ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let (file, fault) = match trust.open_file(path) {
        Err(DirectoryError::Io { source, .. }) => return Err(failed(source)),
        Err(fault) => (input::open(path).map_err(failed)?, Some(fault.to_string())),
        Ok(file) => match trust.is_in_our_hands(&file.metadata().map_err(failed)?) {
            true => (file, None),
            false => (file, Some(WRITTEN_BY_OTHERS.to_owned())),
        },
    };
    let text = input::open_file(file, MAX_FILE_BYTES).and_then(input::text).map_err(failed)?;
    Ok((parse(path, &text)?, fault))
}

/// The longest configuration, in bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;
const WRITTEN_BY_OTHERS: &str =
    "another user could have written it; make root or the daemon's user its owner, with mode 0644";

fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = line.matches('\n').count() + 1;
        let message = format!("line {line}: {}", error.message());
        ConfigError::Syntax { path: path.to_owned(), message }
    })?;
    match file.limits.zeros().first() {
        Some(&limit) => Err(ConfigError::ZeroLimit { path: path.to_owned(), limit }),
        None => Ok(file),
    }
}

const NAME: &str = "keyhatch";
const RUNTIME_NAME: &str = "keyhatch-broker";
const ROOT_STATE: &str = "/var/lib/keyhatch";
const ROOT_RUNTIME: &str = "/run/keyhatch-broker";

/// `/var/lib/keyhatch`, or under the user's state directory (XDG Base Directory) when not root.
pub fn default_state() -> PathBuf {
    if is_root() {
        return PathBuf::from(ROOT_STATE);
    }
    let base = directory("XDG_STATE_HOME");
    let home = || directory("HOME").map(|home| home.join(".local/state"));
    base.or_else(home).unwrap_or_else(|| PathBuf::from("/var/lib")).join(NAME)
}

/// `/run/keyhatch-broker`, or under the user's runtime directory (XDG Base Directory) when not root.
pub fn default_runtime() -> PathBuf {
    let base = if is_root() { None } else { directory("XDG_RUNTIME_DIR") };
    base.unwrap_or_else(|| PathBuf::from("/run")).join(RUNTIME_NAME)
}

/// The directory of a user's own identity, below the configuration directory (XDG Base Directory).
pub fn default_identity() -> Option<PathBuf> {
    let home = || directory("HOME").map(|home| home.join(".config"));
    directory("XDG_CONFIG_HOME").or_else(home).map(|base| base.join(NAME))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn directory(variable: &str) -> Option<PathBuf> {
    // XDG Base Directory: "all paths must be absolute … if relative, consider the path invalid".
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_egress_is_checked_when_the_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyhatch.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::load(Given { file: Some(path.clone()), ..Given::default() })
        };
        let example = include_str!("../examples/egress.toml");
        let proxy = Some("proxy.internal:3128".to_owned());
        assert_eq!(load(example).unwrap().egress.summary(), (3, 1, proxy));
        assert_eq!(load("").unwrap().egress.summary(), (0, 0, None));
        for (text, named) in [
            ("[egress]\nallow = [\"a.example\", \"10.0.0.1/8\"]\n", "allow = \"10.0.0.1/8\": "),
            ("[egress]\ndeny = [\"http://a.example:80\"]\n", "deny = \"http://a.example:80\": "),
            ("[egress]\nproxy = \"a.example\"\n", "proxy = \"a.example\": "),
            ("[egress]\nallowed = []\n", "line 2: "),
        ] {
            let told = load(text).unwrap_err().to_string();
            assert!(told.contains(named) && told.contains("keyhatch.toml"), "{told}");
        }
    }

    #[test]
    fn metrics_are_served_on_this_host_only() {
        for good in ["127.0.0.1:9464", "127.1.2.3:0", "[::1]:9464"] {
            assert!(metrics_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "9464",
            ":9464",
            "127.0.0.1",
            "localhost:9464",
            "0.0.0.0:9464",
            "[::]:9464",
            "10.0.0.1:9464",
            "[::ffff:127.0.0.1]:9464",
        ] {
            assert!(metrics_address(bad).is_err(), "{bad}");
        }
    }
}
