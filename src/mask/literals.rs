//! Values as literals of programming languages.

/// Stands for no quote: only backslashes are escaped.
const NO_QUOTE: char = '\\';
/// The quotes around a literal. Within it, that quote is escaped and the others are not.
const QUOTES: [char; 4] = [NO_QUOTE, '\'', '"', '`'];
/// The longest value, in bytes, that gets all styles. A longer value gets the first style only, to save memory.
const LONGEST_IN_ALL_STYLES: usize = 4 * 1024;
/// Writes a character that is not printable ASCII.
type Style = fn(char) -> String;
/// Python's `repr` and Go's `%q`.
const PRINTED: Style =
    |c| if c.is_ascii() { format!("\\x{:02x}", u32::from(c)) } else { c.to_string() };
/// `PRINTED`; JavaScript's `inspect`; Python's `ascii`; Go's `%+q`; Rust's `{:?}` and its
/// `escape_default`.
const STYLES: [Style; 6] = [
    PRINTED,
    |c| if c.is_ascii() { format!("\\x{:02X}", u32::from(c)) } else { c.to_string() },
    |c| if u32::from(c) < 0x100 { format!("\\x{:02x}", u32::from(c)) } else { code(c) },
    |c| if c.is_ascii() { format!("\\x{:02x}", u32::from(c)) } else { code(c) },
    |c| c.escape_debug().collect(),
    |c| c.escape_default().collect(),
];

/// The literals of a value: Python's `repr` of texts and bytes, JavaScript's `inspect`, Go's `%q`, Rust's `{:?}`, and
/// those of languages that escape only the quote.
pub fn of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let text = std::str::from_utf8(value).ok();
    let styles = if value.len() > LONGEST_IN_ALL_STYLES { 1 } else { STYLES.len() };
    for quote in QUOTES {
        all.push(bytes(value, quote).into_bytes());
        let Some(text) = text else { continue };
        all.push(text.replace(quote, &format!("\\{quote}")).into_bytes());
        let written = STYLES.iter().take(styles).map(|style| written(text, quote, *style));
        all.extend(written.map(String::into_bytes));
    }
    all
}

/// The literals of a text that keep characters outside of ASCII.
pub fn plain(text: &str) -> impl Iterator<Item = String> {
    QUOTES.into_iter().map(|quote| written(text, quote, PRINTED))
}

fn written(text: &str, quote: char, style: Style) -> String {
    text.chars().map(|c| escaped(c, quote).unwrap_or_else(|| style(c))).collect()
}

/// Python's `bytes`.
fn bytes(value: &[u8], quote: char) -> String {
    let written =
        |byte: &u8| escaped(char::from(*byte), quote).unwrap_or_else(|| format!("\\x{byte:02x}"));
    value.iter().map(written).collect()
}

/// The escapes that all languages share. None for a character that they write differently.
fn escaped(c: char, quote: char) -> Option<String> {
    match c {
        '\n' => Some("\\n".to_owned()),
        '\r' => Some("\\r".to_owned()),
        '\t' => Some("\\t".to_owned()),
        c if c == '\\' || c == quote => Some(format!("\\{c}")),
        c if c == ' ' || c.is_ascii_graphic() => Some(c.to_string()),
        _ => None,
    }
}

fn code(c: char) -> String {
    match u32::from(c) {
        code @ ..0x1_0000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::forms;
    use super::super::parts::SecretParts;

    #[test]
    fn the_literals_of_languages_are_forms() {
        let has = |value: &str, form: &str| {
            forms::of(&SecretParts::of(value.as_bytes())).contains(form.as_bytes())
        };
        // One kind of quote is escaped.
        for (form, is_there) in [
            (r#"a'b"c`d\\e-9z!"#, true),
            (r#"a\'b"c`d\\e-9z!"#, true),
            (r#"a'b\"c`d\\e-9z!"#, true),
            (r#"a'b"c\`d\\e-9z!"#, true),
            (r#"a\'b"c`d\e-9z!"#, true),
            (r#"a'b\"c`d\e-9z!"#, true),
            // In a line of a JSON log.
            (r#"a'b\"c`d\\\\e-9z!"#, true),
            (r#"a/b"c`d\\e-9z!"#, false),
        ] {
            assert_eq!(has(r#"a'b"c`d\e-9z!"#, form), is_there, "{form}");
        }
        for form in [
            r"s3cr\xe9t-\u20ac",
            r"s3cr\u00e9t-\u20ac",
            r"s3cr\u{e9}t-\u{20ac}",
            r"s3cr\xc3\xa9t-\xe2\x82\xac",
        ] {
            assert!(has("s3cr\u{e9}t-\u{20ac}", form), "{form}");
        }
        assert!(has("one'line\ntwo\"line", "one'line\\ntwo\\\"line"));
        assert!(has("one'line\\x\ntwo-line", "one'line\\\\x"));
        assert!(
            forms::of(&SecretParts::of(b"\xff\x00binary")).contains(br"\xff\x00binary".as_slice())
        );
    }
}
