//! Tests of texts.

/// A test of a text.
#[derive(Clone, Debug)]
pub(super) enum TextTest {
    /// It is this text.
    Is(String),
    /// It begins with this text.
    StartsWith(String),
    /// It contains this text, which is in lower case. ASCII letters of either case are equal.
    Contains(Box<[u8]>),
}

impl TextTest {
    /// Contains `part`, whatever the case of its ASCII letters.
    pub(super) fn contains(part: &str) -> Self {
        Self::Contains(part.to_ascii_lowercase().into_bytes().into())
    }

    pub(super) fn admits(&self, text: &str) -> bool {
        match self {
            Self::Is(whole) => text == whole,
            Self::StartsWith(start) => text.starts_with(start.as_str()),
            Self::Contains(part) => is_in(part, text.as_bytes()),
        }
    }
}

/// Whether `part`, which is in lower case, is in `text`.
fn is_in(part: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = part.split_first() else { return true };
    let is_first = |byte: &u8| byte.to_ascii_lowercase() == *first;
    let mut left = text;
    while let Some(at) = left.iter().position(is_first) {
        left = left.get(at + 1..).unwrap_or_default();
        if left.get(..rest.len()).is_some_and(|next| next.eq_ignore_ascii_case(rest)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_in_either_case() {
        for (part, text, expected) in [
            ("", "", true),
            ("a", "", false),
            ("PROD", "aws/prod-eu", true),
            ("prod", "aws/Prod", true),
            ("aab", "aaab", true),
            ("prods", "aws/prod", false),
            ("é", "café", true),
        ] {
            assert_eq!(TextTest::contains(part).admits(text), expected, "{part} in {text}");
        }
    }
}
