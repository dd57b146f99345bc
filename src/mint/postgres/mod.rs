//! PostgreSQL: a login role for one step.
//!
//! An admin role creates it as a member of the roles that the connection names. It is ended in two stages: first its access
//! ends, with every session that it has open; then the role is dropped. `DROP ROLE` alone would leave its sessions running.
//!
//! | file | holds |
//! |---|---|
//! | `server` | the fields of a connection, and the way to its server |
//! | `session` | transactions as the admin role |
//! | `login` | the login of the admin role, by SCRAM alone |
//! | `wire` | the messages of the protocol |
//! | `sql` | the statements, as texts |
//! | `remembered` | hashes of admin passwords, masked |
//! | `scram` | proofs of a password, and the verifier that is stored in its place |
//! | `refusal` | what a server's refusal means |
//! | `ending`, `role`, `left` | the two stages; what a role leaves behind |
//! | `listing` | the roles that brokers have made |

mod ending;
mod left;
mod listing;
mod login;
mod refusal;
mod remembered;
mod role;
mod scram;
mod server;
mod session;
mod sql;
mod wire;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::egress::{EXCHANGE_TIMEOUT, Egress};
use crate::model::{FieldName, Fields, Value};
use crate::seal::random;

use super::clock::CredentialEnd;
use super::failure::{Failure, FailureReason};
use super::roots::{Roots, text_value};
use super::{Ask, Minted, asked_life, fields};
use left::Left;
use server::Server;
use session::Refused;
use sql::NewRole;

pub use ending::end;
pub use listing::list;

/// How long a role may log in if the connection does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
/// The least and the longest time that a role may log in, in seconds.
const SECONDS: std::ops::RangeInclusive<u64> = 60..=86_400;
/// The most roles that a role is made a member of.
const MAX_ROLES: usize = 16;
/// How long making a role may take. It ends before the caller's patience does, because it knows what a late answer means.
const TIMEOUT: Duration = EXCHANGE_TIMEOUT.saturating_sub(Duration::from_millis(100));
/// The fields that say where the login goes, and how the server proves that it is the right one.
const DESTINATION: [&str; 5] = ["ca_certificate", "database", "host", "port", "sslmode"];
/// The fields of the login.
const LOGIN: [&str; 2] = ["admin_password", "admin_user"];
/// The fields that an ending needs, beside the role's name.
const ENDING_FIELDS: [&str; 9] = [
    "admin_password",
    "admin_user",
    "ca_certificate",
    "database",
    "drop_objects",
    "host",
    "port",
    "reassign_to",
    "sslmode",
];

/// Makes a role and its password.
///
/// # Errors
/// See [`super::mint`]. The failure is uncertain only if the transaction was about to take effect.
pub async fn mint(egress: &Egress, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let wanted = Wanted::of(roots)?;
    let no_random = |_| Failure::new(FailureReason::Unavailable, "there are no random numbers");
    let secret = Zeroizing::new(random::<32>().map_err(no_random)?);
    let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(*secret));
    let verifier = scram::verifier(&password, &random().map_err(no_random)?);
    let role = sql::role_name(ask);
    let mut is_committing = false;
    let making = wanted.make(egress, &role, &verifier, ask, &mut is_committing);
    let made = tokio::time::timeout(TIMEOUT, making).await.unwrap_or_else(|_| {
        let text = format!("the server did not answer within {} s", EXCHANGE_TIMEOUT.as_secs());
        Err(Failure::new(FailureReason::Unavailable, text))
    });
    made.map_err(|failure| Failure { is_uncertain: is_committing, ..failure })?;
    Ok(Minted {
        fields: fields([("user", text_value(&role)), ("password", text_value(&password))])?,
        end: Some(CredentialEnd::told(ask.now.after(wanted.life))),
        handle: Some(role),
        upstream_request: None,
        ending: None,
    })
}

/// What [`end`] needs for the role that is about to be made.
///
/// # Errors
/// If the fields make no request.
pub fn ending_ahead(roots: Roots<'_>, ask: &Ask) -> Result<Fields, Failure> {
    Wanted::of(roots)?;
    ending_of(roots, &sql::role_name(ask))
}

