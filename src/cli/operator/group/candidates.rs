//! `keyhatch group candidates`: which connections fit into a group, and why others do not.

use serde_json::{Value as Json, json};
use tonic::transport::Channel;

use crate::cli::Common;
use crate::cli::io::failure::Failure;
use crate::cli::io::output::list;
use crate::cli::io::pages;
use crate::cli::io::text::short_name;
use crate::cli::operator::parts::listing::{Listing, say_total};
use crate::grpc::pb;
use crate::grpc::pb::group_service_client::GroupServiceClient;

#[derive(clap::Args)]
pub struct CandidatesArgs {
    /// The group. Without a name: a group that does not exist yet, of --integration and --identifier.
    #[arg(required_unless_present_all = ["integration", "identifier"])]
    name: Option<String>,
    /// The type of the members of a group that does not exist yet, such as aws.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    integration: Option<String>,
    /// The identifiers that the group will have, one to three; by default those that it has.
    #[arg(long, value_name = "KEY")]
    identifier: Vec<String>,
    /// A member that is chosen already, INTEGRATION/NAME; may be given more than once.
    #[arg(long, value_name = "REF")]
    member: Vec<String>,
    /// Only connections that fit.
    #[arg(long)]
    fitting: bool,
    #[command(flatten)]
    listing: Listing,
}

impl CandidatesArgs {
    pub(super) async fn run(self, common: &Common, channel: &Channel) -> Result<(), Failure> {
        let member = |reference: &String| format!("connections/{reference}");
        let wanted = pb::ListCandidatesRequest {
            group: self.name.map_or_else(String::new, |name| format!("groups/{name}")),
            integration: self.integration.unwrap_or_default(),
            identifiers: self.identifier,
            members: self.member.iter().map(member).collect(),
            filter: self.listing.filter([])?,
            order_by: self.listing.order_or("name"),
            fitting_only: self.fitting,
            ..Default::default()
        };
        let found = match self.listing.limit {
            None => pages::candidates(channel, wanted).await?,
            Some(page_size) => {
                let first = pb::ListCandidatesRequest { page_size, ..wanted };
                let mut client = GroupServiceClient::new(channel.clone());
                let found = client.list_candidates(first).await?.into_inner();
                say_total(found.candidates.len(), found.total_size, found.total_size_estimated);
                found.candidates
            }
        };
        let rows: Vec<_> = found.iter().map(to_json).collect();
        let columns = [("connection", "connection"), ("values", "values"), ("unfit", "unfit")];
        list(common.output, &rows, "connection", &columns, "no connections")
    }
}

fn to_json(one: &pb::Candidate) -> Json {
    json!({
        "connection": short_name(&one.name),
        "fits": one.problems.is_empty(),
        "values": one.values,
        "unfit": one.problems.iter().map(words).collect::<Vec<_>>(),
        "reasons": one.problems.iter().map(reason).collect::<Vec<_>>(),
    })
}

fn reason(problem: &pb::CandidateProblem) -> String {
    problem.reason().as_str_name().trim_start_matches("CANDIDATE_REASON_").to_owned()
}

/// A reason in words.
fn words(problem: &pb::CandidateProblem) -> String {
    use pb::CandidateReason as Reason;
    match problem.reason() {
        Reason::Member => "a member already".to_owned(),
        Reason::IntegrationMismatch => "another integration".to_owned(),
        Reason::IdentifierMissing => format!("no tag {}:…", problem.identifier),
        Reason::IdentifiersNotUnique => format!("same values as {}", short_name(&problem.other)),
        Reason::ResolverRequired => "you are not a resolver of it".to_owned(),
        Reason::Unspecified => "unknown".to_owned(),
    }
}
