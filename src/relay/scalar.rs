//! Scalars of YAML as JSON: the core schema of YAML 1.2, as Relay's parser reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value as Json, json};

/// A scalar without quotes: null, a boolean, a number, or a text.
pub fn plain(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Json::Null,
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        text => number(text).map_or_else(|| Json::from(text), Json::Number),
    }
}

/// A number in the decimal, hexadecimal or octal notation of YAML 1.2.
pub fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.contains(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if !is_number {
        return None;
    }
    let integer = text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok().map(Number::from);
    integer.or_else(|| Number::from_f64(text.parse().ok()?))
}

/// Bytes as a text, or in Relay's form for other bytes: `{"$encoding": "base64", "data": "…"}`.
pub fn bytes(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Json::from(text),
        _ => json!({ "$encoding": "base64", "data": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_yaml_and_the_rest_is_text() {
        assert_eq!(plain("~"), Json::Null);
        assert_eq!(plain("true"), json!(true));
        assert_eq!(plain("yes"), json!("yes"));
        assert_eq!(plain("-12"), json!(-12));
        assert_eq!(plain("0x1f"), json!(31));
        assert_eq!(plain("1.5e3"), json!(1500.0));
        for text in ["1.2.3", "12a", ".", "-", "2021-06-08", "1-1", "inf", "nan", "e5"] {
            assert_eq!(plain(text), json!(text), "{text}");
        }
    }
}
