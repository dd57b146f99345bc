//! A look at a connection's values for what is wrong with them, which hands none out.

use super::Broker;
use super::error::Error;
use super::operators::require_role;
use crate::access::{Decision, Principal, Role, decide_edit};
use crate::catalog::{Catalog, Connection};
use crate::identity::{PemFault, check_certificate, check_pair, check_private_key};
use crate::integration::{CredentialKind, Finding, Form, find_field, findings};
use crate::journal::{CommitError, TestLine, Unavailable};
use crate::model::{ConnectionRef, Fields, ResourceName};

/// What a look at the values found.
pub struct Inspected {
    /// Which version.
    pub version: u64,
    /// Where the decision stands in the journal.
    pub decision_id: String,
    /// Without values.
    pub findings: Vec<Finding>,
}

impl Broker {
    /// Looks at a connection's values.
    ///
    /// # Errors
    /// See `ConnectionService.TestConnection`.
    pub fn test_connection(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
    ) -> Result<Inspected, Error> {
        require_role(caller, Role::Operator)?;
        // Each turn means that somebody's change was published, so this ends.
        loop {
            match self.test_once(caller, name) {
                Err(CommitError::Stale) => {}
                Err(CommitError::Quarantined) => return Err(Error::Quarantined),
                Err(CommitError::Unavailable(Unavailable)) => {
                    return Err(Error::JournalUnavailable);
                }
                Err(error) => return Err(Error::Internal(error.to_string())),
                Ok(outcome) => return outcome,
            }
        }
    }

    fn test_once(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
    ) -> Result<Result<Inspected, Error>, CommitError> {
        let snapshot = self.snapshot();
        let resource = ResourceName::Connection(name.clone());
        let Some(connection) = snapshot.catalog.connection(name) else {
            return Ok(Err(Error::NotFound(resource).or_newer(&snapshot.catalog)));
        };
        let metadata = &connection.metadata;
        let Decision::Allow(by) = decide_edit(caller, &metadata.access) else {
            return Ok(Err(Error::EditDenied(resource)));
        };
        let line = TestLine {
            principal: caller.to_string(),
            resource: resource.to_string(),
            uid: metadata.uid,
            version: metadata.version,
            by,
        };
        let (record, now) = (connection.values.key, self.now());
        if let Err(error) = self.writer.budgets.take(caller, "TestConnection", now) {
            return Ok(Err(error));
        }
        let permit = self.journal.commit_test(now, snapshot.head, record, line)?;
        let decision_id = permit.decision_id().to_string();
        let opened = permit.open(&connection.values.sealed, &self.keyring).ok();
        let fields = opened.and_then(|opened| opened.to_fields()).ok_or(Error::Corrupt);
        Ok(fields.map(|fields| Inspected {
            version: metadata.version,
            decision_id,
            findings: all_findings(&snapshot.catalog, connection, &fields),
        }))
    }
}

fn all_findings(catalog: &Catalog, connection: &Connection, fields: &Fields) -> Vec<Finding> {
    let metadata = &connection.metadata;
    let integration = catalog.integration(&metadata.integration);
    let Some(kind) = integration.and_then(|found| found.kind(metadata.kind.as_str())) else {
        return vec![Finding::new("", "its kind is gone from its integration")];
    };
    let mut found = findings(kind, fields);
    found.extend(pem_findings(kind, fields));
    found.sort_by(|one, other| one.field.cmp(&other.field));
    found
}

/// Certificates and keys that do not parse, or do not belong together.
fn pem_findings(kind: &CredentialKind, fields: &Fields) -> Vec<Finding> {
    let of_form = |form: Form| {
        fields.iter().filter(move |(name, _)| {
            find_field(kind, name.as_str()).is_some_and(|rule| rule.form == Some(form))
        })
    };
    let mut found = Vec::new();
    let mut note = |field: &str, outcome: Result<(), PemFault>| {
        if let Err(fault) = outcome {
            found.push(Finding::new(field, fault.to_string()));
        }
    };
    for (name, value) in of_form(Form::Certificate) {
        note(name.as_str(), check_certificate(value.expose()));
    }
    for (name, value) in of_form(Form::PrivateKey) {
        note(name.as_str(), check_private_key(value.expose()));
    }
    // A connection with one of each has a pair.
    let (mut certificates, mut keys) = (of_form(Form::Certificate), of_form(Form::PrivateKey));
    if let (Some((_, certificate)), Some((name, key)), None, None) =
        (certificates.next(), keys.next(), certificates.next(), keys.next())
        && let Err(PemFault::Mismatch) = check_pair(certificate.expose(), key.expose())
    {
        note(name.as_str(), Err(PemFault::Mismatch));
    }
    found
}
