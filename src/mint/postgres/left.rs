//! What a role leaves behind: objects that it owns, and rights on objects of others. The role cannot be dropped before.

use std::fmt;

use super::role::Role;
use super::server::Server;
use super::session::{Refused, Session};
use super::sql;
use crate::egress::Egress;
use crate::mint::failure::{Failure, FailureReason};
use crate::mint::roots::{Roots, is_of};

/// The most databases that are cleaned for one role.
const MAX_DATABASES: usize = 8;

/// What may be done with it. If nobody says, nothing: the objects are the work of the step.
pub(super) struct Left<'a> {
    /// The role that gets the objects.
    reassign_to: Option<&'a str>,
    /// True if the objects may be dropped.
    may_drop: bool,
}

/// How many there are, by database.
pub(super) struct Found(Vec<(String, String)>);

impl<'a> Left<'a> {
    /// Reads the fields of an ending.
    ///
    /// # Errors
    /// If a field is malformed.
    pub(super) fn of(ending: Roots<'a>) -> Result<Self, Failure> {
        let is_choice = |text: &str| ["true", "false"].contains(&text);
        let may_drop = ending.checked("drop_objects", "true or false", is_choice)?;
        let is_name = |text: &str| sql::identifier(text).is_some();
        let reassign_to = ending.checked("reassign_to", "a name of 1 to 63 bytes", is_name)?;
        Ok(Self { reassign_to, may_drop: may_drop == Some("true") })
    }

    /// Removes it, as far as the connection allows. Returns why something stays; `None` if nothing does.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub(super) async fn remove(
        &self,
        egress: &Egress,
        server: &Server<'_>,
        session: &mut Session,
        role: &Role,
    ) -> Result<Option<String>, Failure> {
        let found = Self::find(session, role).await?;
        let stays = |why: &str| {
            Ok(Some(format!("the role cannot log in, but it stays because of {found}; {why}")))
        };
        let Some(statements) = self.statements(role) else {
            return stays(
                "write reassign_to or drop_objects for roles to come, and drop this role yourself",
            );
        };
        if self.is_powerful(session, server).await? {
            return stays(
                "reassign_to must be a role without rights: no attribute, no membership, and not the admin role",
            );
        }
        let databases = found.databases(server.database);
        if databases.len() > MAX_DATABASES {
            return stays("clean its databases yourself, there are too many");
        }
        for database in databases {
            let cleaned = match database == server.database {
                true => session.transaction(&statements).await,
                false => {
                    let server = server.with_database(database);
                    let mut session = server.connect(egress).await?;
                    let cleaned = session.transaction(&statements).await;
                    session.close().await;
                    cleaned
                }
            };
            match cleaned {
                Ok(_) => {}
                Err(Refused::Code(_, failure)) if failure.reason == FailureReason::Refused => {
                    return stays(&failure.detail);
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        Ok(None)
    }

    /// The statements for one database; `None` if nothing may be removed.
    fn statements(&self, role: &Role) -> Option<String> {
        let name = &role.name;
        let dropped = format!("DROP OWNED BY {name}");
        match self.reassign_to {
            // Only rights are left then.
            Some(to) => {
                let to = sql::identifier(to)?;
                Some(format!("REASSIGN OWNED BY {name} TO {to}; {dropped}"))
            }
            None => self.may_drop.then_some(dropped),
        }
    }

    /// True if the new owner has rights that the step's role has not: a function of the step that runs with its owner's rights
    /// would gain them.
    async fn is_powerful(
        &self,
        session: &mut Session,
        server: &Server<'_>,
    ) -> Result<bool, Failure> {
        let Some(to) = self.reassign_to else { return Ok(false) };
        let asked = format!(
            "SELECT FROM pg_roles one WHERE rolname = {} AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls \
             OR rolreplication OR EXISTS (SELECT FROM pg_auth_members WHERE member = one.oid))",
            sql::literal(to)
        );
        Ok(to == server.user || !session.transaction(&asked).await?.is_empty())
    }

    /// Counts it.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub(super) async fn find(session: &mut Session, role: &Role) -> Result<Found, Failure> {
        let asked = format!(
            "SELECT datname, count(*) FROM pg_shdepend LEFT JOIN pg_database of ON of.oid = dbid \
             WHERE refclassid = 'pg_authid'::regclass AND refobjid = {} GROUP BY 1 ORDER BY 1",
            role.oid
        );
        let rows = session.transaction(&asked).await?;
        let rows = rows.iter().map(|row| (row.text(0).to_owned(), row.text(1).to_owned()));
        Ok(Found(rows.collect()))
    }
}

impl Found {
    /// The databases to clean. Objects that belong to no database are cleaned from any.
    fn databases<'a>(&'a self, own: &'a str) -> Vec<&'a str> {
        let named = self.0.iter().map(|(database, _)| match database.as_str() {
            "" => own,
            named => named,
        });
        let mut databases: Vec<&str> = named.collect();
        databases.sort_unstable();
        databases.dedup();
        databases
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name that a client has chosen could be any text.
        let parts = self.0.iter().map(|(database, count)| {
            let database = match database.as_str() {
                "" => "the whole server",
                name if is_of(name, "_-.") => name,
                _ => "a database with another name",
            };
            format!("{} in {database}", count.parse::<u64>().unwrap_or_default())
        });
        let parts: Vec<String> = parts.collect();
        write!(f, "objects that it owns or has rights on: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_count_and_database() {
        let found = [("", "1"), ("orders", "2"), ("a\nb", "3")];
        let found = found.map(|(name, count)| (name.to_owned(), count.to_owned()));
        let found = Found(found.to_vec());
        assert_eq!(
            found.to_string(),
            "objects that it owns or has rights on: 1 in the whole server, 2 in orders, 3 in a database with another name"
        );
        assert_eq!(found.databases("orders"), ["a\nb", "orders"]);
    }
}
