//! Tokens of the broker's own issuer: OpenID Connect, ES256. Nothing is asked upstream.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::egress::Egress;
use crate::identity::Issuer;
use crate::integration::read_claims;
use crate::model::{SpiffeId, Timestamp, Value};

use super::clock::CredentialEnd;
use super::failure::{Failure, FailureReason};
use super::roots::{Roots, text_value};
use super::{Ask, Minted, asked_life, fields};

/// How long a token lives if the connection does not say.
const LIFE: Duration = Duration::from_secs(600);
/// How long a token lives that is sent to an upstream at once.
const EXCHANGE_LIFE: Duration = Duration::from_secs(300);
/// How much earlier a token is valid than it is made: a verifier's clock may be behind.
const EARLIER: Duration = Duration::from_secs(60);

/// The claims of a token. Those of the connection come beside them, and never in their place.
#[derive(Serialize)]
struct Claims<'a> {
    #[serde(flatten)]
    extra: Map<String, Json>,
    iss: &'a str,
    sub: String,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executor: Option<&'a str>,
}

/// Makes the token that a connection of `oidc` describes.
///
/// # Errors
/// If the broker is no issuer, or a field makes no token.
pub fn mint(issuer: &Issuer, roots: Roots<'_>, ask: &Ask) -> Result<Minted, Failure> {
    let extra = match roots.optional("claims")? {
        None => Map::new(),
        Some(text) => read_claims(text)
            .map_err(|fault| Failure::field("claims", &format!("is refused: {fault}")))?,
    };
    let life = asked_life(roots.0).unwrap_or(LIFE);
    let token = sign(issuer, ask, ask.now, (roots.text("audience")?, extra), life)?;
    Ok(Minted {
        fields: fields([("token", text_value(&token))])?,
        // The token itself has whole seconds.
        end: Some(CredentialEnd::told(Timestamp::from_seconds(ask.now.seconds()).after(life))),
        handle: Some(ask.mint.to_string()),
        upstream_request: None,
        ending: None,
    })
}

/// Checks that a token may be sent to the upstream `url`, which the field `name` states. An upstream keeps what it gets, so
/// an editor must not choose it: it is the vendor's own (`is_vendors`) by the system's roots, or the configuration names it.
///
/// # Errors
/// If it is neither.
pub fn check_place(
    egress: &Egress,
    roots: Roots<'_>,
    (name, url, is_vendors): (&str, &str, bool),
) -> Result<(), Failure> {
    let chosen = match roots.value("ca_certificate") {
        _ if !is_vendors => name,
        Some(_) => "ca_certificate",
        None => return Ok(()),
    };
    match egress.is_named(&text_value(url)) {
        true => Ok(()),
        false => Err(Failure::field(
            chosen,
            "would choose who gets a token that names the step: leave it out, or have the host named in egress.allow of the daemon's configuration",
        )),
    }
}

/// A token that an upstream takes in place of a root, made at `now`.
///
/// # Errors
/// If the broker is no issuer.
pub fn web_identity(
    issuer: &Issuer,
    ask: &Ask,
    now: Timestamp,
    audience: &str,
    extra: Map<String, Json>,
) -> Result<Value, Failure> {
    sign(issuer, ask, now, (audience, extra), EXCHANGE_LIFE).map(|token| text_value(&token))
}

fn sign(
    issuer: &Issuer,
    ask: &Ask,
    now: Timestamp,
    (audience, extra): (&str, Map<String, Json>),
    life: Duration,
) -> Result<String, Failure> {
    let url = issuer.url().ok_or_else(not_configured)?;
    let subject = ask.subject.as_ref();
    let subject = subject.ok_or_else(|| Failure::invalid("the broker does not know the step"))?;
    let made = Timestamp::from_seconds(now.seconds());
    let (workflow, run, step) = match &subject.id {
        SpiffeId::Step { workflow, run, step } => {
            (Some(workflow.as_str()), Some(run.as_str()), Some(step.as_str()))
        }
        _ => (None, None, None),
    };
    let claims = Claims {
        extra,
        iss: url.as_str(),
        sub: subject.id.uri(issuer.domain()),
        aud: audience,
        iat: made.seconds(),
        nbf: made.before(EARLIER).seconds(),
        exp: made.after(life).seconds(),
        jti: ask.mint.to_string(),
        workflow,
        run,
        step,
        attempt: subject.attempt,
        executor: subject.executor.as_ref().map(|name| name.as_str()),
    };
    issuer
        .sign(&claims)
        .map_err(|error| Failure::new(FailureReason::Unavailable, error.to_string()))
}

