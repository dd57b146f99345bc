//! `keyhatch connection test`: whether a connection's values can work, and what its upstream makes of them.

use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use super::view::resource_name;
use crate::cli::Common;
use crate::cli::io::endings::{ending_json, ending_words};
use crate::cli::io::failure::{Failure, exit};
use crate::cli::io::output::print;
use crate::cli::io::remarks;
use crate::cli::io::time::second;
use crate::grpc::pb;
use crate::grpc::pb::connection_service_client::ConnectionServiceClient;
use crate::model::ConnectionRef;

#[derive(clap::Args)]
pub struct ConnectionTestArgs {
    /// INTEGRATION/NAME.
    #[arg(value_name = "REF")]
    reference: String,
    /// Also have the upstream make a credential. Nobody gets it. It is ended at once if its upstream can end it.
    #[arg(long)]
    mint: bool,
}

impl ConnectionTestArgs {
    pub async fn run(self, common: &Common, channel: Channel) -> Result<(), Failure> {
        let reference: ConnectionRef = self.reference.parse()?;
        let request =
            pb::TestConnectionRequest { name: resource_name(&reference), mint: self.mint };
        let mut client = ConnectionServiceClient::new(channel);
        let tested = client.test_connection(request).await?.into_inner();
        let findings = &tested.findings;
        let answer = json!({
            "connection": reference.to_string(),
            "version": tested.version,
            "decision_id": tested.decision_id,
            "findings": findings.iter().map(remarks::to_json).collect::<Vec<_>>(),
            "minted": tested.minted.as_ref().map(minted_json),
            "mint_failure": Some(&tested.mint_failure).filter(|reason| !reason.is_empty()),
        });
        let text = || {
            let found = match findings.is_empty() {
                true => vec![format!("{reference}, version {}: nothing found", tested.version)],
                false => findings.iter().map(remarks::tested).collect(),
            };
            let lines = found.into_iter().chain(tested.minted.as_ref().map(describe));
            lines.collect::<Vec<_>>().join("\n")
        };
        print(common.output, &answer, text, || reference.to_string())?;
        match findings.iter().any(|one| one.severity() == pb::Severity::Error) {
            true => {
                let text = format!("{reference}, version {}, cannot work as it is", tested.version);
                Err(Failure::new("TEST_FAILED", text, exit::FAILED))
            }
            false => Ok(()),
        }
    }
}

/// For people.
fn describe(minted: &pb::TestMint) -> String {
    let handle = match minted.handle.as_str() {
        "" => "without a public name",
        handle => handle,
    };
    let end = match &minted.lifetime {
        Some(lifetime) => {
            format!("ends at {} (in {} s)", second(minted.expire_time.as_ref()), lifetime.seconds)
        }
        None => "the upstream tells no end, so it counts as 3600 s".to_owned(),
    };
    let ending = match &minted.ending {
        Some(ending) if ending.state() == pb::EndingState::LeftToExpire => {
            let why = match ending.detail.as_str() {
                "" => "nothing ends it earlier",
                why => why,
            };
            format!("expires by itself: {why}")
        }
        Some(ending) => ending_words(ending, minted.expire_time.as_ref()),
        None => "is not told by this broker".to_owned(),
    };
    let fields = minted.fields.join(", ");
    format!("minted: {fields}\nhandle: {handle}\nend: {end}\nending: {ending}")
}

/// For scripts.
fn minted_json(minted: &pb::TestMint) -> Json {
    json!({
        "fields": minted.fields,
        "handle": Some(&minted.handle).filter(|handle| !handle.is_empty()),
        "expire_time": minted.expire_time.as_ref().map(|end| second(Some(end))),
        "lifetime_seconds": minted.lifetime.as_ref().map(|lifetime| lifetime.seconds),
        "upstream_request": Some(&minted.upstream_request).filter(|number| !number.is_empty()),
        "ending": ending_json(minted.ending.as_ref()),
    })
}
