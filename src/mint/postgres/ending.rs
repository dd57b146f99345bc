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

/// The pauses before it is asked whether sessions have ended, in milliseconds: three seconds together.
const PAUSES: [u64; 9] = [10, 20, 40, 80, 160, 320, 640, 800, 900];
/// How often the end of logins is tried. A try takes at most 0.4 s.
const ROUNDS: usize = 8;
/// The wait for others' transactions on the role: its own sessions may hold it, and are ended before the next try.
const BRIEFLY: &str = "SET LOCAL lock_timeout = '300ms'; ";
/// SQLSTATE: the admin role may not do that.
const NOT_ALLOWED: &str = "42501";
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
    let left = Left::of(ending)?;
    let connected = server.connect(egress).await;
    // No role is concerned yet.
    let away = |failure: Failure| Failure {
        concerns_all: failure.concerns_all || failure.reason == FailureReason::Unavailable,
        ..failure
    };
    let mut session = connected.map_err(away)?;
    let ended = match find(&mut session, name).await? {
        Some(role) => {
            stop_logins(&mut session, &role).await?;
            revoke_memberships(&mut session, &role).await?;
            drop_role(egress, &server, &mut session, &role, &left).await?
        }
        None => End::Ended,
    };
    session.close().await;
    Ok(ended)
}

/// Looks the role up; `None` if there is none. A role that is there needs no lock, which one of its sessions could hold.
async fn find(session: &mut Session, name: &str) -> Result<Option<Role>, Failure> {
    let identifier = sql::identifier(name);
    let identifier = identifier.ok_or_else(|| Failure::field("role", "is no role's name"))?;
    let asked = format!(
        "SELECT oid, current_setting('server_version_num') FROM pg_roles WHERE rolname = {}",
        sql::literal(name)
    );
    let mut found = session.transaction(&asked).await?;
    if found.is_empty() {
        found = session.transaction(&format!("{}; {asked}", sql::lock(name))).await?;
    }
    let found = found.last().and_then(|row| Some((row.text(0).parse().ok()?, row.text(1))));
    Ok(found.map(|(oid, version)| Role {
        name: identifier,
        oid,
        has_options: has_options(version),
    }))
}

