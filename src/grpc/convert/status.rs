//! From an error to a status: code, reason and details. The table has an arm for every error and no default.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::broker::{Error, LeverRefusal, SignRefusal};
use crate::grpc::pb;
use crate::integration::Problem;
use crate::journal::NotAccepted;
use crate::mint::FailureReason;
use crate::model::ResourceName;

/// The domain of every reason.
pub const DOMAIN: &str = "keyhatch.v1";

/// The most bytes of problems in one status.
const MAX_DETAIL_BYTES: usize = 3 * 1024;
/// The most characters of a message.
const MAX_MESSAGE_CHARACTERS: usize = 1024;
/// The most characters of the field and of the description of one problem.
const MAX_PROBLEM_CHARACTERS: usize = 256;

/// When to retry after a temporary failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The reason inside a status, for the layers that it passes on its way out. Clients find it in the details.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(&'static str);

/// The code and the stable reason of an error.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each error, and none for the rest")]
fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::AlreadyExists(name) => (Code::AlreadyExists, existence_reasons(name).1),
        Error::ClosedMeanwhile | Error::OpenedBefore(_) => (Code::Aborted, "STEP_CLOSED"),
        Error::Corrupt => (Code::DataLoss, "RECORD_CORRUPT"),
        Error::CsrInvalid(_) => (Code::InvalidArgument, "CSR_INVALID"),
        Error::DecisionInvalid(_) => (Code::InvalidArgument, "DECISION_INVALID"),
        Error::DecisionNotFound => (Code::NotFound, "DECISION_NOT_FOUND"),
        Error::Disabled(_) => (Code::FailedPrecondition, "CONNECTION_DISABLED"),
        Error::Denied { .. } => (Code::PermissionDenied, "RESOLVE_DENIED"),
        Error::DirectoryUnavailable { .. } => (Code::Unavailable, "DIRECTORY_UNAVAILABLE"),
        Error::DocumentsInvalid(_) => (Code::InvalidArgument, "DOCUMENTS_INVALID"),
        Error::DiskFull => (Code::Unavailable, "DISK_FULL"),
        Error::Draining => (Code::Unavailable, "DRAINING"),
        Error::EditDenied(_) => (Code::PermissionDenied, "EDIT_DENIED"),
        Error::EtagMismatch(_) => (Code::Aborted, "ETAG_MISMATCH"),
        Error::ExecutorRequired | Error::OperatorRequired | Error::RoleRequired(_) => {
            (Code::PermissionDenied, "ROLE_REQUIRED")
        }
        Error::FieldUnknown { .. } => (Code::InvalidArgument, "FIELD_UNKNOWN"),
        Error::FieldsInvalid(_) => (Code::InvalidArgument, "FIELDS_INVALID"),
        Error::FilterInvalid(_) => (Code::InvalidArgument, "FILTER_INVALID"),
        Error::IdentifierMissing { .. } => (Code::FailedPrecondition, "IDENTIFIER_MISSING"),
        Error::IdentifierTagInvalid(_) => (Code::InvalidArgument, "IDENTIFIER_TAG_INVALID"),
        Error::IdentifierUnknown(_) => (Code::InvalidArgument, "IDENTIFIER_UNKNOWN"),
        Error::IdentifiersIncomplete(_) => (Code::InvalidArgument, "IDENTIFIERS_INCOMPLETE"),
        Error::IdentifiersNotUnique { .. } => (Code::FailedPrecondition, "IDENTIFIERS_NOT_UNIQUE"),
        Error::InUse { .. } => (Code::FailedPrecondition, "IN_USE"),
        Error::IntegrationBuiltIn(_) => (Code::FailedPrecondition, "INTEGRATION_BUILT_IN"),
        Error::IntegrationInvalid(_) => (Code::InvalidArgument, "INTEGRATION_INVALID"),
        Error::IntegrationMismatch { .. } => (Code::FailedPrecondition, "INTEGRATION_MISMATCH"),
        Error::IntegrationUnknown(_) => (Code::InvalidArgument, "INTEGRATION_UNKNOWN"),
        Error::Internal(_) => (Code::Internal, "INTERNAL"),
        Error::JournalUnavailable => (Code::Unavailable, "JOURNAL_UNAVAILABLE"),
        Error::IssuerNotHosted(_) => (Code::FailedPrecondition, "ISSUER_NOT_HOSTED"),
        Error::KekNotAtHand(_) => (Code::FailedPrecondition, "KEK_NOT_AT_HAND"),
        Error::KekNotReplaceable(_) => (Code::FailedPrecondition, "KEK_NOT_REPLACEABLE"),
        Error::KeyringUnwritable(_) => (Code::Unavailable, "KEYRING_UNWRITABLE"),
        Error::KindInvalid(_) => (Code::InvalidArgument, "KIND_INVALID"),
        Error::LabelInvalid(_) => (Code::InvalidArgument, "LABEL_INVALID"),
        Error::Lever(refusal) => of_lever(refusal),
        Error::LoginInvalid(_) => (Code::InvalidArgument, "LOGIN_INVALID"),
        Error::MountPathInvalid(_) => (Code::InvalidArgument, "MOUNT_PATH_INVALID"),
        Error::NameInvalid(_) => (Code::InvalidArgument, "NAME_INVALID"),
        Error::NotAccepted(NotAccepted::CertificateExpired) | Error::Unregistered => {
            (Code::Unauthenticated, "SVID_INVALID")
        }
        Error::NotAccepted(NotAccepted::CertificateUnknown) => {
            (Code::Unauthenticated, "SOCKET_MISMATCH")
        }
        Error::NotAccepted(NotAccepted::NotOpen) => (Code::Unauthenticated, "STEP_NOT_OPEN"),
        Error::Newer(_) => (Code::FailedPrecondition, "RECORD_NEWER"),
        Error::NoMember => (Code::NotFound, "GROUP_MEMBER_NOT_FOUND"),
        Error::NotSigned(_, refusal) => (of_signing(*refusal), refusal.reason()),
        Error::NoTcpDoor => (Code::FailedPrecondition, "TCP_LISTENER_OFF"),
        Error::NotRemote => (Code::Unauthenticated, "REMOTE_DENIED"),
        Error::NotFound(name) => (Code::NotFound, existence_reasons(name).0),
        Error::Overloaded => (Code::ResourceExhausted, "OVERLOADED"),
        Error::OwnRegistration => (Code::FailedPrecondition, "OWN_REGISTRATION"),
        Error::OrderInvalid { .. } => (Code::InvalidArgument, "ORDER_BY_INVALID"),
        Error::PageTokenInvalid => (Code::InvalidArgument, "PAGE_TOKEN_INVALID"),
        Error::PrincipalInvalid(_) => (Code::InvalidArgument, "PRINCIPAL_INVALID"),
        Error::Quarantined => (Code::FailedPrecondition, "QUARANTINED"),
        Error::RequestIdReused(_) => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
        Error::RestoreContradictory => (Code::InvalidArgument, "RESTORE_CONTRADICTORY"),
        Error::RestoreUndecided(_) => (Code::FailedPrecondition, "RESTORE_UNDECIDED"),
        Error::RoleInvalid => (Code::InvalidArgument, "ROLE_INVALID"),
        Error::RunAsNotPermitted(_) => (Code::PermissionDenied, "RUN_AS_NOT_PERMITTED"),
        Error::RunNotFound(_) => (Code::NotFound, "RUN_NOT_FOUND"),
        Error::StepNotOpen => (Code::NotFound, "STEP_NOT_FOUND"),
        Error::ResolverRequired(_) => (Code::PermissionDenied, "RESOLVE_DENIED"),
        Error::SendFailed { reason, .. } => (of_upstream(*reason), reason.as_str()),
        Error::SendInvalid(_) => (Code::InvalidArgument, "SEND_INVALID"),
        Error::SendNotAllowed => (Code::PermissionDenied, "SEND_NOT_ALLOWED"),
        Error::SendTooSlow(_) => (Code::DeadlineExceeded, "REQUEST_TOO_SLOW"),
        Error::SendUnsupported(_) => (Code::FailedPrecondition, "SEND_UNSUPPORTED"),
        Error::TooManySends(_) => (Code::ResourceExhausted, "TOO_MANY_SENDS"),
        Error::SecretsRequired { .. } => (Code::FailedPrecondition, "SECRETS_REQUIRED"),
        Error::StepExists(_) => (Code::AlreadyExists, "STEP_EXISTS"),
        Error::StoreReadOnly => (Code::Unavailable, "STORE_READ_ONLY"),
        Error::TargetInvalid(_) => (Code::InvalidArgument, "TARGET_INVALID"),
        Error::RunTooLarge(_) | Error::TooLarge(_) => (Code::ResourceExhausted, "TOO_LARGE"),
        Error::TooManyLeases(_) => (Code::ResourceExhausted, "TOO_MANY_LEASES"),
        Error::ComparedLately(_) | Error::RenewedLately(_) | Error::TooManyRequests(_) => {
            (Code::ResourceExhausted, "TOO_MANY_REQUESTS")
        }
        Error::BackupRuns => (Code::ResourceExhausted, "BACKUP_RUNS"),
        Error::TooManyReaders(_) => (Code::ResourceExhausted, "TOO_MANY_READERS"),
        Error::TooManyWatches(_) => (Code::ResourceExhausted, "TOO_MANY_WATCHES"),
        Error::TooManySteps(_) | Error::TooManyStepsOfOne { .. } => {
            (Code::ResourceExhausted, "TOO_MANY_STEPS")
        }
        Error::TtlOutOfRange { .. } => (Code::InvalidArgument, "TTL_OUT_OF_RANGE"),
        Error::UpdateMaskInvalid(_) => (Code::InvalidArgument, "UPDATE_MASK_INVALID"),
        Error::Upstream { reason, .. } => (of_upstream(*reason), reason.as_str()),
        Error::VersionSuperseded => (Code::FailedPrecondition, "VERSION_SUPERSEDED"),
        Error::WorkflowNotPermitted(_) => (Code::PermissionDenied, "WORKFLOW_NOT_PERMITTED"),
        Error::UidNotPermitted(_) => (Code::PermissionDenied, "UID_NOT_PERMITTED"),
    }
}

