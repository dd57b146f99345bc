//! The statements, as texts. Names and texts of others are quoted, so that they are no more than names and texts.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::mint::Ask;
use crate::mint::roots::is_of;
use crate::model::Id;

/// The longest name, in bytes. The server would cut a longer name, and it would be another's.
const MAX_NAME_BYTES: usize = 63;
/// How many sessions a role may have if the connection does not say: a step cannot use up the server's connections.
const DEFAULT_LIMIT: &str = "10";
/// The first release in which a membership has options.
const VERSION_WITH_OPTIONS: u32 = 160_000;
/// How each transaction begins: whatever the database's own settings are, names mean the system's own objects, and nothing
/// waits for longer than a call may take. Poolers hand a connection on, so the settings end with the transaction.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                                SET LOCAL search_path = pg_catalog, pg_temp; \
                                SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '5s'; ";

/// A name as an identifier (PostgreSQL's documentation, 4.1.1). `None` if the server has no name like that.
pub(super) fn identifier(name: &str) -> Option<String> {
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0');
    is_name.then(|| format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A text as a constant (4.1.2), whatever `standard_conforming_strings` is. A zero byte ends it.
pub(super) fn literal(text: &str) -> String {
    let text = text.split('\0').next().unwrap_or_default().replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\")),
        false => format!("'{text}'"),
    }
}

/// The name of the role for a mint: `kh_MINT_STEP`, in which MINT begins the mint's id. Characters that would need quotes
/// become `_`.
pub(super) fn role_name(ask: &Ask) -> String {
    let mint = ask.mint.digits();
    let mint = mint.as_str().get(..12).unwrap_or_default();
    let step = ask.step.as_ref().map_or("shared", |step| step.as_str()).to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("kh_{mint}_{step}").chars().map(plain).take(MAX_NAME_BYTES).collect()
}

/// The mint that has made a role, by its name and its comment; `None` if no broker has made it. Other roles cannot write the
/// comment unless they may create roles.
pub(super) fn mint_of(role: &str, comment: &str) -> Option<Id> {
    let mint: Id = comment.strip_prefix("keyhatch: ")?.rsplit_once("; mint ")?.1.parse().ok()?;
    let begin = format!("kh_{}_", mint.digits().as_str().get(..12)?);
    (role.starts_with(&begin) && is_of(role, "_")).then_some(mint)
}

/// True if a membership can be granted without the right to act as the other role, by `server_version_num`.
pub(super) fn has_options(version: &str) -> bool {
    version.parse().is_ok_and(|version: u32| version >= VERSION_WITH_OPTIONS)
}

/// What the creation of a role needs beside its name.
pub(super) struct NewRole<'a> {
    pub(super) verifier: &'a str,
    /// When its password ends, as the server writes times.
    pub(super) until: &'a str,
    pub(super) connection_limit: Option<&'a str>,
    /// The roles that it is a member of.
    pub(super) roles: &'a [String],
    /// See [`has_options`].
    pub(super) has_options: bool,
}

/// The statements that make a role. `role` is an identifier, as are the roles that it is a member of.
pub(super) fn create(role: &str, new: &NewRole<'_>, ask: &Ask) -> Zeroizing<String> {
    let NewRole { verifier, until, connection_limit, roles, has_options } = new;
    let limit = connection_limit.unwrap_or(DEFAULT_LIMIT);
    let mut sql = Zeroizing::new(format!(
        "CREATE ROLE {role} LOGIN INHERIT CONNECTION LIMIT {limit} PASSWORD {} VALID UNTIL {}; ",
        literal(verifier),
        literal(until),
    ));
    let options = if *has_options { " WITH INHERIT TRUE, SET FALSE" } else { "" };
    // Writing to a text cannot fail.
    for group in *roles {
        let _ = write!(sql, "GRANT {group} TO {role}{options}; ");
    }
    let _ = write!(sql, "COMMENT ON ROLE {role} IS {}", literal(&comment(ask)));
    sql
}

