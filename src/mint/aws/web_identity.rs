//! AssumeRoleWithWebIdentity: a token of the broker's issuer in place of an access key. The request is not signed.

use serde_json::{Map, Value as Json, json};

use crate::egress::Request;
use crate::mint::{Upstreams, oidc};
use crate::model::{Timestamp, Value};

use super::super::failure::Failure;
use super::super::reply::exchange_at;
use super::super::roots::{Roots, header, text_value};
use super::super::{Ask, Minted};
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
    let endpoint = Endpoint::of(roots)?;
    let place = ("sts_url", endpoint.url.as_str(), endpoint.is_amazons());
    oidc::check_place(&upstreams.egress, roots, place)?;
    let request = |now| request(upstreams, roots, ask, now);
    let answer = exchange_at(&upstreams.egress, ask.now, reply::is_skewed_token, request).await?;
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

    use crate::egress::{Egress, EgressTable};

    use super::super::super::samples::{ask, fields, now, sent, text, upstreams};
    use super::*;

    #[test]
    fn only_stss_own_names_get_a_token_without_a_rule() {
        let is_amazons = |name: &str, value: &str| {
            Endpoint::of(Roots(&fields(&[(name, value)]))).ok().map(|found| found.is_amazons())
        };
        for region in
            ["us-east-1", "cn-north-1", "us-gov-west-1", "us-isob-east-1", "ap-southeast-12"]
        {
            assert_eq!(is_amazons("region", region), Some(true), "{region}");
        }
        for region in ["s3", "s3-us-west-2", "elb", "eu-1", "--1"] {
            assert_eq!(is_amazons("region", region), Some(false), "{region}");
        }
        for (host, expected) in [
            ("https://sts.amazonaws.com/", true),
            ("https://sts.eu-west-1.amazonaws.com:443", true),
            ("https://sts-fips.us-east-1.amazonaws.com", true),
            ("http://sts.amazonaws.com", false),
            ("https://sts.amazonaws.com:8443", false),
            ("https://sts.s3.amazonaws.com", false),
            ("https://vpce-1.sts.eu-west-1.vpce.amazonaws.com", false),
            ("https://sts.eu-west-1.amazonaws.com.example.org", false),
            ("https://sts.eu-west-1.exampleamazonaws.com", false),
            ("https://example.org/sts.amazonaws.com", false),
        ] {
            assert_eq!(is_amazons("sts_url", host), Some(expected), "{host}");
        }
    }

    #[test]
    fn a_place_of_the_connection_gets_no_token_without_a_rule() {
        let told = |name: &str, allow: &[&str]| {
            let table = EgressTable {
                allow: allow.iter().map(|&rule| rule.to_owned()).collect(),
                ..EgressTable::default()
            };
            let roots = fields(&[(name, "https://sts.example.org")]);
            let endpoint = Endpoint::of(Roots(&roots)).unwrap();
            let place = ("sts_url", endpoint.url.as_str(), endpoint.is_amazons());
            let egress = Egress::new(table.rules().unwrap());
            oidc::check_place(&egress, Roots(&roots), place).err().map(|failure| failure.detail)
        };
        for name in ["sts_url", "ca_certificate"] {
            let text = told(name, &["10.0.0.0/8", "http://sts.example.org:443"]).unwrap();
            assert!(text.contains(name) && text.contains("egress.allow"), "{text}");
        }
        assert_eq!(told("sts_url", &["sts.example.org"]), None);
        assert_eq!(told("ca_certificate", &["sts.us-east-1.amazonaws.com"]), None);
    }

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
