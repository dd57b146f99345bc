//! `keyhatch status`

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cli::Common;
use crate::cli::identity::endpoint::{Caller, Endpoint};
use crate::cli::identity::retry::RetryDeadline;
use crate::cli::io::endings::lost_search_text;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::print;
use crate::cli::io::text::properties;
use crate::cli::io::time::{moment, second};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    // Without retries: the status is that of this moment.
    let endpoint = Endpoint::find(Caller::Operator, common.place())?;
    let channel = endpoint.connect_within(&mut RetryDeadline::after(Duration::ZERO)).await?;
    let status = SystemServiceClient::new(channel).get_status(pb::GetStatusRequest {}).await?;
    let status = status.into_inner();
    print(common.output, &answer(&status), || table(&status), || status.state.clone())
}

/// The status for programs.
fn answer(status: &pb::Status) -> Json {
    json!({
        "state": status.state,
        "version": status.version,
        "client_version": env!("CARGO_PKG_VERSION"),
        "trust_domain": status.trust_domain,
        "start_time": moment(status.start_time.as_ref()),
        "connections": status.connections,
        "groups": status.groups,
        "secrets": status.secrets,
        "own_integrations": status.own_integrations,
        "operators": status.operators,
        "executors": status.executors,
        "open_steps": status.open_steps,
        "live_leases": status.live_leases,
        "watches": status.watches,
        "head": status.head,
        "journal_mode": status.journal_mode,
        "journal_position": status.journal_position,
        "journal_unsynced_lines": status.journal_unsynced_lines,
        "journal_unsynced_seconds": status.journal_unsynced_for.map(|time| time.seconds),
        "journal_signed_position": status.journal_signed_position,
        "journal_sign_time": moment(status.journal_sign_time.as_ref()),
        "kek_id": status.kek_id,
        "kek_source": status.kek_source,
        "deks": status.deks,
        "resealing": status.resealing,
        "key_memory": status.key_memory,
        "core_dumps_off": status.core_dumps_off,
        "freed_memory_wiped": status.freed_memory_wiped,
        "daemon_certificate_expire_time": moment(status.daemon_certificate_expire_time.as_ref()),
        "ca_expire_time": moment(status.ca_expire_time.as_ref()),
        "caller_certificate_expire_time": moment(status.caller_certificate_expire_time.as_ref()),
        "ca_sha256": status.ca_sha256,
        "newer": status.newer,
        "tcp_listen_address": status.tcp_listen_address,
        "tcp_names": status.tcp_names,
        "remote_operators": status.remote_operators,
        "lost_search": status.lost_search.as_ref().map(lost_search),
        "block_count": status.block_count,
        "blocked": status.blocked,
    })
}

/// The status for people.
fn table(status: &pb::Status) -> String {
    let lost = status.lost_search.as_ref().map(lost_search_text);
    let lost = lost.map(|text| ("made after the backup", text));
    let rows = [
        ("state", status.state.clone()),
        ("version", versions(status)),
        ("trust domain", status.trust_domain.clone()),
        ("since", moment(status.start_time.as_ref())),
        ("connections", status.connections.to_string()),
        ("groups", status.groups.to_string()),
        ("secrets", status.secrets.to_string()),
        ("own integrations", status.own_integrations.to_string()),
        ("operators", status.operators.to_string()),
        ("executors", status.executors.to_string()),
        ("open steps", status.open_steps.to_string()),
        ("live leases", status.live_leases.to_string()),
        ("watches", status.watches.to_string()),
        ("last change", status.head.to_string()),
        ("journal line", status.journal_position.clone()),
        ("journal mode", status.journal_mode.clone()),
        ("not yet on disk", unsynced(status)),
        ("signed up to", signed(status)),
        ("KEK", format!("{}, from a {}", status.kek_id, status.kek_source)),
        ("data keys", data_keys(status)),
        ("keys in memory", status.key_memory.clone()),
        ("core dumps", if status.core_dumps_off { "off" } else { "possible" }.to_owned()),
        ("freed memory", if status.freed_memory_wiped { "wiped" } else { "not wiped" }.to_owned()),
        ("daemon's certificate", until(status.daemon_certificate_expire_time.as_ref())),
        ("CA", until(status.ca_expire_time.as_ref())),
        ("your certificate", until(status.caller_certificate_expire_time.as_ref())),
        ("CA's SHA-256", status.ca_sha256.clone()),
        ("of a newer version", newer(status)),
        ("over TCP", over_tcp(status)),
        ("blocked", blocked(status)),
    ];
    properties(&rows.into_iter().chain(lost).collect::<Vec<_>>())
}

fn lost_search(search: &pb::LostSearch) -> Json {
    let problem =
        |one: &pb::LostCredentials| json!({"connection": one.connection, "problem": one.problem});
    json!({
        "running": search.running,
        "connections_left": search.connections_left,
        "found": search.found,
        "problems": search.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn versions(status: &pb::Status) -> String {
    match (status.version.as_str(), env!("CARGO_PKG_VERSION")) {
        (daemon, own) if daemon == own => daemon.to_owned(),
        (daemon, own) => format!("{daemon}; of this command: {own}"),
    }
}

fn unsynced(status: &pb::Status) -> String {
    match (status.journal_unsynced_lines, &status.journal_unsynced_for) {
        (None, _) => "unknown: the journal hangs".to_owned(),
        (Some(0), _) => "nothing".to_owned(),
        (Some(lines), None) => format!("{lines} line(s)"),
        (Some(lines), Some(time)) => format!("{lines} line(s), for {} s or more", time.seconds),
    }
}

fn signed(status: &pb::Status) -> String {
    match status.journal_signed_position.as_str() {
        "" => "no line yet".to_owned(),
        line => format!("line {line}, at {}", second(status.journal_sign_time.as_ref())),
    }
}

fn data_keys(status: &pb::Status) -> String {
    match status.resealing {
        true => format!("{}: records are being sealed again under the newest", status.deks),
        false => status.deks.to_string(),
    }
}

/// What operators have blocked.
fn blocked(status: &pb::Status) -> String {
    let named = status.blocked.join(", ");
    let more =
        usize::try_from(status.block_count).unwrap_or(0).saturating_sub(status.blocked.len());
    match (status.block_count, more) {
        (0, _) => "nothing".to_owned(),
        (_, 0) => named,
        (_, more) => format!("{named}, and {more} more; see keyhatch access blocks"),
    }
}

/// Records of a newer version, which this version does not use.
fn newer(status: &pb::Status) -> String {
    match status.newer.is_empty() {
        true => "nothing".to_owned(),
        false => format!("{}; run the newer keyhatch", status.newer.join(", ")),
    }
}

/// How operators are served over TCP.
fn over_tcp(status: &pb::Status) -> String {
    match status.tcp_listen_address.as_str() {
        "" => "nobody".to_owned(),
        address => format!(
            "{} operator(s) at {address}, as {}",
            status.remote_operators,
            status.tcp_names.join(", ")
        ),
    }
}

fn until(end: Option<&prost_types::Timestamp>) -> String {
    format!("until {}", second(end))
}
