//! References in text: `aws/my-aws-account`, `secret:token`.

use std::fmt;
use std::str::FromStr;

use super::name::{ConnectionName, IntegrationName, Invalid, SecretName, WorkflowName};

/// A connection by integration and name, written `aws/my-aws-account`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionRef {
    /// The type of the connection.
    pub integration: IntegrationName,
    /// Its name within the integration.
    pub name: ConnectionName,
}

impl fmt::Display for ConnectionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.integration, self.name)
    }
}

impl FromStr for ConnectionRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (integration, name) = text.split_once('/').ok_or_else(|| {
            Invalid::new("connection", text, "write INTEGRATION/NAME, for example aws/prod")
        })?;
        Ok(Self {
            integration: IntegrationName::parse(integration)?,
            name: ConnectionName::parse(name)?,
        })
    }
}

/// A secret by workflow and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    /// The only workflow whose steps resolve it.
    pub workflow: WorkflowName,
    /// Its name within the workflow.
    pub name: SecretName,
}

/// What a step can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `aws/my-aws-account`
    Connection(ConnectionRef),
    /// `secret:token`, of the step's own workflow.
    Secret(SecretName),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(connection) => connection.fmt(f),
            Self::Secret(name) => write!(f, "secret:{name}"),
        }
    }
}

impl FromStr for Reference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("secret:") {
            Some(name) => SecretName::parse(name).map(Self::Secret),
            None if text.contains('/') => text.parse().map(Self::Connection),
            None => {
                let rule = "write INTEGRATION/NAME for a connection or secret:NAME for a secret";
                Err(Invalid::new("reference", text, rule))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_back_from_their_text() {
        for text in ["aws/my-aws-account", "secret:token", "4me/a b"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for bad in ["aws", "aws/", "/x", "aws/a/b", "secret:", "AWS/x"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
