//! Workload identity federation: a token of the broker's issuer is exchanged (RFC 8693), and the result for a token of the
//! service account.

use form_urlencoded::Serializer;
use serde_json::Map;

use crate::egress::Request;
use crate::model::{Timestamp, Value};

use super::impersonation::{CLOUD_PLATFORM, DEFAULT_LIFE, email, impersonated, impersonation};
use super::is_skewed;
use crate::mint::bearer::{Bearer, bearer};
use crate::mint::failure::Failure;
use crate::mint::reply::{exchange, exchange_at};
use crate::mint::roots::Roots;
use crate::mint::{Ask, Minted, Upstreams, asked_life, oidc};

/// Where tokens are exchanged.
const STS_URL: &str = "https://sts.googleapis.com/v1/token";
/// The grant of RFC 8693.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What a provider's name begins with where it is an audience.
const AUDIENCE: &str = "//iam.googleapis.com/";

/// Makes an access token of the service account, without a key of the account. If Google refuses the broker's token for its
/// time, the token is made once more by the reply's `Date`.
///
/// # Errors
/// See [`crate::mint::mint`].
pub async fn mint_by_token(
    upstreams: &Upstreams,
    roots: Roots<'_>,
    ask: &Ask,
) -> Result<Minted, Failure> {
    let account = email(roots, "service_account_email")?;
    let account = account.ok_or_else(|| Failure::field("service_account_email", "is missing"))?;
    let (target, delegate) = match email(roots, "impersonate")? {
        Some(other) => (other, Some(account)),
        None => (account, None),
    };
    let egress = &upstreams.egress;
    oidc::check_place(egress, roots, ("ca_certificate", STS_URL, true))?;
    let request = |now| request(upstreams, roots, ask, now);
    let reply = exchange_at(egress, ask.now, is_skewed, request).await?;
    let federated: Bearer = bearer(&reply, ask.now, None, &[])?;
    let scopes = roots.optional("scopes")?.unwrap_or(CLOUD_PLATFORM);
    let asked = asked_life(roots.0).unwrap_or(DEFAULT_LIFE);
    let asking = impersonation(roots, (target, delegate), &federated, scopes, asked)?;
    impersonated(&exchange(egress, asking).await?, ask.now, asked)
}

/// The exchange of a token that is made at `now`.
fn request(
    upstreams: &Upstreams,
    roots: Roots<'_>,
    ask: &Ask,
    now: Timestamp,
) -> Result<Request, Failure> {
    let provider = roots.text("workload_identity_provider")?;
    let audience = format!("{AUDIENCE}{}", provider.trim_start_matches(AUDIENCE));
    let token: Value = oidc::web_identity(&upstreams.issuer, ask, now, &audience, Map::new())?;
    let token = std::str::from_utf8(token.expose()).unwrap_or_default();
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", GRANT)
        .append_pair("audience", &audience)
        .append_pair("scope", CLOUD_PLATFORM)
        .append_pair("requested_token_type", ACCESS_TOKEN)
        .append_pair("subject_token", token)
        .append_pair("subject_token_type", JWT);
    Ok(roots.form(STS_URL, Vec::new(), form.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::samples::{ask, fields, now, text, upstreams};

    #[test]
    fn the_exchange_is_for_the_provider_under_either_of_its_names() {
        let name = "projects/1/locations/global/workloadIdentityPools/p/providers/q";
        for provider in [name.to_owned(), format!("{AUDIENCE}{name}")] {
            let roots = fields(&[("workload_identity_provider", &provider)]);
            let request = request(&upstreams(), Roots(&roots), &ask(), now()).unwrap();
            assert_eq!(text(&request.url), "https://sts.googleapis.com/v1/token");
            let body = text(&request.body);
            let form: Vec<_> = form_urlencoded::parse(body.as_bytes()).collect();
            let value =
                |name: &str| form.iter().find(|(found, _)| found == name).unwrap().1.clone();
            assert_eq!(value("audience"), format!("{AUDIENCE}{name}"));
            assert_eq!(value("subject_token_type"), JWT);
            assert_eq!(value("subject_token").split('.').count(), 3);
            assert_eq!(form.len(), 6);
        }
    }
}
