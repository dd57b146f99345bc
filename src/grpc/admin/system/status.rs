//! The response of `SystemService.GetStatus`.

use crate::broker::{Health, LostCredentials, LostSearch};
use crate::grpc::{convert, pb};
use crate::journal::JournalStatus;
use crate::model::ResourceName;

/// The most blocks that are named.
const MAX_BLOCKED: usize = 20;

pub(crate) fn response(health: Health) -> pb::Status {
    let Health { counts, keys, memory, journal, signature, .. } = health;
    let unsynced = journal.as_ref().map(|journal| convert::count(journal.unsynced_lines));
    let signed = signature.as_ref().and_then(|signature| convert::timestamp(signature.time));
    let door = health.tcp_door.as_ref();
    let hosts = door.map(|door| door.hosts.iter().map(ToString::to_string).collect());
    pb::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: health.trust_domain,
        start_time: convert::timestamp(health.start_time),
        state: health.state.to_string(),
        connections: convert::count(counts.connections),
        groups: convert::count(counts.groups),
        secrets: convert::count(counts.secrets),
        own_integrations: convert::count(counts.own_integrations),
        operators: convert::count(counts.operators),
        executors: convert::count(counts.executors),
        open_steps: convert::count(counts.open_steps),
        live_leases: convert::count(counts.live_leases),
        watches: convert::count(counts.watches),
        head: convert::count(health.head),
        journal_mode: health.journal_mode.to_string(),
        journal_position: journal.as_ref().map(JournalStatus::position).unwrap_or_default(),
        journal_unsynced_lines: unsynced,
        journal_unsynced_for: journal.and_then(|journal| journal.unsynced_for.try_into().ok()),
        journal_signed_position: signature.map(|one| one.position).unwrap_or_default(),
        journal_sign_time: signed,
        kek_id: keys.kek.to_string(),
        kek_source: keys.kek_kind.to_string(),
        deks: convert::count(keys.deks),
        resealing: keys.is_resealing(),
        key_memory: memory.key_memory.to_string(),
        core_dumps_off: memory.has_no_core_dumps,
        freed_memory_wiped: memory.wipes_freed_memory,
        daemon_certificate_expire_time: convert::timestamp(health.certificate_end),
        ca_expire_time: convert::timestamp(health.authority_end),
        caller_certificate_expire_time: None,
        ca_sha256: hex::encode(health.authority_sha256),
        newer: health.newer,
        tcp_listen_address: door.map(|door| door.listens.to_string()).unwrap_or_default(),
        tcp_names: hosts.unwrap_or_default(),
        remote_operators: convert::count(counts.remote_operators),
        lost_search: health.lost_search.map(lost_search),
        block_count: convert::count(health.blocked.len()),
        blocked: health.blocked.into_iter().take(MAX_BLOCKED).collect(),
    }
}

fn lost_search(search: LostSearch) -> pb::LostSearch {
    let LostSearch { is_running, left, found } = search;
    let handles: usize = found.iter().map(|one| one.handles.len()).sum();
    let problems = found.into_iter().filter(|one| one.problem.is_some());
    let problems =
        problems.map(|one| lost_credentials(LostCredentials { handles: Vec::new(), ..one }));
    pb::LostSearch {
        running: is_running,
        connections_left: convert::count(left),
        found: convert::count(handles),
        problems: problems.collect(),
    }
}

pub(super) fn lost_credentials(lost: LostCredentials) -> pb::LostCredentials {
    let LostCredentials { connection, handles, problem } = lost;
    let connection = ResourceName::Connection(connection).to_text();
    pb::LostCredentials { connection, handles, problem: problem.unwrap_or_default() }
}
