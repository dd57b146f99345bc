//! The words of the broker, parsed and checked. A value of one of these types cannot be malformed, so
//! nothing further in looks at it again. This room knows no other.

mod allowed;
pub mod compact_map;
mod formats;
mod id;
mod label;
mod letter;
pub mod limits;
mod name;
mod opening;
mod path;
mod quiet;
mod reference;
mod request;
mod resource;
mod run_as;
mod spiffe;
mod tag;
mod text;
mod time;
mod value;

pub use allowed::AllowedTarget;
pub use compact_map::CompactMap;
pub use formats::Formats;
pub use id::Id;
pub use label::Labels;
pub use letter::is_unseen;
pub use limits::{JournalMode, Limits};
pub use name::{
    ConnectionName, ExecutorName, FieldName, GroupName, IntegrationName, Invalid, KindName,
    OperatorName, RequestId, RunAsName, RunName, SecretName, StepName, WorkflowName,
};
pub use opening::{Opening, PinnedCertificate, StepKey};
pub use path::WorkflowPath;
pub use quiet::Quiet;
pub use reference::{ConnectionRef, GroupRef, Reference, SecretRef};
pub use request::{NamedRequest, RequestMac};
pub use resource::ResourceName;
pub use run_as::{RunAs, RunAsKind};
pub use spiffe::{SpiffeId, TrustDomain};
pub use tag::{Identifiers, Tag, TagKey, TagValue, Tags};
pub(crate) use text::read_from_text;
pub use text::{HexDigits, base64_bytes, hex_bytes, parsed};
pub use time::{Clock, Timestamp};
pub use value::{Fields, SIZE_STEP, Value, size_class};
