//! `keyhatch ending`: the endings of short-lived credentials upstream.

use clap::Subcommand;
use serde_json::{Value as Json, json};

use crate::cli::Common;
use crate::cli::io::endings::{lost_search_advice, lost_search_text, state_name};
use crate::cli::io::failure::Failure;
use crate::cli::io::output::{list, say};
use crate::cli::io::pages;
use crate::cli::io::text::short_name;
use crate::cli::io::time::moment;
use crate::grpc::pb;
use crate::grpc::pb::system_service_client::SystemServiceClient;
use crate::model::{ConnectionRef, ResourceName};

#[derive(Subcommand)]
pub enum EndingCommand {
    /// List the endings of short-lived credentials that are not over
    #[command(alias = "ls")]
    List(EndingList),
}

/// Arguments of `ending list`.
#[derive(clap::Args)]
pub struct EndingList {
    /// Only of this connection, which may be deleted: INTEGRATION/NAME.
    #[arg(long, value_name = "REF")]
    connection: Option<String>,
}

/// The columns: the oldest ending comes first.
const COLUMNS: [(&str, &str); 9] = [
    ("connection", "connection"),
    ("handle", "handle"),
    ("step", "step"),
    ("state", "state"),
    ("since", "begin_time"),
    ("attempts", "attempts"),
    ("reason", "failure_reason"),
    ("detail", "detail"),
    ("next try", "next_attempt_time"),
];

impl EndingCommand {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::List(EndingList { connection }) = self;
        let connection = connection.map(|name| name.parse::<ConnectionRef>()).transpose()?;
        let connection = connection.map(|name| ResourceName::Connection(name).to_string());
        let channel = common.operator().await?;
        let mut endings = pages::endings(&channel, connection.as_deref()).await?;
        let since = |one: &pb::Ending| {
            let time = one.ending.as_ref().and_then(|ending| ending.time);
            time.map(|time| (time.seconds, time.nanos))
        };
        endings.sort_by_key(since);
        let rows: Vec<_> = endings.iter().map(row).collect();
        let status = SystemServiceClient::new(channel).get_status(pb::GetStatusRequest {}).await?;
        if let Some(search) = status.into_inner().lost_search {
            let advice = lost_search_advice(&search).map(|advice| format!("; {advice}"));
            let (text, advice) = (lost_search_text(&search), advice.unwrap_or_default());
            say(&format!("roles that were made after the backup: {text}{advice}"));
        }
        list(common.output, &rows, "mint", &COLUMNS, "no endings are pending")
    }
}

fn row(one: &pb::Ending) -> Json {
    let ending = one.ending.clone().unwrap_or_default();
    let detail = match ending.detail.as_str() {
        "" => &one.failure_detail,
        left => left,
    };
    json!({
        "mint": one.mint,
        "connection": short_name(&one.connection),
        "source": one.source,
        "handle": one.handle,
        "step": one.step,
        "state": state_name(ending.state()),
        "cause": ending.cause,
        "begin_time": moment(ending.time.as_ref()),
        "credential_expire_time": moment(one.credential_expire_time.as_ref()),
        "attempts": one.attempts,
        "failure_reason": one.failure_reason,
        "detail": detail,
        "next_attempt_time": moment(one.next_attempt_time.as_ref()),
    })
}
