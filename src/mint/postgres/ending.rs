//! The end of a role, in two stages. Each step may be repeated, and goes on where an earlier try has stopped.

use std::time::Duration;

use super::left::Left;
use super::role::Role;
use super::server::Server;
use super::session::{Refused, Session};
use super::sql::{self, has_options};
use crate::egress::Egress;
use crate::mint::End;
use crate::mint::failure::{Failure, FailureReason};
use crate::mint::roots::Roots;

/// The pauses before it is asked whether sessions have ended, in milliseconds: four seconds together.
const PAUSES: [u64; 10] = [10, 20, 40, 80, 160, 320, 640, 900, 900, 900];
/// SQLSTATE: a role that owns objects, or has rights on some, cannot be dropped.
const HAS_DEPENDENTS: &str = "2BP01";
/// SQLSTATE: there is no such role.
const NO_ROLE: &str = "42704";

/// Ends the access of a role, then drops it. A role that is not there has ended.
///
/// # Errors
/// If the server cannot be reached, or refuses. The access may have ended then.
pub async fn end(egress: &Egress, ending: Roots<'_>) -> Result<End, Failure> {
    let server = Server::of(ending)?;
    let name = ending.text("role")?;
    let name = sql::identifier(name).ok_or_else(|| Failure::field("role", "is no role's name"))?;
    let left = Left::of(ending)?;
    let mut session = server.connect(egress).await?;
    let ended = match stop_access(&mut session, name, ending.text("role")?).await? {
        Some(role) => drop_role(egress, &server, &mut session, &role, &left).await?,
        None => End::Ended,
    };
    session.close().await;
    Ok(ended)
}

/// Ends the access: no login, no membership, no session. `None` if there is no such role.
async fn stop_access(
    session: &mut Session,
    name: String,
    plain: &str,
) -> Result<Option<Role>, Failure> {
    let asked = format!(
        "{}; SELECT oid, current_setting('server_version_num') FROM pg_roles WHERE rolname = {}",
        sql::lock(plain),
        sql::literal(plain)
    );
    let found = session.begin(&asked).await?;
    let found = found.last().map(|row| (row.text(0).parse(), has_options(row.text(1))));
    let Some((Ok(oid), has_options)) = found else {
        session.roll_back().await?;
        return Ok(None);
    };
    // Only members of a role may end its sessions.
    let options = if has_options { " WITH INHERIT TRUE, SET FALSE" } else { "" };
    let asked = format!("ALTER ROLE {name} NOLOGIN; GRANT {name} TO CURRENT_USER{options}");
    session.statements(&asked).await?;
    session.commit().await?;
    let role = Role { name, oid };
    // A membership that stays gives nothing to a role without sessions, and ends with the role.
    match revoke_memberships(session, &role).await {
        Ok(()) | Err(Refused::Code(..)) => {}
        Err(Refused::Other(failure)) => return Err(failure),
    }
    end_sessions(session, &role).await?;
    Ok(Some(role))
}

async fn revoke_memberships(session: &mut Session, role: &Role) -> Result<(), Refused> {
    let Role { name, oid } = role;
    let asked = format!(
        "SELECT of.rolname FROM pg_auth_members JOIN pg_roles of ON of.oid = roleid WHERE member = {oid}"
    );
    let rows = session.begin(&asked).await?;
    let groups = rows.iter().filter_map(|row| sql::identifier(row.text(0)));
    let revoked: Vec<String> = groups.map(|group| format!("REVOKE {group} FROM {name}")).collect();
    session.statements(&revoked.join("; ")).await?;
    session.commit().await.map_err(Refused::Other)
}

/// Ends the sessions of a role, until none is left.
async fn end_sessions(session: &mut Session, role: &Role) -> Result<(), Failure> {
    let asked = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = {}",
        role.oid
    );
    for pause in PAUSES {
        match session.transaction(&asked).await {
            Ok(rows) if rows.is_empty() => return Ok(()),
            Ok(_) => {}
            // A session that has ended meanwhile is no fault.
            Err(Refused::Code(code, failure)) => {
                let advice =
                    "the admin role cannot end the sessions; let it inherit (ALTER ROLE … INHERIT)";
                let detail = format!("{advice}: {}", failure.detail);
                return Err(match code.as_str() {
                    "42501" => Failure { detail, ..failure },
                    _ => failure,
                });
            }
            Err(Refused::Other(failure)) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let text = "sessions of the role do not end although they were told to; the broker tries again";
    Err(Failure::new(FailureReason::Unavailable, text))
}

/// Drops the role, if need be after what it leaves behind.
async fn drop_role(
    egress: &Egress,
    server: &Server<'_>,
    session: &mut Session,
    role: &Role,
    left: &Left<'_>,
) -> Result<End, Failure> {
    match try_drop(session, role).await {
        Ok(()) => return Ok(End::Ended),
        Err(Refused::Code(code, _)) if code == NO_ROLE => return Ok(End::Ended),
        Err(Refused::Code(code, _)) if code == HAS_DEPENDENTS => {}
        Err(refused) => return Err(refused.into()),
    }
    if let Some(why) = left.remove(egress, server, session, role).await? {
        return Ok(End::Disabled(why));
    }
    match try_drop(session, role).await {
        Ok(()) => Ok(End::Ended),
        Err(Refused::Code(code, _)) if code == NO_ROLE => Ok(End::Ended),
        Err(Refused::Code(code, _)) if code == HAS_DEPENDENTS => {
            let of = Left::find(session, role).await?;
            Ok(End::Disabled(format!("the role cannot log in, but it stays because of {of}")))
        }
        Err(refused) => Err(refused.into()),
    }
}

/// Drops the role. A login that was under way when logins ended has a session by now, which is ended first.
async fn try_drop(session: &mut Session, role: &Role) -> Result<(), Refused> {
    let asked = format!(
        "DROP ROLE {}; SELECT pid FROM pg_stat_activity WHERE usesysid = {}",
        role.name, role.oid
    );
    if !session.begin(&asked).await?.is_empty() {
        session.roll_back().await.map_err(Refused::Other)?;
        end_sessions(session, role).await.map_err(Refused::Other)?;
        return session.transaction(&format!("DROP ROLE {}", role.name)).await.map(drop);
    }
    session.commit().await.map_err(Refused::Other)
}
