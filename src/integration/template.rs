//! `{{ name }}` in headers, URL parameters and bodies is replaced by the connection's token of that name.
//!
//! Datadog renders an unknown name as empty, which sends a request without its credential. Here an unknown name is an error
//! when the connection is written. Only a name is allowed between the braces, as in Datadog's own runner, where
//! "`{{ }}`, `{{ .. }}`, `{{ a/b }}`" are errors, too.

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPart<'a> {
    /// Plain text.
    Text(&'a str),
    /// The text between `{{` and `}}`.
    Reference(&'a str),
    /// A `{{` without its `}}`; the last part.
    Unclosed,
}

/// The parts of a text, in its order.
pub fn parts(text: &str) -> Vec<TextPart<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, inside)) = rest.split_once("{{") {
        parts.push(TextPart::Text(before));
        let Some((reference, after)) = inside.split_once("}}") else {
            parts.push(TextPart::Unclosed);
            return parts;
        };
        parts.push(TextPart::Reference(reference));
        rest = after;
    }
    parts.push(TextPart::Text(rest));
    parts
}

/// The names that a text refers to.
///
/// # Errors
/// The fault of its braces.
pub fn references(text: &str) -> Result<Vec<&str>, &'static str> {
    let names = parts(text).into_iter().filter_map(|part| match part {
        TextPart::Text(_) => None,
        TextPart::Reference(name) => Some(token(name.trim())),
        TextPart::Unclosed => Some(Err("a {{ has no }}")),
    });
    names.collect()
}

fn token(name: &str) -> Result<&str, &'static str> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match is_name {
        true => Ok(name),
        false => Err(
            "write a token's name between {{ and }}: letters and digits, starting with a letter",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_allowed_between_braces() {
        assert_eq!(references("Bearer {{ apiKey }} {{b2}}").unwrap(), ["apiKey", "b2"]);
        assert_eq!(references("no { braces } at all }}").unwrap(), [""; 0]);
        for bad in ["{{ }}", "{{ .. }}", "{{ a/b }}", "{{{ a }}}", "{{ a", "{{ a b }}", "{{ 1a }}"]
        {
            assert!(references(bad).is_err(), "{bad}");
        }
    }
}
