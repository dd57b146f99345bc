//! `keyhatch status`

use serde_json::json;

use super::Common;
use super::endpoint::{Caller, connect};
use super::failure::Failure;
use super::output::{moment, print, properties};
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;

pub(super) async fn run(common: &Common) -> Result<(), Failure> {
    let channel = connect(Caller::Operator, common.state.as_deref()).await?;
    let status = SystemServiceClient::new(channel).get_status(pb::GetStatusRequest {}).await?;
    let status = status.into_inner();
    let since = moment(status.start_time.as_ref());
    let answer = json!({
        "state": status.state,
        "version": status.version,
        "trust_domain": status.trust_domain,
        "start_time": since,
        "connections": status.connections,
        "secrets": status.secrets,
        "open_steps": status.open_steps,
        "live_leases": status.live_leases,
        "head": status.head,
        "journal_position": status.journal_position,
        "kek_id": status.kek_id,
        "key_memory": status.key_memory,
    });
    let table = || {
        properties(&[
            ("state", status.state.clone()),
            ("version", status.version.clone()),
            ("trust domain", status.trust_domain.clone()),
            ("since", since.clone()),
            ("connections", status.connections.to_string()),
            ("secrets", status.secrets.to_string()),
            ("open steps", status.open_steps.to_string()),
            ("live leases", status.live_leases.to_string()),
            ("last change", status.head.to_string()),
            ("journal line", status.journal_position.clone()),
            ("KEK", status.kek_id.clone()),
            ("keys in memory", status.key_memory.clone()),
        ])
    };
    print(common.output, &answer, table, || status.state.clone())
}
