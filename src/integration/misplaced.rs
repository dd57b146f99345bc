//! Secrets in fields that viewers of the connection can read. Such a value is refused when it is written.

use super::schema::FieldRule;
use crate::model::Value;

/// The beginning of a private key in PEM, after its algorithm.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";

/// The prefixes of tokens of GitHub, GitLab, Slack, Stripe and Anthropic.
const TOKENS: [&str; 12] = [
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "rk_live_",
    "sk-ant-",
    "sk_live_",
    "xapp-",
    "xoxb-",
    "xoxp-",
];

/// The shortest token, in bytes: shorter texts only begin like one.
const LEAST_TOKEN_BYTES: usize = 20;

/// Why a value belongs into another field; `None` if it does not.
pub fn misplaced(rule: &FieldRule, value: &Value) -> Option<&'static str> {
    let bytes = value.expose();
    if rule.sensitive {
        let is_swapped = rule.name.ends_with("secret_access_key") && is_aws_id(bytes);
        return is_swapped.then_some(
            "the value is the ID of an access key; give the ID and the secret each in its own field",
        );
    }
    if bytes.windows(PRIVATE_KEY.len()).any(|part| part == PRIVATE_KEY) {
        return Some(
            "the value holds a private key, and this field can be read; is it the wrong file?",
        );
    }
    if rule.name.ends_with("access_key_id") && is_aws_secret(bytes) {
        return Some(
            "the value is the secret of an access key, and this field can be read; give the ID and the secret each \
             in its own field",
        );
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if password(text).is_some() {
        return Some(
            "the address holds a password, and this field can be read; put it into a sensitive field",
        );
    }
    let word = text.rsplit(' ').next().unwrap_or_default();
    let is_token =
        word.len() >= LEAST_TOKEN_BYTES && TOKENS.iter().any(|start| word.starts_with(start));
    is_token.then_some(
        "the value is a token, and this field can be read; put it into a sensitive field",
    )
}

/// True for the ID of an access key of AWS, long-lived or temporary.
fn is_aws_id(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii();
    let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let is_begun = bytes.starts_with(b"AKIA") || bytes.starts_with(b"ASIA");
    bytes.len() == 20 && is_begun && bytes.iter().all(is_part)
}

/// True for the secret of such a key. IDs of other services may have 40 characters, too, but of one case.
fn is_aws_secret(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/+".contains(byte);
    bytes.len() == 40
        && bytes.iter().all(is_part)
        && bytes.iter().any(u8::is_ascii_lowercase)
        && bytes.iter().any(u8::is_ascii_uppercase)
}

/// The user of an absolute URL, with the password if there is one.
pub fn user_information(text: &str) -> Option<&str> {
    let (scheme, rest) = text.trim_ascii().split_once("://")?;
    let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit_once('@').map(|(user, _)| user).filter(|_| is_scheme)
}

/// The password of an absolute URL. A `{{ token }}` in its place is not a password.
pub fn password(text: &str) -> Option<&str> {
    let (_, password) = user_information(text)?.split_once(':')?;
    Some(password).filter(|password| !password.is_empty() && !password.contains("{{"))
}
