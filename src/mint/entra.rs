//! Microsoft Entra ID: client credentials with a client secret, for Azure and Teams.

use form_urlencoded::Serializer;

use crate::egress::{Egress, Request};

use super::bearer::bearer;
use super::failure::Failure;
use super::reply::exchange;
use super::roots::{Roots, is_of};
use super::{Ask, Minted, asked_life};

/// Where tokens are made unless the connection says otherwise.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The scope of Azure's own API.
pub const AZURE: &str = "https://management.azure.com/.default";
/// The scope of Microsoft Graph, which Teams is a part of.
pub const GRAPH: &str = "https://graph.microsoft.com/.default";
/// The header with Entra's number of the request, as in its sign-in log.
const NUMBERS: [&str; 1] = ["x-ms-request-id"];

/// Makes an access token for `custom_scope`, or for `scope` if there is none. A repeated request makes another token.
///
/// # Errors
/// See [`super::mint`].
pub async fn mint(
    egress: &Egress,
    roots: Roots<'_>,
    ask: &Ask,
    scope: &str,
) -> Result<Minted, Failure> {
    let reply = exchange(egress, request(roots, scope)?).await?;
    bearer(&reply, ask.now, asked_life(roots.0), &NUMBERS)?.into_minted(false)
}

fn request(roots: Roots<'_>, scope: &str) -> Result<Request, Failure> {
    let authority = roots.optional("authority_url")?.unwrap_or(AUTHORITY).trim_end_matches('/');
    let is_tenant = |text: &str| is_of(text, ".-") && !text.starts_with('.');
    let tenant = roots.checked("tenant_id", "a tenant's ID or domain", is_tenant)?;
    let tenant = tenant.ok_or_else(|| Failure::field("tenant_id", "is missing"))?;
    let form = Serializer::new(String::new())
        .append_pair("client_id", roots.text("client_id")?)
        .append_pair("client_secret", roots.text("client_secret")?)
        .append_pair("grant_type", "client_credentials")
        .append_pair("scope", roots.optional("custom_scope")?.unwrap_or(scope))
        .finish();
    Ok(roots.form(&format!("{authority}/{tenant}/oauth2/v2.0/token"), Vec::new(), form))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{fields, text};
    use super::*;

    #[test]
    fn the_token_is_for_the_scope_that_the_connection_names() {
        let roots =
            [("tenant_id", "contoso.example"), ("client_id", "c"), ("client_secret", "s e")];
        let sent_by = |more: &[(&str, &str)]| {
            let request = request(Roots(&fields(&[roots.as_slice(), more].concat())), AZURE);
            request.map(|request| (text(&request.url), text(&request.body)))
        };
        let form = "client_id=c&client_secret=s+e&grant_type=client_credentials&scope=";
        let (url, body) = sent_by(&[]).unwrap();
        assert_eq!(url, "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token");
        assert_eq!(body, format!("{form}https%3A%2F%2Fmanagement.azure.com%2F.default"));
        let more = [
            ("authority_url", "https://login.microsoftonline.us/"),
            ("custom_scope", "api://x/.default"),
        ];
        let (url, body) = sent_by(&more).unwrap();
        assert_eq!(url, "https://login.microsoftonline.us/contoso.example/oauth2/v2.0/token");
        assert_eq!(body, format!("{form}api%3A%2F%2Fx%2F.default"));
        assert!(sent_by(&[("tenant_id", "../x")]).is_err());
    }
}
