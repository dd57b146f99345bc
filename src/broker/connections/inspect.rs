//! Findings about a connection's values: faults are named, values are never returned.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::{Decision, Principal, Role, decide_edit};
use crate::broker::Broker;
use crate::broker::changes::documents::{ConnectionDocument, Document, SecretDocument};
use crate::broker::connections::trial::{
    Failed, TestMint, TrialOrder, handed_out_itself, is_handed_out, not_mintable, rotates, unusable,
};
use crate::broker::error::Error;
use crate::broker::minting::{Turn, open_roots};
use crate::broker::registry::operators::require_role;
use crate::catalog::{Catalog, Connection};
use crate::identity::{PemFault, check_certificate, check_pair, check_private_key, first_validity};
use crate::integration::{
    CredentialKind, Finding, Severity, ValueForm, doubts, find_field, findings, infer_kind,
    needs_newline, text_findings, token_end,
};
use crate::journal::{CommitError, TestLine, Unavailable};
use crate::model::{ConnectionRef, FieldName, Fields, ResourceName, Timestamp, Value};

/// The result of a test.
pub struct Inspected {
    /// The tested version.
    pub version: u64,
    /// The decision's line in the journal.
    pub decision_id: String,
    /// The findings, without values.
    pub findings: Vec<Finding>,
    /// What a mint has made, or the reason why it has made nothing; `None` if nobody asked for a mint.
    pub trial: Option<Result<TestMint, &'static str>>,
}

/// A test whose decision is journaled.
struct Tested {
    inspected: Inspected,
    /// The mint to try, or why there is nothing to try.
    order: Result<TrialOrder, Failed>,
}

/// A test that is asked for.
struct Wanted<'a> {
    caller: &'a Principal,
    name: &'a ConnectionRef,
    mints: bool,
    /// The turn of the connection, if its root may be replaced.
    turn: Option<Turn>,
}

impl Broker {
    /// Tests a connection's values, and with `mints` also whether its upstream makes a credential. The decision is
    /// journaled.
    ///
    /// # Errors
    /// See `ConnectionService.TestConnection`.
    pub async fn test_connection(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
        mints: bool,
    ) -> Result<Inspected, Error> {
        require_role(caller, Role::Operator)?;
        let turn = if mints { self.turn_of(name).await } else { None };
        let wanted = Wanted { caller, name, mints, turn };
        let Tested { mut inspected, order } = self.test_values(wanted)?;
        if mints {
            let trial = match order {
                Ok(order) => self.try_mint(order).await,
                Err(failed) => Err(failed),
            };
            inspected.trial = Some(trial.map_err(|Failed { reason, detail }| {
                inspected.findings.push(Finding::error("", detail));
                reason
            }));
        }
        Ok(inspected)
    }

    /// Opens the root of a connection as a test does that mints: its line is written.
    pub(super) fn open_for_test(
        &self,
        caller: &Principal,
        name: &ConnectionRef,
    ) -> Result<TrialOrder, String> {
        let tested = self.test_values(Wanted { caller, name, mints: true, turn: None });
        let order = tested.map_err(|error| error.to_string())?.order;
        order.map_err(|Failed { detail, .. }| detail)
    }

    /// The turn of a connection whose root a mint may replace; `None` for other connections, and if its turn does not come.
    async fn turn_of(&self, name: &ConnectionRef) -> Option<Turn> {
        let snapshot = self.snapshot();
        let found = snapshot.catalog.connection(name)?;
        let (catalog, metadata) = (&snapshot.catalog, &found.metadata);
        match rotates(catalog, metadata) && !is_handed_out(catalog, metadata) {
            true => self.mints.turn(metadata.uid).await,
            false => None,
        }
    }

