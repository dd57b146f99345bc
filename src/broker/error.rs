//! The errors of the use cases, by fault. The edge turns each into a status and a reason.

use std::time::Duration;

use crate::access::Role;
use crate::catalog::{Catalog, Misfit, NotAdmitted};
use crate::identity::{AuthorityError, RequestError};
use crate::integration::Problem;
use crate::journal::{NotAccepted, ReadError, TooManyBlocks, Unavailable, WatchEnded};
use crate::mint::FailureReason;
use crate::model::{
    ConnectionRef, GroupName, IntegrationName, Invalid, RequestId, ResourceName, RunAs, RunName,
    WorkflowName,
};
use crate::seal::NoRandomness;
use crate::ssh::NotALogin;

use super::levers::refusal::LeverRefusal;
use super::sign::refusal::SignRefusal;

/// Why a request was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A newer version wrote the resource, and this version cannot read it.
    #[error(
        "{0} was written by a newer keyhatch, and this version uses nothing of it; run the newer keyhatch"
    )]
    Newer(String),
    /// A resource of this name exists.
    #[error("{0} exists already")]
    AlreadyExists(ResourceName),
    /// The step was closed while it was being opened.
    #[error("the step was closed while it was being opened; open it again")]
    ClosedMeanwhile,
    /// A certificate was issued a moment ago.
    #[error("this identity got a certificate less than a minute ago; request another in {} s", .0.as_secs() + 1)]
    RenewedLately(Duration),
    /// The caller compared stored values with documents too often.
    #[error("you compared stored values with documents too often; try again in {} s", .0.as_secs() + 1)]
    ComparedLately(Duration),
    /// The step that this request opened before is closed.
    #[error("request {0} opened this step before, and the step is closed; use another request id")]
    OpenedBefore(RequestId),
    /// A record fails authentication.
    #[error("the stored record fails authentication; restore it or write the credential again")]
    Corrupt,
    /// The step may not resolve this, or it does not exist.
    #[error(
        "this step may not resolve it; an operator sees why with: keyhatch explain {decision_id}"
    )]
    Denied {
        /// The hidden line of the decision in the journal: a step must not count lines.
        decision_id: String,
    },
    /// A certificate signing request is not usable.
    #[error("the certificate signing request: {0}")]
    CsrInvalid(#[from] RequestError),
    /// A decision id is not one.
    #[error(
        "{0:?} is no decision id; a denial carries one of 32 digits, and journal tail shows FILE.LINE, such as 1.42"
    )]
    DecisionInvalid(String),
    /// The journal has no decision with this id.
    #[error("the journal has no such decision")]
    DecisionNotFound,
    /// An operator has disabled the connection.
    #[error("{0} is disabled; an operator may enable it")]
    Disabled(ResourceName),
    /// The disk is nearly full: the rest is kept for changes that take access away.
    #[error(
        "the disk is nearly full, and the rest is kept for deletes, disabling and changes of access; free \
         space on the disk of the state directory"
    )]
    DiskFull,
    /// Another backup is running.
    #[error("another backup is running; try again when it has ended")]
    BackupRuns,
    /// The limit of journal readers is reached.
    #[error(
        "{0} readers of the journal are open, which is the limit; try again when one has ended"
    )]
    TooManyReaders(u32),
    /// A step's directory or socket cannot be made.
    #[error(
        "the step's directory cannot be made below {directory} ({cause}); fix the cause, and open the \
         step again"
    )]
    DirectoryUnavailable {
        /// The runtime directory.
        directory: String,
        /// The system's error.
        cause: String,
    },
    /// Documents of one Apply have problems.
    #[error("nothing was applied: {} problem(s)", .0.len())]
    DocumentsInvalid(Vec<Problem>),
    /// The daemon is shutting down.
    #[error("the broker is shutting down; try again")]
    Draining,
    /// The operator may not change this.
    #[error("you are not an editor of {0}, nor an administrator")]
    EditDenied(ResourceName),
    /// The resource was changed since the caller read it.
    #[error("{0} was changed in the meantime; read it again")]
    EtagMismatch(ResourceName),
    /// A filter is not well formed.
    #[error("the filter: {0}")]
    FilterInvalid(String),
    /// Fields have problems.
    #[error("the fields have {} problem(s)", .0.len())]
    FieldsInvalid(Vec<Problem>),
    /// The credential has no such field.
    #[error("it has no field {field:?}; it has: {known}")]
    FieldUnknown {
        /// The requested field.
        field: String,
        /// The existing names.
        known: String,
    },
    /// A value for an identifier that the group does not have.
    #[error("the group has no identifier {0}")]
    IdentifierUnknown(String),
    /// An identifier without a value.
    #[error("the group needs a value for its identifier {0}")]
    IdentifiersIncomplete(String),
    /// A connection lacks an identifier of a group.
    #[error(
        "{connection} has no tag {identifier}:…, by which group {group} tells its members apart"
    )]
    IdentifierMissing {
        /// The group.
        group: GroupName,
        /// The connection.
        connection: ConnectionRef,
        /// The identifier.
        identifier: String,
    },
    /// Two connections with the same values.
    #[error(
        "{connection} has the same identifier values as {other}, so group {group} cannot tell them apart"
    )]
    IdentifiersNotUnique {
        /// The group.
        group: GroupName,
        /// The connection.
        connection: ConnectionRef,
        /// The present member with these values.
        other: ConnectionRef,
    },
    /// An identifier or tag is not well formed.
    #[error(transparent)]
    IdentifierTagInvalid(Invalid),
    /// A connection of another integration.
    #[error("{connection} is not of the integration of group {group}")]
    IntegrationMismatch {
        /// The group.
        group: GroupName,
        /// The connection.
        connection: ConnectionRef,
    },
    /// Others use the resource.
    #[error("{resource} is used by {users}; {hint}")]
    InUse {
        /// The used resource.
        resource: ResourceName,
        /// Its users.
        users: String,
        /// The next step.
        hint: &'static str,
    },
    /// The integration comes with the broker.
    #[error("integration {0} comes with the broker and never changes; create one of your own")]
    IntegrationBuiltIn(IntegrationName),
    /// An operators' own integration has problems.
    #[error("the integration has {} problem(s)", .0.len())]
    IntegrationInvalid(Vec<Problem>),
    /// There is no such integration.
    #[error("there is no integration {0}; list them with: keyhatch integration list")]
    IntegrationUnknown(IntegrationName),
    /// A fault of the broker.
    #[error("{0}")]
    Internal(String),
    /// The key that is to sign is not among the hosted keys of the issuer.
    #[error(
        "the daemon does not find the next key of the issuer among the keys hosted at {0}, so verifiers would refuse what it \
         signs; host what this writes first: keyhatch issuer write --out DIR. If it is hosted, and cannot be read from here, \
         give --force"
    )]
    IssuerNotHosted(String),
    /// The journal cannot be written.
    #[error("the journal cannot be written, so nothing is resolved or changed; try again")]
    JournalUnavailable,
    /// The KEK is not available while the daemon runs.
    #[error(
        "the KEK is not available ({0}); stop the daemon and run: keyhatch key rotate --data --offline"
    )]
    KekNotAtHand(String),
    /// The KEK cannot be replaced in its place.
    #[error("{0}")]
    KekNotReplaceable(String),
    /// The keyring cannot be written.
    #[error("the keyring cannot be read or written ({0}); check its disk and try again")]
    KeyringUnwritable(String),
    /// The kind does not exist, or is not clear.
    #[error("{}", .0.description)]
    KindInvalid(Problem),
    /// A label is not well formed.
    #[error(transparent)]
    LabelInvalid(Invalid),
    /// The bytes that a step wants signed are no login.
    #[error(transparent)]
    LoginInvalid(NotALogin),
    /// The mount path is no absolute path.
    #[error("mount_path {0:?} is neither an absolute path nor \"host\"")]
    MountPathInvalid(String),
    /// A name is not well formed.
    #[error(transparent)]
    NameInvalid(#[from] Invalid),
    /// The certificate or its opening is not accepted.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
    /// No member of the group has these values.
    #[error("no member of the group has these identifier values")]
    NoMember,
    /// The broker does not sign for the step, which may use the connection.
    #[error("{0}: {1}")]
    NotSigned(ResourceName, SignRefusal),
    /// There is no such resource, and the caller may know that.
    #[error("there is no {name}{hint}", name = .0, hint = hint(.0))]
    NotFound(ResourceName),
    /// The daemon does not listen for operators over TCP.
    #[error(
        "the broker serves nobody over TCP; start it so: keyhatch serve --admin-listen ADDRESS:PORT --admin-name HOST"
    )]
    NoTcpDoor,
    /// The caller may not connect over TCP.
    #[error(
        "only operators that an administrator lets in may use the broker over TCP: keyhatch operator update NAME --remote"
    )]
    NotRemote,
    /// Operators cannot remove themselves.
    #[error("you cannot remove yourself; another administrator can")]
    OwnRegistration,
    /// The order of a list is not well formed.
    #[error("{text:?} is no order of this list; write FIELD or FIELD desc, with one of: {known}")]
    OrderInvalid {
        /// The order that was asked for.
        text: String,
        /// The fields that this list is ordered by.
        known: String,
    },
    /// The page token was not issued by this method, or for another query.
    #[error(
        "the page token is not one that this method returned for the same filter, order and other fields; leave it out to \
         begin with the first page"
    )]
    PageTokenInvalid,
    /// A principal in a binding is not well formed.
    #[error(transparent)]
    PrincipalInvalid(Invalid),
    /// The broker was restored from a backup.
    #[error(
        "this broker was restored from a backup; nothing is resolved until an administrator checks it and \
         runs: keyhatch restore --confirm"
    )]
    Quarantined,
    /// The request id belongs to another request.
    #[error("another request was made under the id {0}; an id is used for one request only")]
    RequestIdReused(RequestId),
    /// A restored broker cannot be a copy and have the newest refresh tokens.
    #[error(
        "the original of a copy goes on to use its refresh tokens, so the copy's are not current; leave out \
         refresh_tokens_current, and sign in at the upstreams for tokens of the copy's own"
    )]
    RestoreContradictory,
    /// A restored broker owes endings, and nobody has said what has become of the original.
    #[error(
        "upstreams made {0} credentials before the backup that are still to be ended. If the original broker is gone, this \
         one ends them: keyhatch restore --confirm --original-gone. If the original goes on and its steps use them, this one \
         leaves them alone: keyhatch restore --confirm --copy"
    )]
    RestoreUndecided(usize),
    /// The role is missing or unknown.
    #[error("the role must be viewer, operator or administrator")]
    RoleInvalid,
    /// The executor may not assert this.
    #[error(
        "this executor may not open steps that run as {0}; an administrator registers what an executor may assert"
    )]
    RunAsNotPermitted(RunAs),
    /// The journal has no run of this name.
    #[error(
        "there is no run {0} in the journal, or it is another executor's; operators see the runs of all executors"
    )]
    RunNotFound(RunName),
    /// The run received more than a reply can hold.
    #[error(
        "run {0} received more than a reply can hold; an operator reads it line by line with: keyhatch journal tail \
         --run {0} --since TIME"
    )]
    RunTooLarge(RunName),
    /// Adding a connection to a group needs the resolver relation on the connection.
    #[error("you are not a resolver of {0}")]
    ResolverRequired(ResourceName),
    /// The upstream that makes the credential fails, refuses, or may not be asked.
    #[error(
        "{}; an operator sees why with: keyhatch explain {decision_id}", of_upstream(name, *reason)
    )]
    Upstream {
        /// The connection.
        name: ResourceName,
        /// The kind of the failure.
        reason: FailureReason,
        /// When to try again.
        wait: Duration,
        /// The hidden line of the decision in the journal.
        decision_id: String,
    },
    /// The operator's role does not include this.
    #[error("this needs the role {0}")]
    RoleRequired(Role),
    /// The caller must be an executor.
    #[error("this is for executors")]
    ExecutorRequired,
    /// The caller must be an operator.
    #[error("this is for operators")]
    OperatorRequired,
    /// The caller's certificate is not that of a registered operator or executor.
    #[error("the certificate is not one of a registered operator or executor, or it was replaced")]
    Unregistered,
    /// A destination field, or `release` from minted to stored, changes without every sensitive field.
    #[error(
        "{resource}: {destination} says where the credential is sent or what a step gets of it, so it changes only together with every sensitive field; give also: {missing}"
    )]
    SecretsRequired {
        /// Which connection.
        resource: ResourceName,
        /// The destination field, or "release".
        destination: String,
        /// The sensitive fields that were not given.
        missing: String,
    },
    /// The connection's limits do not admit the request.
    #[error(
        "the connection admits other methods or paths only; an operator sees them with: keyhatch connection get"
    )]
    SendNotAllowed,
    /// The exchange with an upstream on behalf of a step has failed.
    #[error("{detail}")]
    SendFailed {
        /// The kind of the failure.
        reason: FailureReason,
        /// What was wrong. It names the upstream's host, and shows nothing that the upstream has sent.
        detail: String,
    },
    /// The request to send is malformed.
    #[error("{0}")]
    SendInvalid(String),
    /// The exchange has lasted too long, or nothing has moved for too long.
    #[error("{0}")]
    SendTooSlow(&'static str),
    /// No request can be made with the connection.
    #[error("the broker cannot send requests with this connection: {0}")]
    SendUnsupported(String),
    /// An attempt that is not above this one is open.
    #[error("attempt {0} of this step is open; close it, or open a higher attempt")]
    StepExists(i32),
    /// No such step of this executor is open.
    #[error("no such step of yours is open")]
    StepNotOpen,
    /// The store takes no more writes.
    #[error(
        "a write to the store failed, so it takes no more; repair its disk, then restart the broker"
    )]
    StoreReadOnly,
    /// The target is missing or malformed.
    #[error("{0}")]
    TargetInvalid(String),
    /// The request is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// Unread replies hold all the bytes that the caller may have.
    #[error("unread replies hold all the bytes that you may have; read them, and try again")]
    Overloaded,
    /// A lever of operators is in the way, or cannot be pulled.
    #[error(transparent)]
    Lever(#[from] LeverRefusal),
    /// The step holds too many live leases.
    #[error("this step holds {0} live leases, which is the limit; let some expire")]
    TooManyLeases(u32),
    /// The caller sends too many requests, or too many that change nothing.
    #[error("too many requests; try again later")]
    TooManyRequests(Duration),
    /// The step, its workflow, or all steps together have reached the limit of exchanges.
    #[error("{0} requests are being sent, which is the limit; let some end")]
    TooManySends(usize),
    /// The step has reached its limit of Watches.
    #[error("this step has {0} Watches, which is the limit; end one")]
    TooManyWatches(usize),
    /// Too many steps are open.
    #[error("{0} steps are open, which is the limit of this broker")]
    TooManySteps(u32),
    /// One of several executors has opened too many steps.
    #[error(
        "this executor has {share} steps open: a quarter of what this broker allows ({all}) is the most for one of \
         several executors; close some"
    )]
    TooManyStepsOfOne {
        /// The most for one.
        share: u32,
        /// The most for all.
        all: u32,
    },
    /// A TTL is out of range.
    #[error("the {what} must be between {} s and {} s", .least.as_secs(), .most.as_secs())]
    TtlOutOfRange {
        /// The value that is out of range: "ttl" or "heartbeat".
        what: &'static str,
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// An update mask names an unknown path.
    #[error("update_mask: there is no {0:?} to update")]
    UpdateMaskInvalid(String),
    /// The credential has a newer version than the lease.
    #[error("the credential has a newer version than this lease; resolve it again")]
    VersionSuperseded,
    /// The executor is not registered for this workflow.
    #[error(
        "this executor may not open steps of workflow {0}; an administrator registers the workflows of an executor"
    )]
    WorkflowNotPermitted(WorkflowName),
    /// This daemon cannot give a user or group access to a directory; with the reason.
    #[error("this daemon cannot give access to {0}")]
    UidNotPermitted(String),
}

