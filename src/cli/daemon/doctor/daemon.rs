//! The daemon, by its answers.

use std::path::Path;

use tokio::net::UnixStream;
use tonic::transport::Channel;

use super::certificates::SET_CLOCK;
use super::diagnosis::{Diagnosis, Remedy};
use super::endings;
use super::limits::{self, Granted};
use super::site::Site;
use super::socket::admin_socket;
use crate::cli::admin::issuer;
use crate::cli::daemon::healthcheck::{ANSWER_LIMIT, is_serving, silence};
use crate::cli::identity::endpoint::{Endpoint, Place};
use crate::cli::io::failure::Failure;
use crate::cli::io::pages;
use crate::cli::io::text::short_name;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

const DAEMON: &str = "daemon";
const VERSION: &str = "version";
const RECORDS: &str = "records";
const TCP: &str = "operators over TCP";
const RELEASE: &str = "release";
const ISSUER: &str = "issuer";
const REFRESH_TOKENS: &str = "refresh tokens";
const RESTART: &str = "restart the daemon";
/// The filter of connections that release what the broker could mint from.
const LONG_LIVED: &str = "release = stored AND mintable = true";
/// The filter of connections whose refresh token is of no use.
const REAUTHORIZE: &str = "reauthorize = true";
/// At most this many of them are named.
const MAX_NAMED: usize = 10;

/// The answers of a daemon.
struct DaemonAnswer {
    is_serving: bool,
    /// None if the identity is not an operator's.
    status: Option<pb::Status>,
    /// The connections that release what the broker could mint from.
    stored: Vec<String>,
    /// None if the identity is not an operator's.
    issuer: Option<pb::Issuer>,
    /// The connections whose refresh token is of no use.
    unusable: Vec<String>,
    /// The endings of credentials that are not over.
    endings: Vec<pb::Ending>,
}

/// A daemon that has a socket.
pub(super) struct DaemonReport {
    granted: Option<Granted>,
    answer: Result<DaemonAnswer, Diagnosis>,
}

impl DaemonReport {
    /// Asks the daemon. None if there is no socket.
    pub(super) async fn request(site: &Site) -> Option<Self> {
        let socket = admin_socket(site);
        if !socket.exists() {
            return None;
        }
        let granted = tokio::time::timeout(ANSWER_LIMIT, granted_at(&socket)).await.ok().flatten();
        let answer = match tokio::time::timeout(ANSWER_LIMIT, ask(site)).await {
            Err(_) => Err(Diagnosis::fail(DAEMON, silence(), RESTART)),
            Ok(Err(failure)) => {
                let remedy = match failure.reason.as_str() {
                    "CERTIFICATE_NOT_YET_VALID" => Remedy::from(SET_CLOCK),
                    _ if granted.is_some() => Remedy::from(RESTART),
                    _ => site.keyhatch("serve"),
                };
                Err(Diagnosis::fail(DAEMON, failure.message, remedy))
            }
            Ok(Ok(answer)) => Ok(answer),
        };
        Some(Self { granted, answer })
    }

    /// The status of the daemon, if an operator asked.
    pub(super) fn status(&self) -> Option<&pb::Status> {
        self.answer.as_ref().ok()?.status.as_ref()
    }
}

pub(super) fn check(site: &Site, report: Option<DaemonReport>) -> Vec<Diagnosis> {
    let Some(DaemonReport { granted, answer }) = report else {
        // The check of the socket reports that it is missing.
        return limits::check(site, Granted::here(), None);
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(diagnosis) => {
            let limits = limits::check(site, granted.unwrap_or_else(Granted::here), None);
            return std::iter::once(diagnosis).chain(limits).collect();
        }
    };
    let status = answer.status.as_ref();
    let mut diagnoses = vec![state(&answer)];
    diagnoses.extend(status.map(|status| version(&status.version)));
    diagnoses.extend(status.and_then(newer));
    diagnoses.extend(status.and_then(over_tcp));
    diagnoses.extend(long_lived(&answer.stored));
    diagnoses.extend(answer.issuer.as_ref().and_then(of_issuer));
    diagnoses.extend(reauthorization_required(&answer.unusable));
    diagnoses.extend(endings::check(&answer.endings, site.now));
    diagnoses.extend(status.and_then(endings::check_search));
    let memory = status.map(|status| status.key_memory.as_str());
    diagnoses.extend(limits::check(site, granted.unwrap_or_else(Granted::here), memory));
    diagnoses
}

async fn ask(site: &Site) -> Result<DaemonAnswer, Failure> {
    let found = Endpoint::find_any(Place { state: Some(&site.state), ..Place::default() });
    // The check of the environment reports variables that name no identity.
    let endpoint = found.or_else(|_| Endpoint::of_host(&site.state))?;
    let channel = endpoint.reach().await?;
    let is_serving = is_serving(channel.clone()).await?;
    let mut client = SystemServiceClient::new(channel.clone());
    let status = client.get_status(pb::GetStatusRequest {}).await;
    let (stored, unusable) =
        (names(&channel, LONG_LIVED).await, names(&channel, REAUTHORIZE).await);
    let status = status.ok().map(tonic::Response::into_inner);
    let endings = pages::endings(&channel, None).await.unwrap_or_default();
    let issuer = issuer::ask(channel).await.ok();
    Ok(DaemonAnswer { is_serving, status, stored, unusable, issuer, endings })
}