    fn test_values(&self, mut wanted: Wanted<'_>) -> Result<Tested, Error> {
        // Each turn means that another change was published, so the loop ends.
        loop {
            match self.test_once(&mut wanted) {
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

    fn test_once(&self, wanted: &mut Wanted<'_>) -> Result<Result<Tested, Error>, CommitError> {
        let Wanted { caller, name, mints, .. } = *wanted;
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
            mints,
            refreshes: wanted.turn.is_some() && metadata.unusable().is_none(),
        };
        let (record, now) = (connection.values.key, self.now());
        if let Err(error) = self.writer.budgets.take(caller, "TestConnection", now) {
            return Ok(Err(error));
        }
        let permit = self.journal.commit_test(now, snapshot.epoch, record, line)?;
        let decision = permit.decision_id();
        let newest = snapshot.catalog.newest_refresh_token(metadata);
        let opened = open_roots(&self.keyring, permit, &connection.values, newest);
        Ok(opened.map_err(|_| Error::Corrupt).map(|fields| {
            let mut found = all_findings(&snapshot.catalog, connection, &fields, now);
            found.extend(self.issuer_doubt(metadata));
            let inspected = Inspected {
                version: metadata.version,
                decision_id: decision.to_string(),
                findings: found,
                trial: None,
            };
            let mint = decision.to_opaque(&self.keyring).parse().ok();
            let order = mint.filter(|_| mints).and_then(|mint| {
                let named = (decision, mint);
                TrialOrder::of(&snapshot.catalog, metadata, fields, named, caller)
            });
            let order = match metadata.unusable() {
                Some(why) => Err(unusable(why)),
                None if is_handed_out(&snapshot.catalog, metadata) => Err(handed_out_itself()),
                None => order.ok_or_else(not_mintable),
            };
            let order = order.map(|order| order.with_turn(metadata, wanted.turn.take()));
            Tested { inspected, order }
        }))
    }
}

fn all_findings(
    catalog: &Catalog,
    connection: &Connection,
    fields: &Fields,
    now: Timestamp,
) -> Vec<Finding> {
    let metadata = &connection.metadata;
    let integration = catalog.integration(&metadata.integration);
    let Some(kind) = integration.and_then(|found| found.kind(metadata.kind.as_str())) else {
        return vec![Finding::error("", "its integration has no such kind any more")];
    };
    let mended = metadata.fields.iter().filter(|(_, field)| field.is_mended);
    let mut found: Vec<_> = mended.map(|(name, _)| Finding::mended(name.as_str())).collect();
    let fields = fields.iter().map(|(name, value)| (name.clone(), value)).collect();
    found.extend(of_values(kind, &fields, now));
    found.extend(doubts(&fields));
    found.sort_by(|one, other| one.field.cmp(&other.field));
    found
}

/// Findings about the values of a kind, each and together.
fn of_values(
    kind: &CredentialKind,
    fields: &BTreeMap<FieldName, &Value>,
    now: Timestamp,
) -> Vec<Finding> {
    let mut found = findings(kind, fields);
    let errors = found.iter().filter(|one| one.severity == Severity::Error);
    let is_judged: BTreeSet<String> = errors.map(|one| one.field.clone()).collect();
    // A value of a wrong form needs no second finding.
    let of_pem = pem_findings(kind, fields);
    found.extend(of_pem.into_iter().filter(|one| !is_judged.contains(&one.field)));
    found.extend(of_validity(kind, fields, now));
    found
}

/// Findings about the values that a document gives, as a test would report them. Stored values are left out: a caller
/// who may write need not be a caller who may test.
pub(crate) fn of_document(catalog: &Catalog, document: &Document, now: Timestamp) -> Vec<Finding> {
    match document {
        Document::Connection(given) => of_connection(catalog, given, now),
        Document::Secret(SecretDocument { value: Some(value), .. }) => of_secret(value),
        Document::Secret(_) | Document::Group(_) | Document::Integration(_) => Vec::new(),
    }
}

pub(crate) fn of_secret(value: &Value) -> Vec<Finding> {
    let mended = needs_newline(value).then(|| Finding::mended("value"));
    mended.into_iter().chain(text_findings("value", value)).collect()
}

pub(super) fn of_connection(
    catalog: &Catalog,
    given: &ConnectionDocument,
    now: Timestamp,
) -> Vec<Finding> {
    let fields = given.fields.given();
    let integration = catalog.integration(&given.name.integration);
    let old = catalog.connection(&given.name);
    let kind = old.map(|old| &old.metadata.kind).or(given.kind.as_ref());
    let names = fields.keys().map(String::as_str).collect();
    let Some(kind) = integration.and_then(|found| infer_kind(found, kind, &names).ok()) else {
        return Vec::new();
    };
    let named = fields.iter().filter_map(|(name, value)| {
        let rule = find_field(kind, name)?;
        Some((rule.canonical(name)?, value))
    });
    let fields: BTreeMap<FieldName, &Value> = named.collect();
    let mended = fields.iter().filter(|(_, value)| needs_newline(value));
    let mut found: Vec<_> = mended.map(|(name, _)| Finding::mended(name.as_str())).collect();
    found.extend(of_values(kind, &fields, now));
    // A missing field may be stored already.
    found.retain(|one| old.is_none() || fields.keys().any(|name| name.as_str() == one.field));
    found
}

/// Certificates and keys that do not parse, or do not belong together.
fn pem_findings(kind: &CredentialKind, fields: &BTreeMap<FieldName, &Value>) -> Vec<Finding> {
    let rule_of = |name: &FieldName| find_field(kind, name.as_str());
    let of_form = |form: ValueForm| {
        let is_of = move |name: &FieldName| rule_of(name).is_some_and(|one| one.form == Some(form));
        fields.iter().filter(move |(name, _)| is_of(name))
    };
    let mut found = Vec::new();
    let mut note = |field: &str, outcome: Result<(), PemFault>| {
        if let Err(fault) = outcome {
            found.push(Finding::error(field, fault.to_string()));
        }
    };
    for (name, value) in of_form(ValueForm::Certificate) {
        note(name.as_str(), check_certificate(value.expose()));
    }
    for (name, value) in of_form(ValueForm::PrivateKey) {
        note(name.as_str(), check_private_key(value.expose()));
    }
    // One certificate and one private key are a pair, unless the certificate says which servers are trusted.
    let is_own = |name: &FieldName| rule_of(name).is_none_or(|rule| !rule.destination);
    let mut certificates = of_form(ValueForm::Certificate).filter(|(name, _)| is_own(name));
    let mut keys = of_form(ValueForm::PrivateKey);
    if let (Some((_, certificate)), Some((name, key)), None, None) =
        (certificates.next(), keys.next(), certificates.next(), keys.next())
        && let Err(PemFault::Mismatch) = check_pair(certificate.expose(), key.expose())
    {
        note(name.as_str(), Err(PemFault::Mismatch));
    }
    found
}

/// Certificates and tokens that are not in force by their own dates. In a bundle without a private key, the first
/// certificate may not be the important one: that is a warning.
fn of_validity(
    kind: &CredentialKind,
    fields: &BTreeMap<FieldName, &Value>,
    now: Timestamp,
) -> Vec<Finding> {
    let form_of = |name: &FieldName| find_field(kind, name.as_str()).and_then(|rule| rule.form);
    let has_key = fields.keys().any(|name| form_of(name) == Some(ValueForm::PrivateKey));
    let mut found = Vec::new();
    for (name, value) in fields {
        let validity = first_validity(value.expose())
            .filter(|_| form_of(name) == Some(ValueForm::Certificate));
        let text = match validity {
            Some(validity) if validity.not_after < now => {
                format!("the certificate ended at {}; write its successor", validity.not_after)
            }
            Some(validity) if now < validity.not_before => {
                format!("the certificate is not valid before {}", validity.not_before)
            }
            _ => match token_end(value.expose()).filter(|end| *end < now) {
                Some(end) => format!("the token ended at {end}; write a new one"),
                None => continue,
            },
        };
        found.push(match validity.is_some() && !has_key {
            true => Finding::warning(name.as_str(), text),
            false => Finding::error(name.as_str(), text),
        });
    }
    found
}