fn comment(ask: &Ask) -> String {
    let step = ask.step.as_ref().map_or("a", |step| step.as_str());
    let run = ask.run.as_ref().map_or("a", |run| run.as_str());
    format!("keyhatch: step {step} of run {run} of workflow {}; mint {}", ask.workflow, ask.mint)
}

/// Waits until no other transaction is making or ending this role. A transaction whose client has gone may still be on its
/// way to its end, and its role is not to be seen before.
pub(super) fn lock(role: &str) -> String {
    let hash = digest::digest(&digest::SHA256, format!("keyhatch {role}").as_bytes());
    let number = hash.as_ref().first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
    format!("SELECT pg_advisory_xact_lock({number})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::samples::ask;
    use crate::model::StepName;

    #[test]
    fn names_and_texts_are_quoted_so_that_they_stay_what_they_are() {
        let long = "x".repeat(64);
        for (name, quoted) in [
            ("orders", Some("\"orders\"")),
            ("Two words", Some("\"Two words\"")),
            ("a\"; DROP ROLE b; --", Some("\"a\"\"; DROP ROLE b; --\"")),
            ("\"\"", Some("\"\"\"\"\"\"")),
            ("a'b\\c", Some("\"a'b\\c\"")),
            ("r\u{f6}le", Some("\"r\u{f6}le\"")),
            ("", None),
            ("a\0b", None),
            (long.as_str(), None),
        ] {
            assert_eq!(identifier(name).as_deref(), quoted, "{name}");
        }
        for (text, quoted) in [
            ("", "''"),
            ("it's", "'it''s'"),
            ("a'; DROP ROLE b; --", "'a''; DROP ROLE b; --'"),
            ("a\\'b", " E'a\\\\''b'"),
            ("a\0b", "'a'"),
        ] {
            assert_eq!(literal(text), quoted, "{text}");
        }
    }

    #[test]
    fn a_role_is_named_after_its_mint_and_its_step() {
        let named = |step: &str| {
            let mut ask = ask();
            ask.step = Some(StepName::parse(step).unwrap());
            role_name(&ask)
        };
        assert_eq!(named("build"), "kh_010203040000_build");
        assert_eq!(named("Build image.v2@x86+z"), "kh_010203040000_build_image_v2_x86_z");
        let long = named(&"s".repeat(128));
        assert_eq!(long.len(), 63);
        assert!(identifier(&long).is_some());
    }

    #[test]
    fn a_mint_is_known_by_its_roles_name_and_comment() {
        let (role, told) = (role_name(&ask()), comment(&ask()));
        assert_eq!(mint_of(&role, &told), Some(ask().mint));
        assert_eq!(mint_of(&role, ""), None);
        assert_eq!(mint_of("kh_999999999999_build", &told), None);
        assert_eq!(mint_of(&format!("{role}\""), &told), None);
        assert_eq!(mint_of(&role, &told.replace("keyhatch", "other")), None);
    }

    #[test]
    fn a_role_is_made_with_its_memberships_and_its_end() {
        let groups = ["\"readers\"".to_owned(), "\"Wri\"\"ters\"".to_owned()];
        let mut new = NewRole {
            verifier: "SCRAM-SHA-256$4096:a$b:c",
            until: "2026-11-30 09:00:00+00",
            connection_limit: Some("2"),
            roles: &groups,
            has_options: false,
        };
        assert_eq!(
            create("\"kh_1_s\"", &new, &ask()).as_str(),
            "CREATE ROLE \"kh_1_s\" LOGIN INHERIT CONNECTION LIMIT 2 PASSWORD 'SCRAM-SHA-256$4096:a$b:c' \
             VALID UNTIL '2026-11-30 09:00:00+00'; GRANT \"readers\" TO \"kh_1_s\"; \
             GRANT \"Wri\"\"ters\" TO \"kh_1_s\"; COMMENT ON ROLE \"kh_1_s\" IS \
             'keyhatch: step build of run 42 of workflow deploy; mint 01020304000000000000000000000000'"
        );
        new.has_options = true;
        let made = create("\"kh_1_s\"", &new, &ask());
        assert!(made.contains("GRANT \"readers\" TO \"kh_1_s\" WITH INHERIT TRUE, SET FALSE; "));
    }
}
