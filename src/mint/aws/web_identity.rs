//! AssumeRoleWithWebIdentity: a token of the broker's issuer in place of an access key. The request is not signed.

use serde_json::{Map, Value as Json, json};

use crate::egress::Request;
use crate::mint::{Upstreams, oidc};
use crate::model::{Timestamp, Value};

use super::super::failure::Failure;
use super::super::reply::exchange;
use super::super::roots::{Roots, header, text_value};
use super::super::{Ask, Minted, clock};
use super::endpoint::Endpoint;
use super::form::{CONTENT_TYPE, form, tags};
use super::reply;

const ACTION: &str = "AssumeRoleWithWebIdentity";
/// The claim by which a token tags its session.
const TAGS: &str = "https://aws.amazon.com/tags";

/// Makes the credentials of a role session, without an access key. If STS refuses the token for its time, the token is made
/// once more by the reply's `Date`.
///
/// # Errors
/// See [`crate::mint::mint`].
pub async fn mint_by_token(
    upstreams: &Upstreams,
    roots: Roots<'_>,
    ask: &Ask,
) -> Result<Minted, Failure> {
    let mut answer = exchange(&upstreams.egress, request(upstreams, roots, ask, ask.now)?).await?;
    if reply::is_skewed_token(&answer)
        && let Some(theirs) = clock::differing(answer.date, ask.now)
    {
        answer = exchange(&upstreams.egress, request(upstreams, roots, ask, theirs)?).await?;
    }
    reply::minted(&answer, ACTION, roots, ask.now)
}

/// The request with a token that is made at `now`.
fn request(
    upstreams: &Upstreams,
    roots: Roots<'_>,
    ask: &Ask,
    now: Timestamp,
) -> Result<Request, Failure> {
    let endpoint = Endpoint::of(roots)?;
    let mut form = form(ACTION, roots, ask, endpoint.partition, None)?;
    let audience = roots.text("web_identity_audience")?;
    let token = oidc::web_identity(&upstreams.issuer, ask, now, audience, claims(roots)?)?;
    form.append_pair("WebIdentityToken", std::str::from_utf8(token.expose()).unwrap_or_default());
    let body = Value::new(form.finish().into_bytes());
    let headers = vec![header("content-type", CONTENT_TYPE)];
    Ok(roots.request("POST", text_value(&endpoint.url), headers, body))
}

/// The session's tags, as claims: a request with a token has no parameter for them.
fn claims(roots: Roots<'_>) -> Result<Map<String, Json>, Failure> {
    let tags: Map<String, Json> =
        tags(roots)?.into_iter().map(|(key, value)| (key.to_owned(), json!([value]))).collect();
    let claim = (!tags.is_empty()).then(|| (TAGS.to_owned(), json!({ "principal_tags": tags })));
    Ok(claim.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::super::samples::{ask, fields, now, sent, text, upstreams};
    use super::*;

    #[test]
    fn the_request_has_a_token_and_no_signature_or_external_id() {
        let roots = fields(&[
            ("account_id", "123456789012"),
            ("external_id", "e"),
            ("mint_seconds", "900"),
            ("role", "deploy"),
            ("session_tags", "team=payments, env=prod"),
            ("web_identity_audience", "sts.amazonaws.com"),
        ]);
        let request = request(&upstreams(), Roots(&roots), &ask(), now()).unwrap();
        assert_eq!(text(&request.url), "https://sts.us-east-1.amazonaws.com/");
        assert_eq!(sent(&request, "authorization"), None);
        let body = text(&request.body);
        let (plain, token) = body.split_once("&WebIdentityToken=").unwrap();
        assert_eq!(
            plain,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
             &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fdeploy\
             &RoleSessionName=deploy.42.build-01020304&DurationSeconds=900"
        );
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Json = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["aud"], "sts.amazonaws.com");
        assert_eq!(claims[TAGS]["principal_tags"], json!({"team": ["payments"], "env": ["prod"]}));
        assert_eq!(claims["exp"].as_i64().unwrap() - now().seconds(), 300);
    }
}
