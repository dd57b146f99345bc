//! SPIFFE IDs: the identity of a certificate, in one parser.
//!
//! | path | who |
//! |---|---|
//! | `/workflow/W/run/R/step/S` | a step |
//! | `/executor/NAME` | an executor |
//! | `/operator/NAME` | an operator |
//! | `/broker/NAME` | a daemon |
//!
//! SPIFFE allows letters, digits, `.`, `-` and `_` in a path segment (SPIFFE-ID 2.2), fewer characters than our names have.
//! Every byte outside `[A-Za-z0-9.-]` is therefore written `_HH` in upper-case hexadecimal, `_` itself as `_5F`. An ID that
//! its names do not encode to exactly is refused, so that no identity has two texts.

use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use super::name::{ExecutorName, Invalid, OperatorName, RunName, StepName, WorkflowName};
use crate::model::text::read_from_text;

/// SPIFFE-ID 2.1: "trust domain names … MUST NOT exceed 255 bytes".
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// SPIFFE-ID 2.3: "implementations MUST NOT generate SPIFFE IDs longer than 2048 bytes".
const MAX_ID_BYTES: usize = 2048;

/// A validated trust domain, such as `keyhatch.local`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The default trust domain.
    pub const DEFAULT: &'static str = "keyhatch.local";

    /// Parses a trust domain.
    ///
    /// # Errors
    /// If it is empty, too long, or holds more than lower-case letters, digits, `.`, `-` and `_`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_BYTES || !text.bytes().all(allowed) {
            let rule = "1 to 255 lower-case letters, digits or . - _";
            return Err(Invalid::new("trust domain", text, rule));
        }
        Ok(Self(text.to_owned()))
    }

    /// The trust domain of a SPIFFE ID.
    ///
    /// # Errors
    /// If there is none in it.
    pub fn of(uri: &str) -> Result<Self, Invalid> {
        let rest = uri.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        Self::parse(rest.unwrap_or_default())
    }

    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

read_from_text!(TrustDomain, Self::parse);

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

/// The identity of a certificate within its trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpiffeId {
    /// A daemon; no client.
    Broker(String),
    /// An executor.
    Executor(ExecutorName),
    /// An operator.
    Operator(OperatorName),
    /// A step of a run of a workflow.
    Step {
        /// The step's workflow.
        workflow: WorkflowName,
        /// The run.
        run: RunName,
        /// The step.
        step: StepName,
    },
}

impl SpiffeId {
    /// Parses the URI of a certificate of `domain`.
    ///
    /// # Errors
    /// If it is of another trust domain, of no known form, or not in its one canonical writing.
    pub fn parse(uri: &str, domain: &TrustDomain) -> Result<Self, Invalid> {
        let invalid = |rule| Invalid::new("SPIFFE ID", uri, rule);
        if uri.len() > MAX_ID_BYTES {
            return Err(invalid("at most 2048 bytes"));
        }
        let path = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.strip_prefix(domain.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| invalid("it is not of this broker's trust domain"))?;
        let segments = path
            .split('/')
            .map(decode)
            .collect::<Option<Vec<String>>>()
            .ok_or_else(|| invalid("a path segment is not _HH-encoded"))?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let id = match words.as_slice() {
            ["workflow", workflow, "run", run, "step", step] => Self::Step {
                workflow: WorkflowName::parse(workflow)?,
                run: RunName::parse(run)?,
                step: StepName::parse(step)?,
            },
            ["executor", name] => Self::Executor(ExecutorName::parse(name)?),
            ["operator", name] => Self::Operator(OperatorName::parse(name)?),
            // SPIFFE-ID 2.2: no segment is empty, "." or "..".
            ["broker", name] if !["", ".", ".."].contains(name) => Self::Broker((*name).to_owned()),
            _ => return Err(invalid("its path is none of this broker's")),
        };
        if id.uri(domain) == uri {
            Ok(id)
        } else {
            Err(invalid("it is not written in its canonical form"))
        }
    }

