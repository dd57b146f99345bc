//! Targets for requests, and for the seed files that become requests.

use keyhatch::cli::parsers::{AllowedReads, SeedContext, parse_text};
use keyhatch::grpc::pb;
use keyhatch::grpc::request::{ApiRequest, read};
use keyhatch::integration::check_own;
use prost::Message as _;

use super::words::text;

/// The bytes of headers that stock clients accept.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// The longest error of the command line, in bytes: a place, a rule, and a bounded part of the text.
const MAX_FAILURE_BYTES: usize = 4 * 1024;
/// google.rpc.Code: INVALID_ARGUMENT and RESOURCE_EXHAUSTED.
const CODES: [i32; 2] = [3, 8];

macro_rules! requests {
    ($($message:ident)*) => {
        /// Every request of the API by name, and how its bytes are checked.
        pub const REQUESTS: &[(&str, fn(&[u8]))] =
            &[$((stringify!($message), |data| {
                check::<pb::$message>(data);
            })),*];
    };
}

requests! {
    AddMembersRequest ApplyRequest BackupRequest BatchResolveRequest BlockRequest CloseRunRequest CloseStepRequest
    CreateConnectionRequest CreateExecutorRequest CreateGroupRequest CreateIntegrationRequest CreateOperatorRequest
    DeleteConnectionRequest DeleteExecutorRequest DeleteGroupRequest DeleteIntegrationRequest DeleteOperatorRequest
    DeleteSecretRequest EndQuarantineRequest ExplainRequest GetConnectionRequest GetExecutorRequest GetGroupRequest
    GetIntegrationRequest GetIssuerRequest GetOperatorRequest GetRunRequest GetSigningKeyRequest GetStatusRequest
    ListBlocksRequest ListCandidatesRequest ListConnectionsRequest
    ListEndingsRequest ListExecutorsRequest ListGroupsRequest ListIntegrationsRequest ListKeysRequest ListMembersRequest
    ListLeasesRequest ListOperatorsRequest ListRunsRequest ListSecretsRequest ListStepsRequest ListWorkflowsRequest OpenStepRequest
    OperatorServiceWhoAmIRequest PlanRequest PreviewRequest PutSecretRequest
    RemoveMembersRequest RenewCertificateRequest RenewLeaseRequest RenewStepRequest ResolveRequest RevokeLeaseRequest RevokeLeasesRequest
    RotateDekRequest RotateIssuerRequest RotateKekRequest SendRequest SignRequest SuggestAccessRequest TailJournalRequest
    TestConnectionRequest UnblockRequest
    UpdateConnectionRequest UpdateGroupRequest UpdateIntegrationRequest UpdateOperatorRequest
    WatchRequest WhoAmIRequest
}

/// Each input is read as every request of the API.
pub fn requests(data: &[u8]) {
    REQUESTS.iter().for_each(|(_, check)| check(data));
    if let Some(Ok(integration)) = read::<pb::CreateIntegrationRequest>(data) {
        let _ = check_own(&integration);
    }
}

/// Reads a request: true if it is refused with a bounded error or parsed, false if the bytes are no such message.
fn check<T: ApiRequest>(data: &[u8]) -> bool {
    let name = T::NAME;
    let Some(parsed) = read::<T>(data) else { return false };
    if let Err(status) = parsed {
        assert!(CODES.contains(&i32::from(status.code())), "{name}: {status:?}");
        // A header takes three bytes for each byte of a message that is not plain ASCII, and details are base64.
        let message = status.message().bytes();
        let message: usize =
            message.map(|byte| if (b' '..b'~').contains(&byte) { 1 } else { 3 }).sum();
        let header = message + status.details().len().div_ceil(3) * 4;
        assert!(header < MAX_HEADER_BYTES, "{name}: {header} bytes of {}", status.message());
    }
    true
}

/// Reads a seed file. No file or variable is allowed.
pub fn seeds(data: &[u8]) {
    let allowed = AllowedReads::default();
    let context = SeedContext { workflow: Some("w"), default_resolver: None, allowed: &allowed };
    let seeds = match parse_text(text(data), "seed.yaml", &context) {
        Ok(seeds) => seeds,
        Err(failure) => {
            assert!(failure.message.len() < MAX_FAILURE_BYTES, "{}", failure.message);
            return;
        }
    };
    assert!(!seeds.is_empty());
    for seed in seeds {
        let request = pb::ApplyRequest { document: Some(seed.document) };
        assert!(check::<pb::ApplyRequest>(&request.encode_to_vec()));
    }
}