/// The code of a failure of an upstream. Only what may pass by itself is worth a retry.
fn of_upstream(reason: FailureReason) -> Code {
    match reason {
        FailureReason::NotKept | FailureReason::Unavailable => Code::Unavailable,
        FailureReason::EgressDenied
        | FailureReason::Invalid
        | FailureReason::NoIssuer
        | FailureReason::Reauthorize
        | FailureReason::Refused => Code::FailedPrecondition,
        FailureReason::TooManyEndings => Code::ResourceExhausted,
    }
}

/// The code and reason of a lever.
fn of_lever(refusal: &LeverRefusal) -> (Code, &'static str) {
    match refusal {
        LeverRefusal::ClosedByOperator => (Code::FailedPrecondition, "STEP_CLOSED_BY_OPERATOR"),
        LeverRefusal::LeaseOver(_) => (Code::NotFound, "LEASE_NOT_FOUND"),
        LeverRefusal::NoSuchStep => (Code::NotFound, "STEP_NOT_FOUND"),
        LeverRefusal::NotAnAdministrator | LeverRefusal::Wordless => {
            (Code::InvalidArgument, "TARGET_INVALID")
        }
        LeverRefusal::NotBlocked(_) => (Code::NotFound, "BLOCK_NOT_FOUND"),
        LeverRefusal::StepBlocked(_) => (Code::PermissionDenied, "STEP_BLOCKED"),
        LeverRefusal::TooManyBlocks(_) => (Code::ResourceExhausted, "TOO_MANY_BLOCKS"),
        LeverRefusal::WatchEnded(_) => (Code::PermissionDenied, "LEASE_REVOKED"),
    }
}