/// Ends the role's right to log in. Its sessions are ended first: an open transaction that changes the role would hold it.
async fn stop_logins(session: &mut Session, role: &Role) -> Result<(), Failure> {
    let asked = format!("{BRIEFLY}ALTER ROLE {} NOLOGIN", role.name);
    let mut last = None;
    for _ in 0..ROUNDS {
        match terminate(session, role, &of_role(role)).await {
            // A refusal for good comes again below, or when sessions are ended.
            Ok(_) | Err(Refused::Code(..)) => {}
            Err(Refused::Other(failure)) => return Err(failure),
        }
        match session.transaction(&asked).await {
            Ok(_) => return Ok(()),
            Err(Refused::Code(_, failure)) if failure.reason == FailureReason::Unavailable => {
                last = Some(failure);
            }
            Err(refused) => return Err(refused.into()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let why = last.map_or_else(String::new, |failure| failure.detail);
    let asked = format!(
        "SELECT FROM pg_prepared_xacts JOIN pg_roles ON rolname = owner WHERE pg_roles.oid = {}",
        role.oid
    );
    let held_by = match session.transaction(&asked).await?.len() {
        0 => "another transaction".to_owned(),
        count => {
            format!("{count} prepared transactions of the role; end them by ROLLBACK PREPARED")
        }
    };
    let text = format!("the role can still log in, because it is held by {held_by}: {why}");
    Err(Failure::new(FailureReason::Unavailable, text))
}

/// Revokes the role's memberships, each alone. Returns how many are left, and what the server said last.
async fn revoke_memberships(
    session: &mut Session,
    role: &Role,
) -> Result<(usize, Option<Failure>), Failure> {
    let asked = format!(
        "SELECT of.rolname FROM pg_auth_members JOIN pg_roles of ON of.oid = roleid WHERE member = {}",
        role.oid
    );
    let mut last = None;
    for row in session.transaction(&asked).await? {
        let Some(group) = sql::identifier(row.text(0)) else { continue };
        let revoke = format!("{BRIEFLY}REVOKE {group} FROM {} CASCADE", role.name);
        match session.transaction(&revoke).await {
            Ok(_) => {}
            Err(Refused::Code(_, failure)) => last = Some(failure),
            Err(Refused::Other(failure)) => return Err(failure),
        }
    }
    Ok((session.transaction(&asked).await?.len(), last))
}

/// Ends the sessions of a role, until none is left. Logins must have ended before.
async fn end_sessions(session: &mut Session, role: &Role) -> Result<(), Failure> {
    for pause in PAUSES {
        // A login becomes a session, so that the look for sessions is the later one.
        let are_begun = end_begun_logins(session, role).await?;
        if terminate(session, role, &of_role(role)).await? == 0 && !are_begun {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let text = "sessions of the role do not end although they were told to; the broker tries again";
    Err(Failure::new(FailureReason::Unavailable, text))
}

/// Ends logins that passed the check of LOGIN, and are in no list of sessions yet: a client can have the server wait there
/// (`post_auth_delay`). They are known by their locks alone. True if there were some.
async fn end_begun_logins(session: &mut Session, role: &Role) -> Result<bool, Failure> {
    let asked = "SELECT DISTINCT pid FROM pg_locks held WHERE pid IS NOT NULL AND NOT EXISTS \
                 (SELECT FROM pg_stat_activity one WHERE one.pid = held.pid AND usesysid IS NOT NULL)";
    let mut are_begun = false;
    for row in session.transaction(asked).await? {
        let Ok(pid) = row.text(0).parse::<u32>() else { continue };
        let ended = terminate(session, role, &format!("SELECT {pid} AS pid")).await;
        match ended {
            Ok(_) => are_begun = true,
            // It is another role's, or it will fail at the check.
            Err(Refused::Code(code, _)) if code == NOT_ALLOWED => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(are_begun)
}

/// The sessions of a role.
fn of_role(role: &Role) -> String {
    format!("SELECT pid FROM pg_stat_activity WHERE usesysid = {}", role.oid)
}

/// Tells the sessions with these process numbers to end, and returns how many they are. It acts as a role that has the rights of
/// the ending role alone, and that no other transaction ever sees: nobody can hold it, and no other role's session ends.
async fn terminate(session: &mut Session, role: &Role, pids: &str) -> Result<usize, Refused> {
    if session.transaction(pids).await?.is_empty() {
        return Ok(0);
    }
    let Role { name, oid, has_options } = role;
    let options = if *has_options { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    let asked = format!(
        "{BRIEFLY}CREATE ROLE keyhatch_ends_{oid}; GRANT {name} TO keyhatch_ends_{oid}{options}; \
         GRANT keyhatch_ends_{oid} TO SESSION_USER{options}; SET LOCAL ROLE keyhatch_ends_{oid}; \
         SELECT pg_terminate_backend(pid) FROM ({pids}) AS told"
    );
    let told = session.begin(&asked).await?.len();
    session.roll_back().await.map_err(Refused::Other)?;
    Ok(told)
}

/// Drops the role, if need be after what it leaves behind.
async fn drop_role(
    egress: &Egress,
    server: &Server<'_>,
    session: &mut Session,
    role: &Role,
    left: &Left<'_>,
) -> Result<End, Failure> {
    if try_drop(session, role).await? {
        return Ok(End::Ended);
    }
    // Only members of a role may do that.
    let options = if role.has_options { " WITH INHERIT TRUE, SET FALSE" } else { "" };
    session.transaction(&format!("GRANT {} TO SESSION_USER{options}", role.name)).await?;
    let why = match left.remove(egress, server, session, role).await? {
        Some(why) => why,
        None if try_drop(session, role).await? => return Ok(End::Ended),
        None => {
            let of = Left::find(session, role).await?;
            format!("the role cannot log in, but it stays because of {of}")
        }
    };
    // Its functions and views run with the rights of a role that cannot log in, too.
    let (count, said) = revoke_memberships(session, role).await?;
    if count == 0 {
        return Ok(End::Disabled(why));
    }
    let said = said.map_or_else(String::new, |failure| format!(": {}", failure.detail));
    let text =
        format!("{why}; it is still a member of {count} roles, which you have to revoke{said}");
    Err(Failure::new(FailureReason::Refused, text))
}

/// Drops the role, when it has no session. False if that needs something else to be removed first.
async fn try_drop(session: &mut Session, role: &Role) -> Result<bool, Failure> {
    end_sessions(session, role).await?;
    match session.transaction(&format!("DROP ROLE {}", role.name)).await {
        Ok(_) => Ok(true),
        Err(Refused::Code(code, _)) if code == NO_ROLE => Ok(true),
        Err(Refused::Code(code, _)) if code == HAS_DEPENDENTS => Ok(false),
        Err(refused) => Err(refused.into()),
    }
}
