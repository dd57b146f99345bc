//! Resource names as the API writes them (AIP-122): `connections/aws/prod`.

use std::fmt;
use std::str::FromStr;

use super::name::{
    ExecutorName, GroupName, IntegrationName, Invalid, OperatorName, SecretName, WorkflowName,
};
use super::reference::{ConnectionRef, SecretRef};
use crate::model::id::Id;

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

impl ResourceName {
    /// The text. Allocated once: each credential has several names.
    pub fn to_text(&self) -> String {
        match self {
            Self::Connection(ConnectionRef { integration, name }) => {
                ["connections/", integration.as_str(), "/", name.as_str()].concat()
            }
            Self::Executor(name) => ["executors/", name.as_str()].concat(),
            Self::Group(name) => ["groups/", name.as_str()].concat(),
            Self::Integration(name) => ["integrations/", name.as_str()].concat(),
            Self::Lease(id) => ["leases/", id.digits().as_str()].concat(),
            Self::Opening(id) => ["openings/", id.digits().as_str()].concat(),
            Self::Operator(name) => ["operators/", name.as_str()].concat(),
            Self::Secret(SecretRef { workflow, name }) => {
                ["workflows/", workflow.as_str(), "/secrets/", name.as_str()].concat()
            }
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ResourceName::Secret(self.clone()).to_text())
    }
}

impl FromStr for SecretRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse()? {
            ResourceName::Secret(secret) => Ok(secret),
            _ => Err(Invalid::new("secret", text, "write workflows/WORKFLOW/secrets/NAME")),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
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
        let unknown = || Invalid::new("resource name", text, "for example connections/aws/prod");
        if let Some(rest) = text.strip_prefix("workflows/") {
            // A workflow's name may hold the separator, a secret's may not: the last occurrence separates.
            let (workflow, name) = rest.rsplit_once("/secrets/").ok_or_else(unknown)?;
            let (workflow, name) = (WorkflowName::parse(workflow)?, SecretName::parse(name)?);
            return Ok(Self::Secret(SecretRef { workflow, name }));
        }
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
            _ => Err(unknown()),
        }
    }
}
