//! The forms in which programs print a value.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value as Json;

use super::literals;
use super::parts::{LEAST_BYTES, LEAST_IN_ANSWERS, SecretParts};

/// The characters of a piece of Base64, at every group of four. Pieces are found across the ends of lines.
const BASE64_PIECE: usize = 8;
/// The bytes in such a piece.
const PIECE_BYTES: usize = 6;
/// Text of other keys and of certificates, too: the boundaries of PEM, and the names of algorithms.
const COMMON: [&str; 5] = [
    "-----BEGIN ",
    "-----END ",
    " PRIVATE KEY-----\n",
    "ADANBgkqhkiG9w0BAQEFAASC",
    "AgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
];
/// RFC 3986, section 2.3.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Python's `quote` leaves the slash as it is.
const AND_SLASH: &AsciiSet = &UNRESERVED.remove(b'/');
/// JavaScript's `encodeURIComponent` leaves these.
const AND_MARKS: &AsciiSet =
    &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');
/// Forms of HTML leave these, and encode `~`: the URL parameters that the broker renders, too.
const OF_FORMS: &AsciiSet = &UNRESERVED.add(b'~').remove(b'*');

/// The forms of the secret parts of a value: as they are, by lines, in Base64, in URLs, in JSON, in literals of
/// programming languages and in hexadecimal digits. Forms that are too short are left out.
pub fn of(parts: &SecretParts) -> BTreeSet<Vec<u8>> {
    let mut forms = parts.lines.clone();
    for line in &parts.lines {
        forms.extend(literals::of(line));
    }
    for secret in &parts.secrets {
        add(&mut forms, secret);
    }
    for content in &parts.encoded {
        rewrapped(&mut forms, content);
    }
    forms.retain(|form| form.len() >= LEAST_BYTES);
    forms
}

/// The forms of a whole value of at least [`LEAST_IN_ANSWERS`] bytes, whether or not it is hard to guess.
pub fn of_whole(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    encoded(&mut forms, value);
    forms.retain(|form| form.len() >= LEAST_IN_ANSWERS);
    forms
}

fn add(forms: &mut BTreeSet<Vec<u8>>, value: &[u8]) {
    if value.len() >= LEAST_BYTES {
        encoded(forms, value);
    }
}

fn encoded(forms: &mut BTreeSet<Vec<u8>>, value: &[u8]) {
    forms.insert(value.to_vec());
    forms.insert(hex::encode(value).into_bytes());
    forms.insert(hex::encode_upper(value).into_bytes());
    base64(forms, value);
    forms.extend(literals::of(value));
    for set in [UNRESERVED, AND_SLASH, AND_MARKS, OF_FORMS] {
        let encoded = percent_encode(value, set).to_string();
        for encoded in [lower_hex(&encoded), encoded] {
            forms.insert(encoded.replace("%20", "+").into_bytes());
            forms.insert(encoded.into_bytes());
        }
    }
    if let Ok(text) = std::str::from_utf8(value) {
        // Loggers write JSON and literals within JSON.
        for once in json(text).into_iter().chain(literals::plain(text)) {
            forms.extend(json(&once).into_iter().map(String::into_bytes));
            forms.insert(once.into_bytes());
        }
        quoted(forms, text);
    }
}

/// As shells write it (`set -x`, `%q`), as YAML within single quotes, and as HTML.
fn quoted(forms: &mut BTreeSet<Vec<u8>>, text: &str) {
    let escaped = |is_special: &dyn Fn(char) -> bool| {
        let escape = |c: char| is_special(c).then_some('\\').into_iter().chain([c]);
        text.chars().flat_map(escape).collect::<String>()
    };
    let is_safe = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "_/.,:+=@%-".contains(c);
    let html = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;")];
    let html = html.iter().fold(text.to_owned(), |text, (c, code)| text.replace(c, code));
    let all = [
        text.replace('\'', r"'\''"),
        text.replace('\'', "'\"'\"'"),
        text.replace('\'', "''"),
        escaped(&|c| "\\\"$`".contains(c)),
        escaped(&|c| !is_safe(c)),
        html.replace('\'', "&#39;"),
        html.replace('\'', "&#x27;"),
        html,
    ];
    forms.extend(all.map(String::into_bytes));
}

/// `%2F` as `%2f`, as curl writes it.
fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        lower.extend(["%", &hex.to_ascii_lowercase(), rest]);
    }
    lower
}

/// In Base64 as the middle of a longer text such as `user:password`, also in lines.
fn base64(forms: &mut BTreeSet<Vec<u8>>, value: &[u8]) {
    for engine in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            let longer = [vec![0; before].as_slice(), value].concat();
            let encoded = engine.encode(&longer);
            // The characters at both ends also depend on the text beside the value.
            let start = if before == 0 { 0 } else { before + 1 };
            let end = longer.len() * 4 / 3;
            let unpadded = encoded.trim_end_matches('=').len();
            for end in [end, unpadded] {
                forms.insert(encoded.as_bytes().get(start..end).unwrap_or_default().to_vec());
            }
            let whole_groups = if before == 0 { 0 } else { 1 };
            let groups = encoded.as_bytes().get(whole_groups * 4..end).unwrap_or_default();
            let texts =
                longer.get(whole_groups * 3..).unwrap_or_default().windows(PIECE_BYTES).step_by(3);
            let pieces = groups.windows(BASE64_PIECE).step_by(4).zip(texts);
            let own = pieces.filter(|(_, text)| !is_common(text));
            forms.extend(own.map(|(piece, _)| piece.to_vec()));
        }
    }
}

