//! `{{ name }}` in headers, URL parameters and bodies stands for the connection's token of that name.
//!
//! Datadog renders an unknown name as empty, which sends a request without its credential; here it is an
//! error when the connection is written. Only a name may stand between the braces, as in Datadog's own
//! runner: "`{{ }}`, `{{ .. }}`, `{{ a/b }}`" are errors there, too.

/// The names that a text refers to.
///
/// # Errors
/// What is wrong with its braces.
pub fn references(text: &str) -> Result<Vec<&str>, &'static str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, inside)) = rest.split_once("{{") {
        let (name, after) = inside.split_once("}}").ok_or("a {{ has no }}")?;
        let name = name.trim();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_name {
            return Err(
                "between {{ and }} stands a token's name: letters and digits, starting with a letter",
            );
        }
        names.push(name);
        rest = after;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_stand_between_braces() {
        assert_eq!(references("Bearer {{ apiKey }} {{b2}}").unwrap(), ["apiKey", "b2"]);
        assert_eq!(references("no { braces } at all }}").unwrap(), [""; 0]);
        for bad in ["{{ }}", "{{ .. }}", "{{ a/b }}", "{{{ a }}}", "{{ a", "{{ a b }}", "{{ 1a }}"]
        {
            assert!(references(bad).is_err(), "{bad}");
        }
    }
}
