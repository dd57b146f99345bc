//! The parameters of a request for a role session.

use form_urlencoded::Serializer;

use super::super::Ask;
use super::super::failure::Failure;
use super::super::roots::{Roots, is_of};
use super::session;

/// The type of a form.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// How long a session may last, in seconds.
const SECONDS: std::ops::RangeInclusive<u32> = 900..=43_200;

/// The parameters that both actions have, and the external ID, in botocore's order.
pub fn form(
    action: &str,
    roots: Roots<'_>,
    ask: &Ask,
    partition: &str,
    external_id: Option<&str>,
) -> Result<Serializer<'static, String>, Failure> {
    let is_account = |text: &str| text.len() == 12 && text.chars().all(|c| c.is_ascii_digit());
    let account = roots.checked("account_id", "an account ID of 12 digits", is_account)?;
    let account = account.ok_or_else(|| Failure::field("account_id", "is missing"))?;
    let role =
        roots.checked("role", "a role's name, with its path", |text| is_of(text, "_+=,.@-/"))?;
    let role = role.ok_or_else(|| Failure::field("role", "is missing"))?.trim_start_matches('/');
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", "2011-06-15");
    form.append_pair("RoleArn", &format!("arn:{partition}:iam::{account}:role/{role}"));
    form.append_pair("RoleSessionName", &session::session_name(ask));
    let is_time = |text: &str| text.parse().is_ok_and(|seconds: u32| SECONDS.contains(&seconds));
    let time = roots.checked("mint_seconds", "a number of 900 to 43200", is_time)?;
    let policy = roots.optional("policy")?;
    let parameters = [("DurationSeconds", time), ("ExternalId", external_id), ("Policy", policy)];
    for (name, value) in parameters {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let arns = roots.optional("policy_arns")?.unwrap_or_default();
    for (number, arn) in (1..).zip(arns.split(',').map(str::trim).filter(|arn| !arn.is_empty())) {
        form.append_pair(&format!("PolicyArns.member.{number}.arn"), arn);
    }
    Ok(form)
}

/// The session's tags: `KEY=VALUE`, with commas between them.
pub fn tags(roots: Roots<'_>) -> Result<Vec<(&str, &str)>, Failure> {
    let text = roots.optional("session_tags")?.unwrap_or_default();
    let tags = text.split(',').filter(|_| !text.is_empty()).map(|tag| tag.trim().split_once('='));
    let tags: Option<Vec<_>> = tags.collect();
    tags.ok_or_else(|| Failure::field("session_tags", "is not KEY=VALUE with commas between"))
}