/// The code of a refusal to sign.
fn of_signing(refusal: SignRefusal) -> Code {
    match refusal {
        SignRefusal::NoHost | SignRefusal::OtherUser | SignRefusal::UnknownHost => {
            Code::PermissionDenied
        }
        SignRefusal::KeyUnusable(_) | SignRefusal::NoKey | SignRefusal::OtherKey => {
            Code::FailedPrecondition
        }
    }
}

/// The reasons for a resource that does not exist, and for one that exists already.
fn existence_reasons(name: &ResourceName) -> (&'static str, &'static str) {
    match name {
        ResourceName::Connection(_) => ("CONNECTION_NOT_FOUND", "CONNECTION_EXISTS"),
        ResourceName::Executor(_) => ("EXECUTOR_NOT_FOUND", "EXECUTOR_EXISTS"),
        ResourceName::Group(_) => ("GROUP_NOT_FOUND", "GROUP_EXISTS"),
        ResourceName::Integration(_) => ("INTEGRATION_NOT_FOUND", "INTEGRATION_EXISTS"),
        ResourceName::Lease(_) => ("LEASE_NOT_FOUND", "LEASE_EXISTS"),
        ResourceName::Opening(_) => ("STEP_NOT_FOUND", "STEP_EXISTS"),
        ResourceName::Operator(_) => ("OPERATOR_NOT_FOUND", "OPERATOR_EXISTS"),
        ResourceName::Secret(_) => ("SECRET_NOT_FOUND", "SECRET_EXISTS"),
    }
}

