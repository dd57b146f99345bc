//! What STS answers.

use crate::egress::Reply;
use crate::model::Timestamp;

use super::super::failure::Failure;
use super::super::reply::{Refusal, check_accepted, is_token, is_uuid, request_number};
use super::super::roots::{Roots, is_of, text_value};
use super::super::{Minted, asked_life, clock, fields};
use super::xml::text_at;

/// The header with STS's number of the request.
const NUMBERS: [&str; 1] = ["x-amzn-requestid"];
/// The longest code of an error.
const MAX_CODE: usize = 64;
/// The next step if there is no code.
const ADVICE: &str = "check that sts_url and region name an STS endpoint";
/// The codes of requests that were refused for their time; the last also means a wrong secret.
const SKEWED: [&str; 5] = [
    "RequestTimeTooSkewed",
    "RequestExpired",
    "RequestInTheFuture",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
];
/// The codes of tokens of ours that may have been refused for their time.
const SKEWED_TOKEN: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "InvalidIdentityToken"];
/// The codes of refusals that pass.
const PASSING: [&str; 7] = [
    "IDPCommunicationError",
    "InternalFailure",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
];

/// The credentials of a reply.
///
/// # Errors
/// If STS refuses, or answers something else.
pub fn minted(
    reply: &Reply,
    action: &str,
    roots: Roots<'_>,
    now: Timestamp,
) -> Result<Minted, Failure> {
    let number = |path: &str| text_at(reply.body.expose(), path).filter(|text| is_uuid(text));
    if let Err(mut failure) = check_accepted(reply, &NUMBERS, refusal(reply), ADVICE) {
        let in_body = || number("ErrorResponse/RequestId");
        failure.upstream_request = failure.upstream_request.or_else(in_body);
        return Err(failure);
    }
    let text = |name: &str| {
        let path = format!("{action}Response/{action}Result/Credentials/{name}");
        let found = text_at(reply.body.expose(), &path).filter(|text| is_token(text.as_bytes()));
        found.ok_or_else(|| {
            Failure::invalid(&format!("the reply has no {name} of {action}; check sts_url"))
        })
    };
    let (id, secret, token) =
        (text("AccessKeyId")?, text("SecretAccessKey")?, text("SessionToken")?);
    if !(16..=128).contains(&id.len()) || !is_of(&id, "_") {
        return Err(Failure::invalid("the reply's AccessKeyId is none; check sts_url"));
    }
    let told: Timestamp = text("Expiration")?
        .parse()
        .map_err(|_| Failure::invalid("the reply's Expiration is no time; check sts_url"))?;
    let made = [
        ("access_key_id", text_value(&id)),
        ("secret_access_key", text_value(&secret)),
        ("session_token", text_value(&token)),
    ];
    Ok(Minted {
        fields: fields(made)?,
        end: Some(clock::end(told, reply.date, now, asked_life(roots.0))?),
        handle: Some(id),
        upstream_request: request_number(reply, &NUMBERS)
            .or_else(|| number(&format!("{action}Response/ResponseMetadata/RequestId"))),
        ending: None,
    })
}

/// The code of an error reply, of a strict form.
fn code(reply: &Reply) -> Option<String> {
    // Servers that only speak like STS put an element more.
    let paths = ["ErrorResponse/Error/Code", "ErrorResponse/Errors/Error/Code"];
    let code = paths.iter().find_map(|path| text_at(reply.body.expose(), path))?;
    (code.len() <= MAX_CODE && code.chars().all(|c| c.is_ascii_alphabetic())).then_some(code)
}

/// True if STS may have refused the request for its time.
pub fn is_skewed(reply: &Reply) -> bool {
    reply.status >= 400 && code(reply).is_some_and(|code| SKEWED.contains(&code.as_str()))
}

/// True if STS may have refused a token of ours for its time.
pub fn is_skewed_token(reply: &Reply) -> bool {
    reply.status >= 400 && code(reply).is_some_and(|code| SKEWED_TOKEN.contains(&code.as_str()))
}

fn refusal(reply: &Reply) -> Option<Refusal> {
    let code = code(reply)?;
    let is_passing = PASSING.contains(&code.as_str());
    Some(Refusal { advice: advice(&code), is_passing, code })
}

fn advice(code: &str) -> &'static str {
    match code {
        "AccessDenied" => {
            "check that the role exists, and that its trust policy admits the source key, external_id and tags; \
             or the issuer, audience and subject of the broker's token"
        }
        "InvalidClientTokenId" | "UnrecognizedClientException" => {
            "the source access key is deleted, inactive, or of another partition; write a valid key"
        }
        "SignatureDoesNotMatch" => {
            "the secret half does not belong to the source access key; write both halves of the key"
        }
        "ExpiredToken" | "ExpiredTokenException" => {
            "the source session token has expired; write new source credentials. If there is none, set this machine's \
             clock"
        }
        "IDPCommunicationError" => {
            "AWS cannot read the issuer's documents: host what keyhatch issuer write writes below the issuer's URL"
        }
        "IDPRejectedClaim" | "InvalidIdentityToken" => {
            "register the issuer's URL, with web_identity_audience, as an identity provider of the account, and host \
             what keyhatch issuer write writes below that URL"
        }
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => {
            "set this machine's clock"
        }
        "ValidationError" => {
            "compare mint_seconds with the role's maximum session duration (1 h if the source is a role), \
             and check role, policy and session_tags"
        }
        "MalformedPolicyDocument" => "correct policy: it is no valid session policy",
        "PackedPolicyTooLarge" => "shorten policy, policy_arns and session_tags",
        "RegionDisabledException" => "activate STS in this region, or write another region",
        _ => "the code is explained in AWS's documentation of AssumeRole",
    }
}
