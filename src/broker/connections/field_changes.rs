//! The fields that an update writes and removes, and the rule of destinations.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::changes::documents::{ConnectionDocument, NOTHING_KEPT, Patch};
use crate::broker::changes::draft::Draft;
use crate::broker::error::Error;
use crate::catalog::{Connection, ConnectionMetadata, FieldMetadata, REFRESH_TOKEN, Values};
use crate::identity::first_validity;
use crate::integration::{
    self, Checked, CheckedField, CredentialKind, PresentField, PresentFields, Problem, token_end,
};
use crate::model::{FieldName, Release, ResourceName, Timestamp, Value, size_class};
use crate::seal::{FieldChange, ReadValues};

/// The differences between a document's fields and a connection's fields.
pub(crate) struct FieldChanges {
    /// Every field that the document gives a value, changed or not.
    given: BTreeSet<FieldName>,
    /// The fields that get another value or a stricter rule, with the value's fingerprint.
    changed: BTreeMap<FieldName, (CheckedField, [u8; 32])>,
    /// The fields that are removed.
    removed: BTreeSet<FieldName>,
    /// What steps get afterwards.
    release: Release,
}

impl FieldChanges {
    pub(crate) fn find(
        draft: &Draft,
        kind: &CredentialKind,
        old: &Connection,
        document: &ConnectionDocument,
        release: Release,
    ) -> Result<Self, Error> {
        let stored = &old.metadata.fields;
        let is_whole = matches!(document.fields, Patch::Replace(_));
        let (named, kept) = (&document.removed, &document.kept);
        let fields = document.fields.given();
        let canonical = |name: &str| {
            // A stored field of exactly this name comes first, whatever the schema calls by that name now.
            let own = FieldName::parse(name).ok().filter(|name| stored.contains_key(name));
            let by_rule =
                || integration::find_field(kind, name).and_then(|rule| rule.canonical(name));
            own.or_else(by_rule)
        };
        let is_stored = |name: &str| canonical(name).is_some_and(|name| stored.contains_key(&name));
        let is_known = |name: &str| canonical(name).is_some();
        let unknown = absent(named, is_known, "there is no such field to remove");
        let nothing_kept = absent(kept, is_stored, NOTHING_KEPT);
        let named: BTreeSet<FieldName> = named.iter().filter_map(|name| canonical(name)).collect();
        let given: BTreeSet<FieldName> = fields.keys().filter_map(|name| canonical(name)).collect();
        let rule_of = |name: &FieldName| integration::find_field(kind, name.as_str());
        let goes = |name: &&FieldName| {
            let is_generated = rule_of(name).is_some_and(|rule| rule.generated);
            let is_named = named.contains(*name) || (is_whole && !is_generated);
            is_named && !given.contains(*name)
        };
        let mut removed: BTreeSet<FieldName> = stored.keys().filter(goes).cloned().collect();
        let stays = stored.iter().filter(|(name, _)| !removed.contains(*name));
        let present: PresentFields =
            stays.map(|(name, field)| (name.clone(), present_field(field))).collect();
        let mut problems = cannot_go(kind, &removed, &present, &given);
        problems.extend(unknown);
        problems.extend(nothing_kept);
        let given_now = document.copied_fields();
        let checked = match integration::check(kind, given_now, Some(&present), release) {
            Ok(checked) => checked,
            Err(others) => {
                problems.extend(others);
                Checked::new()
            }
        };
        if !problems.is_empty() {
            return Err(Error::FieldsInvalid(problems));
        }
        let changed = changed(draft, old, checked);
        let is_kept =
            |name: &FieldName| kept.iter().any(|one| canonical(one).as_ref() == Some(name));
        let goes =
            |name: &FieldName| stored.contains_key(name) && !given.contains(name) && !is_kept(name);
        removed.extend(parts_of(kind, &changed).filter(goes));
        Ok(Self { given, changed, removed, release })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    pub(crate) fn names(&self) -> Vec<FieldName> {
        self.changed.keys().chain(&self.removed).cloned().collect()
    }

    /// Refuses to add, change or remove a destination unless every sensitive field is written, too. So nobody learns a
    /// secret by sending it somewhere else. To release what was minted from is to send it elsewhere, and so is to admit more
    /// requests than before (`is_wider`). A value that is given again counts, even if it is equal.
    pub(super) fn check_destinations(
        &self,
        kind: &CredentialKind,
        old: &Connection,
        resource: &ResourceName,
        is_wider: bool,
    ) -> Result<(), Error> {
        let fields = &old.metadata.fields;
        let was_destination = |name: &FieldName| {
            fields.get(name).is_some_and(|old| old.is_destination(name, Some(kind)))
        };
        let changed = self.changed.iter();
        let moved = changed
            .filter(|(name, (field, _))| field.destination || was_destination(name))
            .map(|(name, _)| name)
            .chain(self.removed.iter().filter(|name| was_destination(name)))
            // A sensitive destination counts even if it is equal: the answer would reveal its value.
            .chain(self.given.iter().filter(|name| {
                was_destination(name) && fields.get(*name).is_some_and(|old| old.sensitive)
            }))
            .map(FieldName::as_str);
        let is_loosened =
            (old.metadata.release, self.release) == (Release::Minted, Release::Stored);
        let loosened = Some("release").filter(|_| is_loosened);
        let wider = Some("send").filter(|_| is_wider);
        let Some(destination) = loosened.into_iter().chain(wider).chain(moved).next() else {
            return Ok(());
        };
        // A rotated refresh token is known to nobody: only another one shows that the writer has it.
        let is_rotated =
            |name: &FieldName| name.as_str() == REFRESH_TOKEN && old.metadata.is_rotated();
        let is_given = |name: &FieldName| match is_rotated(name) {
            true => self.changed.contains_key(name),
            false => self.given.contains(name),
        };
        let stays = |name: &FieldName| !is_given(name) && !self.removed.contains(name);
        let missing = fields.iter().filter(|(name, field)| field.sensitive && stays(name));
        let missing: Vec<&str> = missing.map(|(name, _)| name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::SecretsRequired {
            resource: resource.clone(),
            destination: destination.to_string(),
            missing: missing.join(", "),
        })
    }

    /// Makes a new version of the credential.
    pub(crate) fn write(
        self,
        draft: &Draft,
        metadata: &mut ConnectionMetadata,
        old: &Connection,
    ) -> Result<Values, Error> {
        metadata.version += 1;
        metadata.forget_refusal();
        let by = metadata.updated_by.clone();
        let mut changes = BTreeMap::new();
        for name in self.removed {
            metadata.fields.remove(&name);
            changes.insert(name, FieldChange::Remove);
        }
        for (name, (field, print)) in self.changed {
            metadata.fields.insert(name.clone(), field_metadata((&by, draft.now), &field, print));
            changes.insert(name, FieldChange::Set(field.value));
        }
        let key = old.values.key;
        let sealed = draft
            .keyring
            .reseal_values(key, &old.values.sealed, metadata.version, changes)
            .map_err(|error| match error {
                ReadValues::Open(_) => Error::Corrupt,
                ReadValues::NoRandomness(error) => error.into(),
            })?;
        Ok(Values { key, sealed })
    }
}

/// The metadata of a field that is written by this principal at this time.
pub(super) fn field_metadata(
    (by, now): (&str, Timestamp),
    field: &CheckedField,
    fingerprint: [u8; 32],
) -> FieldMetadata {
    let readable = if field.sensitive { Vec::new() } else { field.value.expose().to_vec() };
    FieldMetadata {
        sensitive: field.sensitive,
        destination: field.destination,
        bytes: field.value.len(),
        fingerprint,
        value: readable,
        expire_time: end_of(&field.value),
        is_mended: field.is_mended,
        update_time: now,
        updated_by: by.to_owned(),
    }
}

/// The end of a value, if the value itself states one.
fn end_of(value: &Value) -> Option<Timestamp> {
    let value = value.expose();
    token_end(value).or_else(|| first_validity(value).map(|validity| validity.not_after))
}

fn present_field(stored: &FieldMetadata) -> PresentField {
    // Exact sizes would reveal a secret's length to a caller who tries how much fits beside it.
    let room = if stored.sensitive { size_class(stored.bytes) } else { stored.bytes };
    PresentField { room, value: stored.value.clone() }
}

/// The fields to write: another value, or a stricter rule for the same value.
fn changed(
    draft: &Draft,
    old: &Connection,
    checked: Checked,
) -> BTreeMap<FieldName, (CheckedField, [u8; 32])> {
    let (uid, stored) = (old.metadata.uid, &old.metadata.fields);
    let with_print = checked.into_iter().map(|(name, field)| {
        let print = draft.keyring.fingerprint(uid, name.as_str(), field.value.expose());
        (name, (field, print))
    });
    let is_written = |name: &FieldName, field: &CheckedField, print: &[u8; 32]| {
        stored.get(name).is_none_or(|old| {
            let is_tightened =
                (field.sensitive && !old.sensitive) || (field.destination && !old.destination);
            // A trial does not reveal whether a value equals the stored value: it could be repeated without end.
            let is_hidden = draft.is_trial && (field.sensitive || old.sensitive);
            old.fingerprint != *print || is_tightened || is_hidden
        })
    };
    with_print.filter(|(name, (field, print))| is_written(name, field, print)).collect()
}

/// A problem for each name that fails the check.
fn absent(
    names: &BTreeSet<String>,
    is_there: impl Fn(&str) -> bool,
    text: &'static str,
) -> Vec<Problem> {
    let absent = names.iter().filter(|name| !is_there(name));
    absent.map(|name| Problem::new(name, text)).collect()
}

/// The fields that are part of a changed field's credential (`part_of`): beside another value they are of no use.
fn parts_of<'a>(
    kind: &'a CredentialKind,
    changed: &'a BTreeMap<FieldName, (CheckedField, [u8; 32])>,
) -> impl Iterator<Item = FieldName> + 'a {
    let changes = |whole: &str| changed.keys().any(|name| name.as_str() == whole);
    let parts = kind.fields.iter().filter(move |rule| rule.part_of.as_deref().is_some_and(changes));
    parts.filter_map(|rule| rule.canonical(&rule.name))
}

/// A problem for each removed field that must stay.
fn cannot_go(
    kind: &CredentialKind,
    removed: &BTreeSet<FieldName>,
    present: &PresentFields,
    given: &BTreeSet<FieldName>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in &kind.fields {
        let covers = |name: &FieldName| rule.covers(name.as_str());
        let Some(gone) = removed.iter().find(|name| covers(name)) else { continue };
        let is_left = present.keys().chain(given).any(covers);
        let must_stay = rule.required && rule.unless.is_none();
        if rule.generated || (must_stay && !is_left) {
            problems.push(Problem::new(gone.as_str(), "it cannot be removed, only overwritten"));
        }
    }
    problems
}