    /// The canonical URI in `domain`.
    pub fn uri(&self, domain: &TrustDomain) -> String {
        let mut uri = format!("spiffe://{domain}");
        match self {
            Self::Broker(name) => segments(&mut uri, &["broker", name]),
            Self::Executor(name) => segments(&mut uri, &["executor", name.as_str()]),
            Self::Operator(name) => segments(&mut uri, &["operator", name.as_str()]),
            Self::Step { workflow, run, step } => segments(
                &mut uri,
                &["workflow", workflow.as_str(), "run", run.as_str(), "step", step.as_str()],
            ),
        }
        uri
    }
}

/// A daemon, as `spiffe://TD/broker/NAME` names it to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct BrokerId {
    /// Its trust domain.
    pub domain: TrustDomain,
    /// Its name.
    pub name: String,
}

impl BrokerId {
    /// Parses the SPIFFE ID of a daemon.
    ///
    /// # Errors
    /// If it is malformed, or another identity's.
    pub fn parse(uri: &str) -> Result<Self, Invalid> {
        let domain = TrustDomain::of(uri)?;
        match SpiffeId::parse(uri, &domain)? {
            SpiffeId::Broker(name) => Ok(Self { domain, name }),
            _ => Err(Invalid::new("broker's SPIFFE ID", uri, "spiffe://TRUST-DOMAIN/broker/NAME")),
        }
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&SpiffeId::Broker(self.name.clone()).uri(&self.domain))
    }
}

impl From<BrokerId> for String {
    fn from(id: BrokerId) -> Self {
        id.to_string()
    }
}

read_from_text!(BrokerId, Self::parse);

fn segments(uri: &mut String, words: &[&str]) {
    for word in words {
        uri.push('/');
        for byte in word.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-' {
                uri.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(uri, "_{byte:02X}");
            }
        }
    }
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let pair = [rest.next()?, rest.next()?];
            let mut decoded = [0];
            hex::decode_to_slice(pair, &mut decoded).ok()?;
            bytes.extend(decoded);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("keyhatch.local").unwrap()
    }

    #[test]
    fn every_name_has_one_writing_and_comes_back_from_it() {
        let id = SpiffeId::Step {
            workflow: WorkflowName::parse("my deploy_1").unwrap(),
            run: RunName::parse("2026:1~a").unwrap(),
            step: StepName::parse("build@x+y").unwrap(),
        };
        let uri = id.uri(&domain());
        assert_eq!(
            uri,
            "spiffe://keyhatch.local/workflow/my_20deploy_5F1/run/2026_3A1_7Ea/step/build_40x_2By"
        );
        assert_eq!(SpiffeId::parse(&uri, &domain()).unwrap(), id);
    }

    #[test]
    fn an_id_that_does_not_re_encode_to_itself_is_refused() {
        for uri in [
            "spiffe://other.domain/operator/a",
            "spiffe://keyhatch.local.evil/operator/a",
            "spiffe://keyhatch.local/operator/_61",
            "spiffe://keyhatch.local/operator/a_5f",
            "spiffe://keyhatch.local/operator/a_b",
            "spiffe://keyhatch.local/operator/a/",
            "spiffe://keyhatch.local//operator/a",
            "spiffe://keyhatch.local/operator/../operator/a",
            "spiffe://keyhatch.local/operator/a%20b",
            "spiffe://keyhatch.local/operator/a?b",
            "SPIFFE://keyhatch.local/operator/a",
            "spiffe://keyhatch.local/operator/",
            "spiffe://keyhatch.local/broker/",
            "spiffe://keyhatch.local/broker/..",
            "spiffe://keyhatch.local/workflow/a/run/b",
        ] {
            assert!(SpiffeId::parse(uri, &domain()).is_err(), "{uri}");
        }
    }
}