/// In Base64 from its own beginning, in lines of any length.
fn rewrapped(forms: &mut BTreeSet<Vec<u8>>, content: &[u8]) {
    let encoded = STANDARD.encode(content);
    let is_filling =
        |piece: &[u8]| piece.iter().filter(|byte| **byte == b'A').count() * 2 >= piece.len();
    let is_algorithm = |piece: &[u8]| {
        COMMON.iter().any(|text| text.as_bytes().windows(piece.len()).any(|part| part == piece))
    };
    let pieces = encoded.as_bytes().windows(BASE64_PIECE).step_by(4);
    let own = pieces.filter(|piece| !is_filling(piece) && !is_algorithm(piece));
    forms.extend(own.map(<[u8]>::to_vec));
}

fn is_common(piece: &[u8]) -> bool {
    // The characters between the lines of PEM.
    let filling = piece.iter().filter(|byte| b"-=\n".contains(byte)).count();
    filling * 2 >= piece.len()
        || COMMON.iter().any(|text| text.as_bytes().windows(piece.len()).any(|part| part == piece))
}

/// As a JSON string of Rust and JavaScript, of Python (ASCII only), and of Go (no HTML).
fn json(text: &str) -> Vec<String> {
    let quoted = Json::from(text).to_string();
    let escaped = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut ascii = String::new();
    let mut units = [0; 2];
    for c in escaped.chars() {
        match c {
            c if c.is_ascii() => ascii.push(c),
            c => c
                .encode_utf16(&mut units)
                .iter()
                .for_each(|unit| ascii += &format!("\\u{unit:04x}")),
        }
    }
    let html = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")];
    let html = html.iter().fold(escaped.to_owned(), |text, (c, code)| text.replace(*c, code));
    vec![escaped.replace('/', "\\/"), escaped.to_owned(), ascii, html]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> BTreeSet<Vec<u8>> {
        super::of(&SecretParts::of(value))
    }

    /// The length of the rest of a Base64 text after all forms of a value are removed.
    fn left(value: &[u8], text: &str) -> usize {
        let forms = of(value);
        let mut is_covered = vec![false; text.len()];
        for form in &forms {
            for start in 0..=text.len().saturating_sub(form.len()) {
                if text.as_bytes()[start..].starts_with(form) {
                    is_covered[start..start + form.len()].fill(true);
                }
            }
        }
        is_covered.iter().filter(|covered| !**covered).count()
    }

    #[test]
    fn a_value_is_found_within_base64_also_in_lines() {
        let long: Vec<u8> = (0..100).map(|n| b'!' + n % 90).collect();
        for value in [b"s3cr\xc3\xa9t/+value?".as_slice(), &long] {
            for before in ["", "u", "us", "use", "user:", "x-access-token:"] {
                for after in ["", "x", "xy", "\n"] {
                    for engine in [STANDARD, URL_SAFE] {
                        let encoded =
                            engine.encode([before.as_bytes(), value, after.as_bytes()].concat());
                        for width in [1000, 76, 64] {
                            let lines: Vec<_> = encoded
                                .as_bytes()
                                .chunks(width)
                                .map(|line| std::str::from_utf8(line).unwrap())
                                .collect();
                            let lines = lines.join("\n");
                            // The text beside the value, padding, ends of lines, and less than two groups at each end.
                            let beside = (before.len() + after.len()).div_ceil(3) * 4;
                            let most = beside + 8 + lines.matches('\n').count() * 9;
                            let left = left(value, &lines);
                            assert!(left <= most, "{before}…{after} {width}: {left} of {lines}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_content_of_pem_is_found_in_lines_of_any_length() {
        let content: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(73) ^ 0x5a).collect();
        let encoded = STANDARD.encode(&content);
        let wrapped = |width: usize| {
            let lines =
                encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap());
            lines.collect::<Vec<_>>().join("\n")
        };
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", wrapped(64));
        for width in [76, 70, 48, 1000] {
            let lines = wrapped(width);
            let left = left(pem.as_bytes(), &lines);
            assert!(left <= lines.matches('\n').count() * 9, "{width}: {left}");
        }
    }

    #[test]
    fn shell_quoting_and_decoded_base64_are_forms() {
        let has = |value: &[u8], form: &[u8]| of(value).contains(form);
        assert!(has(b"hunter22\n", b"aHVudGVyMjI"));
        assert!(has(b"hunter 22\n", b"hunter%2022"));
        assert!(has(b"a/b+C%d", b"a%2fb%2bC%25d"));
        assert!(has(b"a ~*-._/b", b"a+%7E*-._%2Fb") && has(b"a ~*-._/b", b"a+%7e*-._%2fb"));
        assert!(has(b"it's $HOME", br"it'\''s $HOME"));
        assert!(has(b"it's $HOME", br"it\'s\ \$HOME"));
        assert!(has(b"say \"a\" & b", br#"say \\\"a\\\" & b"#));
        assert!(has(b"say \"a\" & b", b"say &quot;a&quot; &amp; b"));
        assert!(has(STANDARD.encode("hunter22-and-more").as_bytes(), b"hunter22-and-more"));
    }

    #[test]
    fn a_short_value_has_no_forms_nor_has_an_empty_line() {
        assert!(of(b"").is_empty());
        assert!(of(b"12345").is_empty());
        assert!(of(b"\n\n\n\n\n\n\n").iter().all(|form| form.len() >= LEAST_BYTES));
    }

    #[test]
    fn a_key_within_a_key_file_is_a_form_its_address_is_not() {
        let forms = of(br#"{"a": {"private_key": ["-----BEGIN\nMIIEvQIBADANBg\n"]}, "client_email": "a@b.example"}"#);
        assert!(forms.contains(b"MIIEvQIBADANBg".as_slice()));
        assert!(!forms.contains(b"a@b.example".as_slice()));
    }
}