/// The connections that a filter admits; empty if the identity may not list them.
async fn names(channel: &Channel, filter: &str) -> Vec<String> {
    let wanted = pb::ListConnectionsRequest { filter: filter.to_owned(), ..Default::default() };
    let found = pages::connections(channel, wanted).await.unwrap_or_default();
    found.iter().map(|one| short_name(&one.name).to_owned()).collect()
}

/// The limits of the process that listens here. None if nothing listens, or the system does not report them.
async fn granted_at(socket: &Path) -> Option<Granted> {
    let stream = UnixStream::connect(socket).await.ok()?;
    Granted::of_process(stream.peer_cred().ok()?.pid()?)
}

fn state(answer: &DaemonAnswer) -> Diagnosis {
    let state = answer.status.as_ref().map_or("serving", |status| status.state.as_str());
    match (state, answer.is_serving) {
        ("quarantined", _) => Diagnosis::fail(
            DAEMON,
            "was restored from a backup, and resolves nothing until that is confirmed",
            Remedy::Run("keyhatch restore --confirm".to_owned()),
        ),
        (_, true) => Diagnosis::ok(DAEMON, "answers, and serves"),
        (_, false) => Diagnosis::fail(
            DAEMON,
            format!("answers, and does not serve ({state}): journal or store cannot be written"),
            "see to the disk as above and in the daemon's log, then restart it",
        ),
    }
}

/// Records of a newer version, which the daemon does not use. None if there are none.
fn newer(status: &pb::Status) -> Option<Diagnosis> {
    let names = status.newer.join(", ");
    let text = format!("a newer keyhatch has written {names}: the daemon uses nothing of it");
    (!names.is_empty()).then(|| Diagnosis::warn(RECORDS, text, "run the newer keyhatch"))
}

/// The listener for operators over TCP. None if there is no listener, and no operator needs one.
fn over_tcp(status: &pb::Status) -> Option<Diagnosis> {
    let operators = status.remote_operators;
    match status.tcp_listen_address.as_str() {
        "" if operators == 0 => None,
        "" => {
            let text = format!(
                "{operators} operator(s) may connect over TCP, and the daemon does not listen for them"
            );
            let advice = "start it with --admin-listen and --admin-name, or take the right away: keyhatch operator update \
                          NAME --no-remote";
            Some(Diagnosis::warn(TCP, text, advice))
        }
        address => {
            let names = status.tcp_names.join(", ");
            let text = format!("{address}, as {names}, for {operators} operator(s)");
            Some(Diagnosis::ok(TCP, text))
        }
    }
}

/// Connections that hand a long-lived credential to steps although the broker could mint a short-lived one. None if there
/// are none.
fn long_lived(stored: &[String]) -> Option<Diagnosis> {
    let text = format!("steps get the stored, long-lived credential of {}", first_of(stored));
    let advice = format!(
        "where steps can use a short-lived one instead: keyhatch connection update REF --release minted; all: keyhatch \
         connection list --filter '{LONG_LIVED}'"
    );
    (!stored.is_empty()).then(|| Diagnosis::warn(RELEASE, text, advice))
}

/// The issuer of tokens that name a step. None if there is no issuer, and no connection needs one.
fn of_issuer(issuer: &pb::Issuer) -> Option<Diagnosis> {
    let needing: Vec<_> =
        issuer.connections.iter().map(|name| short_name(name).to_owned()).collect();
    if !issuer.url.is_empty() {
        let current = issuer.keys.iter().find(|key| key.state() == pb::IssuerKeyState::Current);
        let id = current.map(|key| key.id.as_str()).unwrap_or_default();
        return Some(Diagnosis::ok(ISSUER, format!("{}; key {id} signs", issuer.url)));
    }
    let text = format!("the broker is no issuer, and steps get nothing of {}", first_of(&needing));
    let advice = "set url in the table issuer of the daemon's configuration, restart the daemon, and host what this \
                  writes: keyhatch issuer write --out DIR";
    (!needing.is_empty()).then(|| Diagnosis::warn(ISSUER, text, advice))
}

/// Connections whose refresh token is of no use. None if there are none.
fn reauthorization_required(unusable: &[String]) -> Option<Diagnosis> {
    let text =
        format!("steps get no credential of {}: REAUTHORIZATION_REQUIRED", first_of(unusable));
    let advice = "keyhatch connection get REF says why; sign in at the upstream again, and write the new refresh_token";
    (!unusable.is_empty()).then(|| Diagnosis::fail(REFRESH_TOKENS, text, advice))
}

/// The first of these names, and how many more there are.
fn first_of(names: &[String]) -> String {
    let (first, more) = names.split_at_checked(MAX_NAMED).unwrap_or((names, &[]));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{more}", first.join(", "))
}

fn version(theirs: &str) -> Diagnosis {
    let ours = env!("CARGO_PKG_VERSION");
    match theirs == ours {
        true => Diagnosis::ok(VERSION, format!("{ours}, the daemon's and this program's")),
        false => Diagnosis::warn(
            VERSION,
            format!("the daemon is {theirs}, this program {ours}"),
            "restart the daemon with this program, or use the daemon's",
        ),
    }
}