/// The command that lists the existing resources of this type.
fn hint(absent: &ResourceName) -> &'static str {
    match absent {
        ResourceName::Connection(_) => "; list them with: keyhatch connection list",
        ResourceName::Group(_) => "; list them with: keyhatch group list",
        ResourceName::Integration(_) => "; list them with: keyhatch integration list",
        ResourceName::Executor(_) => "; list them with: keyhatch executor list",
        ResourceName::Operator(_) => "; list them with: keyhatch operator list",
        ResourceName::Lease(_) | ResourceName::Opening(_) | ResourceName::Secret(_) => "",
    }
}

/// What an upstream has done.
fn of_upstream(name: &ResourceName, reason: FailureReason) -> String {
    match reason {
        FailureReason::EgressDenied => {
            format!("this broker may not connect to the upstream of {name}")
        }
        FailureReason::Invalid => format!("the upstream of {name} gives no valid answer"),
        FailureReason::NoIssuer => format!(
            "{name} needs a token of this broker, which is no issuer yet; an operator reads: keyhatch issuer show"
        ),
        FailureReason::NotKept => {
            format!(
                "the store takes no writes, so the upstream of {name} was not asked; try again later"
            )
        }
        FailureReason::Reauthorize => {
            format!("the refresh token of {name} is of no use any more: an operator writes another")
        }
        FailureReason::Refused => {
            format!("the upstream of {name} refuses to make a credential from what is stored")
        }
        FailureReason::TooManyEndings => format!(
            "too many credentials of {name} have not ended upstream, so no more are made; an operator lists them with: keyhatch ending list"
        ),
        FailureReason::Unavailable => {
            format!("the upstream of {name} cannot be reached or fails; try again later")
        }
    }
}

