//! Resource names as the API writes them (AIP-122): `connections/aws/prod`.

use std::fmt;
use std::str::FromStr;

use super::id::Id;
use super::name::{GroupName, IntegrationName, Invalid, SecretName, WorkflowName};
use super::reference::{ConnectionRef, SecretRef};

/// The full name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// `connections/INTEGRATION/NAME`
    Connection(ConnectionRef),
    /// `groups/NAME`
    Group(GroupName),
    /// `integrations/NAME`
    Integration(IntegrationName),
    /// `leases/ID`
    Lease(Id),
    /// `openings/ID`
    Opening(Id),
    /// `workflows/WORKFLOW/secrets/NAME`
    Secret(SecretRef),
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(connection) => write!(f, "connections/{connection}"),
            Self::Group(name) => write!(f, "groups/{name}"),
            Self::Integration(name) => write!(f, "integrations/{name}"),
            Self::Lease(id) => write!(f, "leases/{id}"),
            Self::Opening(id) => write!(f, "openings/{id}"),
            Self::Secret(secret) => {
                write!(f, "workflows/{}/secrets/{}", secret.workflow, secret.name)
            }
        }
    }
}

impl FromStr for ResourceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id = |digits: &str| {
            digits
                .parse()
                .map_err(|_| Invalid::new("resource name", text, "its id is 32 hex digits"))
        };
        match text.split('/').collect::<Vec<_>>().as_slice() {
            ["connections", integration, name] => {
                Ok(Self::Connection(format!("{integration}/{name}").parse()?))
            }
            ["groups", name] => Ok(Self::Group(GroupName::parse(name)?)),
            ["integrations", name] => Ok(Self::Integration(IntegrationName::parse(name)?)),
            ["leases", digits] => Ok(Self::Lease(id(digits)?)),
            ["openings", digits] => Ok(Self::Opening(id(digits)?)),
            ["workflows", workflow, "secrets", name] => Ok(Self::Secret(SecretRef {
                workflow: WorkflowName::parse(workflow)?,
                name: SecretName::parse(name)?,
            })),
            _ => Err(Invalid::new("resource name", text, "for example connections/aws/prod")),
        }
    }
}
