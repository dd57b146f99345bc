//! References in text: `aws/my-aws-account`, `group:aws-accounts:env=prod`, `secret:token`, `default:slack`.

use std::fmt;
use std::str::FromStr;

use super::name::{ConnectionName, GroupName, IntegrationName, Invalid, SecretName, WorkflowName};
use super::tag::{TagKey, TagValue, Tags};

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

/// A member of a group by the values of its identifiers, written `group:aws-accounts:env=prod,region=eu`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupRef {
    /// The group.
    pub name: GroupName,
    /// A value for each of its identifiers.
    pub identifiers: Tags,
}

impl GroupRef {
    fn to_text(&self) -> String {
        let mut text = ["group:", self.name.as_str(), ":"].concat();
        for (number, tag) in self.identifiers.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            text.extend([comma, tag.key.as_str(), "=", tag.value.as_str()]);
        }
        text
    }
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for GroupRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("group", text, "write group:NAME:KEY=VALUE,KEY=VALUE");
        let rest = text.strip_prefix("group:").ok_or_else(invalid)?;
        let (name, pairs) = rest.split_once(':').ok_or_else(invalid)?;
        let mut identifiers = Tags::default();
        // A group without identifiers is a valid question: the answer names the identifiers that it needs.
        for pair in pairs.split(',').filter(|_| !pairs.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(invalid)?;
            if identifiers.insert(TagKey::parse(key)?, TagValue::parse(value)?)?.is_some() {
                return Err(Invalid::new("group", text, "each identifier is given once"));
            }
        }
        Ok(Self { name: GroupName::parse(name)?, identifiers })
    }
}

/// A credential or secret that a step can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `aws/my-aws-account`
    Connection(ConnectionRef),
    /// `default:slack`: the default connection of an integration.
    Default(IntegrationName),
    /// `group:aws-accounts:env=prod,region=eu`
    Group(GroupRef),
    /// `secret:token`, of the step's own workflow.
    Secret(SecretName),
}

impl Reference {
    /// The text. Allocated once: each credential that is resolved by a group or a default has one.
    pub fn to_text(&self) -> String {
        match self {
            Self::Connection(ConnectionRef { integration, name }) => {
                [integration.as_str(), "/", name.as_str()].concat()
            }
            Self::Default(integration) => ["default:", integration.as_str()].concat(),
            Self::Group(group) => group.to_text(),
            Self::Secret(name) => ["secret:", name.as_str()].concat(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for Reference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.starts_with("group:") {
            return text.parse().map(Self::Group);
        }
        if let Some(name) = text.strip_prefix("secret:") {
            return SecretName::parse(name).map(Self::Secret);
        }
        match text.strip_prefix("default:") {
            Some(integration) => IntegrationName::parse(integration).map(Self::Default),
            None if text.contains('/') => text.parse().map(Self::Connection),
            None => {
                let rule = "write INTEGRATION/NAME, group:NAME:KEY=VALUE, secret:NAME or default:INTEGRATION";
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
        for text in [
            "aws/my-aws-account",
            "secret:token",
            "4me/a b",
            "group:aws accounts:env=prod,region=eu/1",
            "default:slack",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for bad in [
            "aws",
            "aws/",
            "/x",
            "aws/a/b",
            "secret:",
            "default:",
            "default:Slack",
            "AWS/x",
            "group:a",
            "group:a:b",
            "group:a:b=c,b=d",
            &format!("group:a:{}k=v", (0..64).map(|n| format!("k{n}=v,")).collect::<String>()),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