/// The failure of a broker that is no issuer.
fn not_configured() -> Failure {
    Failure::new(
        FailureReason::NoIssuer,
        "the broker is no issuer: set url in the table issuer of the daemon's configuration, restart it, and host what \
         keyhatch issuer write writes",
    )
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::super::TokenSubject;
    use super::super::samples::{ask, fields as roots, issuer, now, text};
    use super::*;
    use crate::model::OperatorName;

    /// A part of a token.
    fn part(token: &str, number: usize) -> Json {
        let part = token.split('.').nth(number).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn minted(pairs: &[(&str, &str)]) -> Result<Minted, Failure> {
        mint(&issuer(), Roots(&roots(pairs)), &ask())
    }

    fn token(pairs: &[(&str, &str)]) -> String {
        text(minted(pairs).unwrap().fields.values().next().unwrap())
    }

    const STEP: &str = "spiffe://keyhatch.local/workflow/deploy/run/42/step/build";

    #[test]
    fn a_token_has_exactly_the_claims_that_are_promised() {
        let made = now().seconds();
        let common = |more: Json, life: i64| {
            let mut claims = json!({
                "iss": "https://keyhatch.example.com", "sub": STEP, "aud": "a", "iat": made,
                "nbf": made - 60, "exp": made + life, "jti": ask().mint.to_string(), "workflow": "deploy",
                "run": "42", "step": "build", "attempt": 1, "executor": "local",
            });
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        for (given, claims) in [
            (&[][..], common(json!({}), 600)),
            (&[("mint_seconds", "60")], common(json!({}), 60)),
            (
                &[("claims", r#"{"team": "x", "a": {"b": [1]}}"#)],
                common(json!({"team": "x", "a": {"b": [1]}}), 600),
            ),
        ] {
            let token = token(&[[("audience", "a")].as_slice(), given].concat());
            assert_eq!(part(&token, 1), claims);
            let header = part(&token, 0);
            assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
        }
        let minted = minted(&[("audience", "a")]).unwrap();
        assert_eq!(minted.handle.unwrap(), ask().mint.to_string());
        assert_eq!(minted.end.unwrap().time.seconds(), made + 600);
    }

    #[test]
    fn an_operators_test_has_no_claim_of_a_step() {
        let id = SpiffeId::Operator(OperatorName::parse("ann").unwrap());
        let subject = Some(TokenSubject { id, attempt: None, executor: None });
        let made = mint(&issuer(), Roots(&roots(&[("audience", "a")])), &Ask { subject, ..ask() });
        let token = text(made.ok().unwrap().fields.values().next().unwrap());
        let claims = part(&token, 1);
        assert_eq!(claims["sub"], "spiffe://keyhatch.local/operator/ann");
        for step in ["workflow", "run", "step", "attempt", "executor"] {
            assert!(claims.get(step).is_none(), "{step}");
        }
    }

    #[test]
    fn nothing_is_signed_without_url_subject_or_good_claims() {
        let failure = minted(&[("audience", "a"), ("claims", r#"{"sub": "x"}"#)]).err().unwrap();
        assert!(failure.detail.contains("claims is refused"), "{failure:?}");
        let shared = Ask { subject: None, ..ask() };
        assert!(mint(&issuer(), Roots(&roots(&[("audience", "a")])), &shared).is_err());
        let none = Issuer::new(
            None,
            issuer().domain().clone(),
            crate::identity::IssuerKeys::create(now()).unwrap(),
        );
        let failure = mint(&none, Roots(&roots(&[("audience", "a")])), &ask()).err().unwrap();
        assert_eq!(failure.reason.as_str(), "ISSUER_NOT_CONFIGURED");
    }
}
