//! The roles that brokers have made at a server.

use super::server::Server;
use super::wire::Row;
use super::{ending_of, sql};
use crate::egress::Egress;
use crate::mint::failure::{Failure, FailureReason};
use crate::mint::roots::Roots;
use crate::mint::{CredentialEnd, Listed};
use crate::model::Timestamp;

/// How many roles a statement asks for.
const PAGE: usize = 500;
/// How many statements ask, at most. A server may go on for ever.
const PAGES: usize = 100;

/// Lists the roles whose name and comment are those of a mint.
///
/// # Errors
/// See [`crate::mint::list`].
pub async fn list(egress: &Egress, roots: Roots<'_>) -> Result<Vec<Listed>, Failure> {
    let mut session = Server::of(roots)?.connect(egress).await?;
    let (mut found, mut last) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let rows = session.transaction(&page_after(&last)).await?;
        let of_mints = rows.iter().filter_map(|row| listed(roots, row).transpose());
        found.extend(of_mints.collect::<Result<Vec<_>, _>>()?);
        match rows.last() {
            Some(row) if rows.len() >= PAGE => row.text(0).clone_into(&mut last),
            _ => {
                session.close().await;
                return Ok(found);
            }
        }
    }
    let detail = format!(
        "the server has over {} roles that brokers have made; list them there, and drop those that no step uses",
        PAGE * PAGES
    );
    Err(Failure::new(FailureReason::Invalid, detail))
}

/// Asks for the roles after this name, in the order of their names, with their comments and the milliseconds of their ends.
fn page_after(last: &str) -> String {
    let last = sql::literal(last);
    format!(
        "SELECT rolname, shobj_description(oid, 'pg_authid'), CASE WHEN isfinite(rolvaliduntil) \
         THEN floor(extract(epoch FROM rolvaliduntil))::bigint * 1000 END \
         FROM pg_roles WHERE left(rolname, 3) = 'kh_' AND rolname > {last} \
         AND left(shobj_description(oid, 'pg_authid'), 10) = 'keyhatch: ' ORDER BY rolname LIMIT {PAGE}"
    )
}

/// The credential of a row; `None` if no broker has made its role.
fn listed(roots: Roots<'_>, row: &Row) -> Result<Option<Listed>, Failure> {
    let role = row.text(0);
    let Some(mint) = sql::mint_of(role, row.text(1)) else { return Ok(None) };
    let end = row.text(2).parse().ok().map(Timestamp::from_millis).map(CredentialEnd::told);
    let ending = ending_of(roots, role)?;
    Ok(Some(Listed { mint, handle: role.to_owned(), end, ending }))
}
