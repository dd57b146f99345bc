//! The words of the broker, parsed and checked. A value of one of these types is never malformed, so no other room checks
//! it again. This room uses no other.

mod action;
mod allowed;
pub mod compact_map;
mod formats;
mod id;
pub mod limits;
mod log_limit;
mod names;
mod opening;
mod rate;
mod release;
mod request;
mod send_limits;
mod text;
mod time;
mod value;

pub use action::{Action, SendAction};
pub use allowed::AllowedTarget;
pub use compact_map::CompactMap;
pub use formats::Formats;
pub use id::{Id, IdMap, IdSet};
pub use limits::{JournalMode, Limits};
pub use log_limit::LogLimit;
pub use names::because::Because;
pub use names::host::{HostName, HostPort};
pub use names::label::Labels;
pub use names::letter::is_unseen;
pub use names::name::{
    ConnectionName, ContextName, ExecutorName, FieldName, GroupName, IntegrationName, Invalid,
    KindName, OperatorName, RequestId, RunAsName, RunName, SecretName, StepName, WorkflowName,
};
pub use names::path::WorkflowPath;
pub use names::reference::{ConnectionRef, GroupRef, Reference, SecretRef};
pub use names::resource::ResourceName;
pub use names::run_as::{RunAs, RunAsKind};
pub use names::spiffe::{BrokerId, SpiffeId, TrustDomain};
pub use names::tag::{Identifiers, Tag, TagKey, TagValue, Tags};
pub use opening::{Opening, PinnedCertificate, StepKey, StepOwner};
pub use rate::{Rate, RateLimit, Recent};
pub use release::Release;
pub use request::{NamedRequest, RequestMac};
pub use send_limits::SendLimits;
pub(crate) use text::read_from_text;
pub use text::{HexDigits, base64_bytes, hex_bytes, parsed};
pub use time::{Clock, Timestamp};
pub use value::{Fields, SIZE_STEP, Value, size_class};
