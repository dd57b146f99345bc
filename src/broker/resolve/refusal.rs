//! Why no credential is handed out.

use std::time::Duration;

use crate::access::Block;
use crate::broker::error::Error;
use crate::catalog::NotSelected;
use crate::integration::Source;
use crate::mint::FailureReason;
use crate::model::{FieldName, Id, ResourceName};

/// Why no credential is handed out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// An operator has blocked it, or the step. The step is not told.
    Blocked {
        /// The block, as the rule that refuses.
        by: String,
    },
    Denied,
    Disabled(ResourceName),
    FieldUnknown {
        field: String,
        known: String,
    },
    NotFound(ResourceName),
    NotSelected(NotSelected),
    /// The step's executor does not let the step ask for it.
    Outside,
    /// The connection's limits do not admit the request.
    NotSent,
    /// The step has a relation that is too low. It is not told.
    TooLow {
        /// The connection.
        uid: Id,
        /// The bindings that give the step its relation.
        by: String,
    },
    /// No request can be made with the connection. The text says why.
    Unsendable(String),
    /// The upstream failed a moment ago, and is not asked again yet.
    Upstream {
        name: ResourceName,
        source: Source,
        reason: FailureReason,
        wait: Duration,
        /// The mint that has failed; `None` if the upstream was not asked.
        mint: Option<Id>,
    },
}

impl Refusal {
    pub(super) fn blocked(block: &Block) -> Self {
        Self::Blocked { by: block.as_rule() }
    }

    pub(super) fn field_unknown<'a>(
        field: String,
        known: impl IntoIterator<Item = &'a FieldName>,
    ) -> Self {
        let known: Vec<_> = known.into_iter().map(FieldName::as_str).collect();
        Self::FieldUnknown { field, known: known.join(", ") }
    }

    /// The reason of the API, as the journal records it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Blocked { .. } | Self::Denied | Self::Outside | Self::TooLow { .. } => {
                "RESOLVE_DENIED"
            }
            Self::Disabled(_) => "CONNECTION_DISABLED",
            Self::FieldUnknown { .. } => "FIELD_UNKNOWN",
            Self::NotFound(_) => "SECRET_NOT_FOUND",
            Self::NotSelected(NotSelected::Incomplete(_)) => "IDENTIFIERS_INCOMPLETE",
            Self::NotSelected(NotSelected::NoMember) => "GROUP_MEMBER_NOT_FOUND",
            Self::NotSelected(NotSelected::Unknown(_)) => "IDENTIFIER_UNKNOWN",
            Self::NotSent => "SEND_NOT_ALLOWED",
            Self::Unsendable(_) => "SEND_UNSUPPORTED",
            Self::Upstream { reason, .. } => reason.as_str(),
        }
    }

    /// The rule that refused it, if that is not access, or the bindings of too low a relation, as the journal records it.
    pub(crate) fn by(&self) -> &str {
        match self {
            Self::Outside => "allowed_targets",
            Self::Blocked { by } | Self::TooLow { by, .. } => by,
            _ => "",
        }
    }

    /// The connection to which the step has a relation that is too low.
    pub(crate) fn too_low_on(&self) -> Option<Id> {
        match self {
            Self::TooLow { uid, .. } => Some(*uid),
            _ => None,
        }
    }

    /// The mint that has failed, if that refuses it.
    pub(crate) fn mint(&self) -> Option<Id> {
        match self {
            Self::Upstream { mint, .. } => *mint,
            _ => None,
        }
    }

    /// The error for the step.
    pub(crate) fn into_error(self, decision_id: String) -> Error {
        match self {
            Self::Blocked { .. } | Self::Denied | Self::Outside | Self::TooLow { .. } => {
                Error::Denied { decision_id }
            }
            Self::Disabled(name) => Error::Disabled(name),
            Self::FieldUnknown { field, known } => Error::FieldUnknown { field, known },
            Self::NotFound(name) => Error::NotFound(name),
            Self::NotSent => Error::SendNotAllowed,
            Self::Unsendable(why) => Error::SendUnsupported(why),
            Self::NotSelected(NotSelected::Incomplete(key)) => {
                Error::IdentifiersIncomplete(key.to_string())
            }
            Self::NotSelected(NotSelected::NoMember) => Error::NoMember,
            Self::NotSelected(NotSelected::Unknown(key)) => {
                Error::IdentifierUnknown(key.to_string())
            }
            Self::Upstream { name, reason, wait, .. } => {
                Error::Upstream { name, reason, wait, decision_id }
            }
        }
    }
}