impl From<AuthorityError> for Error {
    fn from(error: AuthorityError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<TooManyBlocks> for Error {
    fn from(error: TooManyBlocks) -> Self {
        Self::Lever(error.into())
    }
}

impl From<WatchEnded> for Error {
    fn from(error: WatchEnded) -> Self {
        Self::Lever(error.into())
    }
}

impl From<Unavailable> for Error {
    fn from(_: Unavailable) -> Self {
        Self::JournalUnavailable
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Internal(format!("the journal: {error}")),
            ReadError::Newer(what) => Self::Newer(what),
        }
    }
}

impl From<Misfit> for Error {
    fn from(Misfit { group, connection, why }: Misfit) -> Self {
        match why {
            NotAdmitted::Missing(identifier) => {
                Self::IdentifierMissing { group, connection, identifier: identifier.to_string() }
            }
            NotAdmitted::Taken(other) => Self::IdentifiersNotUnique { group, connection, other },
        }
    }
}

impl From<NoRandomness> for Error {
    fn from(error: NoRandomness) -> Self {
        Self::Internal(error.to_string())
    }
}

impl Error {
    /// The same error, or [`Error::Newer`] if the missing resource was written by a newer version.
    pub(super) fn or_newer(self, catalog: &Catalog) -> Self {
        match self {
            Self::NotFound(name) if catalog.is_newer(&name) => Self::Newer(name.to_string()),
            error => error,
        }
    }
}
