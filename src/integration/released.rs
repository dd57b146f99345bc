//! What a step gets of a connection: the stored fields or, while the connection is minted, a credential that is made from
//! them.

use std::collections::BTreeSet;

use super::schema::{CredentialKind, FieldRule, best, find_field};
use super::source::Source;
use crate::model::{FieldName, Fields, Release};

/// The field of a minted credential with the token that the broker has fetched for its own requests. No step gets it.
pub const FETCHED_TOKEN: &str = "access_token";

/// The rules of the fields that a step may ask for. While a connection is minted, these are the fields of the minted
/// credential, and the stored fields that are no roots.
pub fn released(kind: &CredentialKind, release: Release) -> impl Iterator<Item = &FieldRule> {
    let is_minted = release == Release::Minted;
    let made = kind.minted.iter().filter(move |rule| is_minted && !rule.root);
    made.chain(kind.fields.iter().filter(move |rule| !(is_minted && rule.root)))
}

/// The rule of a field that a step asks for by one of its names; `None` if no step gets a field of this name.
pub fn find_released_field<'a>(
    kind: &'a CredentialKind,
    release: Release,
    name: &str,
) -> Option<&'a FieldRule> {
    best(|| released(kind, release), name)
}

/// The names of the fields that a step may get of a connection that has the fields `set`; a step that asks for none by
/// name gets all of them. A stored field without a rule is not released while the connection is minted.
pub fn released_names<'a>(
    kind: &CredentialKind,
    release: Release,
    set: impl IntoIterator<Item = &'a FieldName>,
) -> BTreeSet<FieldName> {
    let is_stored = release == Release::Stored;
    let stays = |name: &&FieldName| {
        is_stored || find_released_field(kind, release, name.as_str()).is_some()
    };
    let made = kind.minted.iter().filter(|rule| !is_stored && rule.required);
    let made = made.filter_map(|rule| rule.canonical(&rule.name));
    set.into_iter().filter(stays).cloned().chain(made).collect()
}

/// The names of the fields of a minted credential that a step may get, of those that are kept.
pub fn handed_out(kind: &CredentialKind, kept: Fields) -> BTreeSet<FieldName> {
    let is_released =
        |name: &FieldName| find_released_field(kind, Release::Minted, name.as_str()).is_some();
    kept.into_keys().filter(is_released).collect()
}

/// What is kept of a minted credential: the fields of `made` that the kind names, and the fields of `stored` that are no
/// roots and were not made.
pub fn kept(kind: &CredentialKind, stored: Fields, made: Fields) -> Fields {
    let is_made = |name: &FieldName| kind.minted.iter().any(|rule| rule.covers(name.as_str()));
    let is_public = |name: &FieldName| {
        let rule = find_released_field(kind, Release::Minted, name.as_str());
        rule.is_some_and(|rule| !rule.root)
    };
    let mut fields: Fields = stored.into_iter().filter(|(name, _)| is_public(name)).collect();
    fields.extend(made.into_iter().filter(|(name, _)| is_made(name)));
    fields
}

/// How the credentials of a connection are made that has these fields; `None` if its kind is never minted.
pub fn source_of(kind: &CredentialKind, has: impl Fn(&FieldRule) -> bool) -> Option<Source> {
    let stand_in = kind.web_identity.as_ref().filter(|one| has_field(kind, &one.field, has));
    stand_in.map(|one| one.source).or(kind.source)
}

fn has_field(kind: &CredentialKind, name: &str, has: impl Fn(&FieldRule) -> bool) -> bool {
    find_field(kind, name).is_some_and(has)
}

/// True if the broker can mint credentials from the fields that a connection has.
pub fn can_mint(kind: &CredentialKind, has: impl Fn(&FieldRule) -> bool) -> bool {
    kind.source.is_some() && missing_roots(kind, has).next().is_none()
}

/// What a new connection releases if nobody says: its kind's default, or its stored fields if nothing can be minted from
/// the fields that it has. Without a stored root there is nothing but the minted credential.
pub fn default_release(kind: &CredentialKind, has: impl Fn(&FieldRule) -> bool) -> Release {
    if source_of(kind, &has) != kind.source {
        return Release::Minted;
    }
    if can_mint(kind, has) { kind.release } else { Release::Stored }
}