/// The stable reason of an error.
pub(crate) fn reason_of(error: &Error) -> &'static str {
    code_and_reason(error).1
}

/// The stable reason of a status; `None` if the status does not come from this file.
pub(crate) fn reason_in(status: &Status) -> Option<&'static str> {
    let source = std::error::Error::source(status)?;
    source.downcast_ref().map(|Reason(reason)| *reason)
}

/// A status with its details and reason.
fn explained(
    code: Code,
    message: impl Into<String>,
    details: ErrorDetails,
    reason: &'static str,
) -> Status {
    let mut status = Status::with_error_details(code, message, details);
    status.set_source(Arc::new(Reason(reason)));
    status
}

/// An error as one result of a batch.
pub(crate) fn to_message(error: &Error) -> pb::ResolveError {
    let status = to_status(error);
    let decision_id = match error {
        Error::Denied { decision_id } | Error::Upstream { decision_id, .. } => decision_id.clone(),
        _ => String::new(),
    };
    pb::ResolveError {
        code: status.code().into(),
        reason: reason_of(error).to_owned(),
        message: status.message().to_owned(),
        decision_id,
    }
}

/// Adds problems, as many as fit into a client's limit for metadata. The usual limit of gRPC is 8 KiB in all.
fn add_problems(details: &mut ErrorDetails, problems: &[Problem]) {
    let mut bytes = 0;
    for (shown, problem) in problems.iter().enumerate() {
        // An unparsed name can be as long as its request.
        let field = shortened(problem.field.clone(), MAX_PROBLEM_CHARACTERS);
        let description = shortened(problem.description.clone(), MAX_PROBLEM_CHARACTERS);
        bytes += field.len() + description.len();
        if bytes > MAX_DETAIL_BYTES && shown > 0 {
            let more = format!("and {} more", problems.len() - shown);
            details.add_bad_request_violation("", more);
            return;
        }
        details.add_bad_request_violation(field, description);
    }
}

/// Cuts a text to `most` characters.
fn shortened(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The status of a request that is refused before its service sees it.
pub(crate) fn refused_early(
    code: Code,
    reason: &'static str,
    message: &'static str,
    retry_after: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(retry_after);
    explained(code, message, details, reason)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        to_status(&error)
    }
}

/// The status of an error. Causes of internal errors are logged with a request id, and the client gets the id only.
pub(crate) fn to_status(error: &Error) -> Status {
    let (code, reason) = code_and_reason(error);
    let mut metadata = HashMap::new();
    let mut details = ErrorDetails::new();
    let mut message = shortened(error.to_string(), MAX_MESSAGE_CHARACTERS);
    match error {
        Error::Denied { decision_id } => {
            metadata.insert("decision_id".to_owned(), decision_id.clone());
        }
        Error::Upstream { reason, wait, decision_id, .. } => {
            metadata.insert("decision_id".to_owned(), decision_id.clone());
            let passes = of_upstream(*reason) != Code::FailedPrecondition;
            details.set_retry_info(passes.then_some(*wait));
        }
        Error::DocumentsInvalid(problems)
        | Error::FieldsInvalid(problems)
        | Error::IntegrationInvalid(problems) => {
            add_problems(&mut details, problems);
        }
        Error::KindInvalid(problem) => add_problems(&mut details, std::slice::from_ref(problem)),
        Error::IdentifierTagInvalid(invalid)
        | Error::LabelInvalid(invalid)
        | Error::NameInvalid(invalid)
        | Error::PrincipalInvalid(invalid) => {
            details.add_bad_request_violation(invalid.what, invalid.rule);
        }
        Error::ComparedLately(wait) | Error::RenewedLately(wait) | Error::TooManyRequests(wait) => {
            details.set_retry_info(Some(*wait));
        }
        Error::DirectoryUnavailable { .. }
        | Error::DiskFull
        | Error::Draining
        | Error::JournalUnavailable
        | Error::Overloaded
        | Error::TooManyLeases(_)
        | Error::TooManySends(_)
        | Error::TooManySteps(_)
        | Error::TooManyStepsOfOne { .. } => {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        Error::Internal(cause) => {
            let request_id = crate::seal::random_id().map(|id| id.to_string()).unwrap_or_default();
            tracing::error!(request.id = %request_id, cause = %cause, "internal error");
            message = format!("internal error; report request {request_id}");
            metadata.insert("request_id".to_owned(), request_id);
        }
        _ => {}
    }
    details.set_error_info(reason, DOMAIN, metadata);
    explained(code, message, details, reason)
}
