//! Resource names as the API writes them (AIP-122): `connections/aws/prod`.

use std::fmt;
use std::str::FromStr;

use super::id::Id;
use super::name::{
    ExecutorName, GroupName, IntegrationName, Invalid, OperatorName, SecretName, WorkflowName,
};
use super::reference::{ConnectionRef, SecretRef};

/// The full name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// `connections/INTEGRATION/NAME`
    Connection(ConnectionRef),
    /// `executors/NAME`
    Executor(ExecutorName),
    /// `groups/NAME`
    Group(GroupName),
    /// `integrations/NAME`
    Integration(IntegrationName),
    /// `leases/ID`
    Lease(Id),
    /// `openings/ID`
    Opening(Id),
    /// `operators/NAME`
    Operator(OperatorName),
    /// `workflows/WORKFLOW/secrets/NAME`
    Secret(SecretRef),
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(connection) => write!(f, "connections/{connection}"),
            Self::Executor(name) => write!(f, "executors/{name}"),
            Self::Group(name) => write!(f, "groups/{name}"),
            Self::Integration(name) => write!(f, "integrations/{name}"),
            Self::Lease(id) => write!(f, "leases/{id}"),
            Self::Opening(id) => write!(f, "openings/{id}"),
            Self::Operator(name) => write!(f, "operators/{name}"),
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
            ["executors", name] => Ok(Self::Executor(ExecutorName::parse(name)?)),
            ["operators", name] => Ok(Self::Operator(OperatorName::parse(name)?)),
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