/// The rules of the fields that are missing for a connection to be minted, beside the required ones.
pub(super) fn missing_roots<'a>(
    kind: &'a CredentialKind,
    has: impl Fn(&FieldRule) -> bool + 'a,
) -> impl Iterator<Item = &'a FieldRule> {
    let needed = kind.fields.iter().filter(|rule| kind.roots.contains(&rule.name));
    needed.filter(move |rule| {
        let stands_in = |other: &str| has_field(kind, other, &has);
        !has(rule) && !rule.unless.as_deref().is_some_and(stands_in)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{built_in, find_field};
    use super::*;
    use crate::model::{IntegrationName, Value};

    fn kind(integration: &str, kind: &str) -> &'static CredentialKind {
        built_in()[&IntegrationName::parse(integration).unwrap()].kind(kind).unwrap()
    }

    fn names(names: &[&str]) -> Vec<FieldName> {
        names.iter().map(|name| FieldName::parse(name).unwrap()).collect()
    }

    #[test]
    fn no_root_is_among_the_fields_of_a_minted_connection() {
        for integration in built_in().values() {
            for kind in &integration.kinds {
                assert_eq!(kind.source.is_some(), !kind.minted.is_empty(), "{}", kind.name);
                assert!(kind.source.is_some() || kind.release == Release::Stored, "{}", kind.name);
                for rule in kind.fields.iter().filter(|rule| rule.root) {
                    assert!(kind.source.is_some(), "{}: {}", kind.name, rule.name);
                    for name in std::iter::once(&rule.name).chain(&rule.aliases) {
                        let name = name.replace('*', "x");
                        assert!(find_released_field(kind, Release::Stored, &name).is_some());
                        let found = find_released_field(kind, Release::Minted, &name);
                        assert!(found.is_none(), "{}: {name}", kind.name);
                    }
                }
                // What a step of a minted connection gets beside the minted fields is no secret.
                let left = kind.fields.iter().filter(|rule| !rule.root && rule.sensitive);
                assert!(kind.source.is_none() || left.count() == 0, "{}", kind.name);
            }
        }
    }

    #[test]
    fn a_minted_role_has_the_fields_of_an_access_key() {
        let role = kind("aws", "assume_role");
        let set = names(&["account_id", "role", "external_id", "region", "source_access_key_id"]);
        let released = released_names(role, Release::Minted, &set);
        let expected =
            ["access_key_id", "account_id", "region", "role", "secret_access_key", "session_token"];
        assert!(released.iter().map(FieldName::as_str).eq(expected));
        assert_eq!(released_names(role, Release::Stored, &set).len(), set.len());
        let key = kind("aws", "access_key");
        for made in &role.minted {
            let own = find_field(key, &made.name).unwrap();
            assert_eq!((&own.env, &own.aliases), (&made.env, &made.aliases), "{}", made.name);
            assert_eq!(own.sensitive, made.sensitive, "{}", made.name);
        }
    }

    #[test]
    fn nothing_but_minted_and_public_fields_is_kept() {
        let value = |text: &str| Value::new(text.into());
        let two_step = kind("http", "two_step");
        let stored = ["base_url", "headers.Authorization", "tokens.key", "request_url", "password"];
        let stored = names(&stored).into_iter().map(|name| (name, value("stored"))).collect();
        let made = names(&["headers.Authorization", "tokens.key", FETCHED_TOKEN]);
        let made = made.into_iter().map(|name| (name, value("made"))).collect();
        let kept = kept(two_step, stored, made);
        let expected = [
            (FETCHED_TOKEN, b"made".as_slice()),
            ("base_url", b"stored"),
            ("headers.Authorization", b"made"),
        ];
        assert!(kept.iter().map(|(name, value)| (name.as_str(), value.expose())).eq(expected));
        // The fetched token is for the broker's own requests.
        let handed = handed_out(two_step, kept);
        assert!(handed.iter().map(FieldName::as_str).eq(["base_url", "headers.Authorization"]));
    }

    #[test]
    fn a_role_without_a_key_is_stored_unless_somebody_says() {
        let role = kind("aws", "assume_role");
        let has_no_token = |rule: &FieldRule| rule.name != "web_identity_audience";
        let has_nothing =
            |rule: &FieldRule| has_no_token(rule) && !rule.name.starts_with("source_");
        assert_eq!(default_release(role, has_nothing), Release::Stored);
        assert_eq!(default_release(role, has_no_token), Release::Minted);
        let has_key = |rule: &FieldRule| rule.name != "workload_identity_provider";
        assert_eq!(default_release(kind("gcp", "service_account"), has_key), Release::Stored);
    }

    #[test]
    fn a_token_of_the_broker_stands_in_for_the_root() {
        for (integration, name, field, source) in [
            ("aws", "assume_role", "web_identity_audience", Source::AwsWebIdentity),
            ("gcp", "service_account", "workload_identity_provider", Source::GcpWebIdentity),
        ] {
            let kind = kind(integration, name);
            let replaces = |rule: &FieldRule| rule.unless.as_deref() == Some(field);
            assert!(kind.fields.iter().any(replaces));
            let has = |rule: &FieldRule| rule.name == field;
            assert_eq!(source_of(kind, has), Some(source));
            assert!(can_mint(kind, has));
            assert_eq!(default_release(kind, has), Release::Minted);
            assert_eq!(source_of(kind, replaces), kind.source);
        }
        let token = kind("oidc", "token");
        assert!(can_mint(token, |_| false) && default_release(token, |_| false) == Release::Minted);
    }
}