/// What [`end`] needs for a role.
fn ending_of(roots: Roots<'_>, role: &str) -> Result<Fields, Failure> {
    let kept = ENDING_FIELDS.into_iter().filter_map(|name| {
        roots.value(name).map(|value| (name, Value::new(value.expose().to_vec())))
    });
    fields(kept.chain([("role", text_value(role))]))
}

/// See [`super::ending_by_newest`].
pub fn ending_by_newest(ending: Roots<'_>, newest: Roots<'_>) -> Option<Fields> {
    let bytes = |roots: Roots<'_>, name| roots.value(name).map(|value| value.expose().to_vec());
    if DESTINATION.into_iter().any(|name| bytes(ending, name) != bytes(newest, name)) {
        return None;
    }
    let login = LOGIN.map(|name| Some((name, newest.copy(name)?)));
    let [Some(password), Some(user)] = login else { return None };
    let kept = ending.0.keys().map(FieldName::as_str).filter(|name| !LOGIN.contains(name));
    let kept = kept.filter_map(|name| Some((name, ending.copy(name)?)));
    fields(kept.chain([password, user])).ok()
}

/// What a connection wants of a role.
struct Wanted<'a> {
    server: Server<'a>,
    /// The roles that it becomes a member of, as identifiers.
    roles: Vec<String>,
    connection_limit: Option<&'a str>,
    life: Duration,
}

impl<'a> Wanted<'a> {
    fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let is_time =
            |text: &str| text.parse().is_ok_and(|seconds: u64| SECONDS.contains(&seconds));
        roots.checked("mint_seconds", "a number of 60 to 86400", is_time)?;
        let is_limit = |text: &str| text.parse::<u16>().is_ok_and(|limit| limit > 0);
        let names = roots.text("roles")?.split(',').map(|name| sql::identifier(name.trim()));
        let roles = names.collect::<Option<Vec<_>>>().filter(|roles| roles.len() <= MAX_ROLES);
        Left::of(roots)?;
        let fault = "is not 1 to 16 names of 1 to 63 bytes, with commas between them";
        Ok(Self {
            server: Server::of(roots)?,
            roles: roles.ok_or_else(|| Failure::field("roles", fault))?,
            connection_limit: roots.checked("connection_limit", "a number from 1", is_limit)?,
            life: asked_life(roots.0).unwrap_or(DEFAULT_LIFE),
        })
    }

    /// Makes the role. `is_committing` becomes true when the transaction is about to take effect.
    async fn make(
        &self,
        egress: &Egress,
        role: &str,
        verifier: &str,
        ask: &Ask,
        is_committing: &mut bool,
    ) -> Result<(), Failure> {
        let mut session = self.server.connect(egress).await?;
        // The role's end is by the server's clock, which checks it.
        let asked = format!(
            "{}; SELECT current_setting('server_version_num'), rolcreaterole OR rolsuper, \
             to_char((now() + interval '{} seconds') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || '+00' \
             FROM pg_roles WHERE rolname = session_user",
            sql::lock(role),
            self.life.as_secs(),
        );
        let rows = session.begin(&asked).await?;
        let told = rows.last().map(|row| [row.text(0), row.text(1), row.text(2)]);
        let [version, may_create, until] = told.unwrap_or_default();
        if may_create != "t" {
            session.close().await;
            return Err(self.no_right());
        }
        let new = NewRole {
            verifier,
            until,
            connection_limit: self.connection_limit,
            roles: &self.roles,
            has_options: sql::has_options(version),
        };
        // A name of these characters is an identifier.
        let created = session.statements(&sql::create(&format!("\"{role}\""), &new, ask)).await;
        if let Err(Refused::Code(_, failure)) = created {
            session.close().await;
            return Err(failure);
        }
        created?;
        *is_committing = true;
        session.commit().await?;
        session.close().await;
        Ok(())
    }

    fn no_right(&self) -> Failure {
        let at = self.server.at();
        let detail = format!(
            "{at}: the role of the field admin_user has no CREATEROLE; a superuser can give it: ALTER ROLE … CREATEROLE"
        );
        Failure::new(FailureReason::Refused, detail)
    }
}

#[cfg(test)]
mod tests;
