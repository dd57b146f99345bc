//! The roles that brokers have made at a server.

use super::server::Server;
use super::{ending_of, sql};
use crate::egress::Egress;
use crate::mint::failure::Failure;
use crate::mint::roots::Roots;
use crate::mint::{CredentialEnd, Listed};
use crate::model::Timestamp;

/// The roles, with their comments and the milliseconds of their ends. The order does not matter.
const ROLES: &str = "SELECT rolname, shobj_description(oid, 'pg_authid'), CASE WHEN isfinite(rolvaliduntil) \
                     THEN floor(extract(epoch FROM rolvaliduntil))::bigint * 1000 END \
                     FROM pg_roles WHERE left(rolname, 3) = 'kh_' LIMIT 500";

/// Lists the roles whose name and comment are those of a mint.
///
/// # Errors
/// See [`crate::mint::list`].
pub async fn list(egress: &Egress, roots: Roots<'_>) -> Result<Vec<Listed>, Failure> {
    let mut session = Server::of(roots)?.connect(egress).await?;
    let rows = session.transaction(ROLES).await?;
    session.close().await;
    let listed = rows.iter().filter_map(|row| {
        let (role, mint) = (row.text(0), sql::mint_of(row.text(0), row.text(1))?);
        let end = row.text(2).parse().ok().map(Timestamp::from_millis).map(CredentialEnd::told);
        let ending = ending_of(roots, role);
        Some(ending.map(|ending| Listed { mint, handle: role.to_owned(), end, ending }))
    });
    listed.collect()
}
