//! Texts in PEM (RFC 7468) that were damaged by pasting, cutting or escaping. Programs refuse a text for its line breaks alone,
//! even if it still holds the whole key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::model::Value;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// The label of OpenSSH's own format, which is stricter than PEM.
const OPENSSH: &str = "OPENSSH PRIVATE KEY";
/// The beginning of OpenPGP's armour, which looks like PEM and has a checksum at its end.
const OF_PGP: &str = "-----BEGIN PGP ";
/// The beginning of OpenSSH's own format, once decoded.
const MAGIC: &[u8] = b"openssh-key-v1\0";

const ENDLESS: &str = "its end is missing, so it was cut off; write the whole file";
const CUT: &str = "a part of it is missing or changed; write the whole file";

/// A block with its boundaries, and its label.
struct PemBlock<'a> {
    label: &'a str,
    text: &'a str,
}

/// Adds the newline at the end of a PEM value if it is missing. Returns the value, and true if a newline was added. OpenSSH
/// refuses a key without that newline, which shells and web forms remove.
pub fn with_last_newline(value: Value) -> (Value, bool) {
    if !needs_newline(&value) {
        return (value, false);
    }
    let bytes = value.expose();
    let mut longer = Vec::with_capacity(bytes.len() + 1);
    longer.extend_from_slice(bytes);
    longer.push(b'\n');
    (Value::new(longer), true)
}

/// True if a value is PEM, and only the newline at its end is missing.
pub fn needs_newline(value: &Value) -> bool {
    std::str::from_utf8(value.expose()).is_ok_and(|text| {
        let is_block = text.starts_with(BEGIN) && text.ends_with(DASHES);
        is_block && text.contains('\n') && !text.starts_with(OF_PGP) && fault(text).is_none()
    })
}

/// True if a text begins like PEM, after quotes or white space.
pub fn begins(text: &str) -> bool {
    let quotes = |c: char| c.is_whitespace() || ['"', '\'', '`', '\u{feff}'].contains(&c);
    text.trim_start_matches(quotes).starts_with(BEGIN) && !text.starts_with(OF_PGP)
}

/// Why programs refuse a text in PEM; `None` if they do not, or the text is not PEM.
pub fn fault(text: &str) -> Option<&'static str> {
    let (before, rest) = text.split_at(text.find(BEGIN)?);
    if before.ends_with(['"', '\'', '`']) {
        return Some("it is in quotes; write it without them");
    }
    if rest.contains("\\n") {
        return Some(
            "its line breaks are written as \\n; write them as line breaks, as the key's file has them",
        );
    }
    let blocks = match blocks(rest) {
        Ok(blocks) => blocks,
        Err(fault) => return Some(fault),
    };
    let is_indented = |line: &str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    let mut lines = blocks.iter().flat_map(|block| block.text.lines());
    if before.ends_with([' ', '\t']) || lines.any(is_indented) {
        return Some("its lines are indented; write it without the spaces before them");
    }
    let is_openssh = blocks.iter().any(|block| block.label == OPENSSH);
    if is_openssh && !before.is_empty() {
        return Some("there is text before its first line; remove that");
    }
    if is_openssh && rest.contains('\r') {
        return Some("its lines end in CR LF; write it with line feeds alone");
    }
    blocks.iter().any(|block| !block.is_whole()).then_some(CUT)
}

/// The blocks of a text that begins with a block.
fn blocks(text: &str) -> Result<Vec<PemBlock<'_>>, &'static str> {
    let (mut blocks, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(BEGIN) {
        let (_, block) = rest.split_at(at);
        let (label, _) =
            block.get(BEGIN.len()..).and_then(|after| after.split_once(DASHES)).ok_or(ENDLESS)?;
        let boundary = format!("{END}{label}{DASHES}");
        let end = block.find(&boundary).ok_or(ENDLESS)?;
        let (text, after) = block.split_at(end + boundary.len());
        let inside = text.get(BEGIN.len() + label.len() + DASHES.len()..end).unwrap_or_default();
        match (
            inside.trim_end_matches(' ').ends_with(['\n', '\r']) && starts_a_line(inside),
            inside.contains(' '),
        ) {
            (true, _) => blocks.push(PemBlock { label, text }),
            (false, true) => {
                return Err(
                    "its line breaks have become spaces; write it as the key's file has it",
                );
            }
            (false, false) => {
                return Err("its line breaks are gone; write it as the key's file has it");
            }
        }
        rest = after;
    }
    Ok(blocks)
}

/// True if the rest of the line is empty.
fn starts_a_line(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\r']).starts_with('\n')
}

impl PemBlock<'_> {
    /// True if its lines decode and, in OpenSSH's format, none is missing.
    fn is_whole(&self) -> bool {
        let lines = self.text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.starts_with(DASHES) && !line.contains(':'));
        let encoded: Zeroizing<String> = Zeroizing::new(lines.collect());
        let Ok(decoded) = STANDARD.decode(encoded.as_bytes()).map(Zeroizing::new) else {
            return false;
        };
        self.label != OPENSSH || is_whole_openssh(&decoded).is_some()
    }
}

/// `Some` if a key in OpenSSH's format is complete: cipher, key derivation, its options, the keys, each with its length
/// (PROTOCOL.key of OpenSSH).
fn is_whole_openssh(decoded: &[u8]) -> Option<()> {
    let rest = decoded.strip_prefix(MAGIC)?;
    let rest = skip(skip(skip(rest)?)?)?;
    let (keys, rest) = number(rest)?;
    let rest = (0..keys.min(16)).try_fold(rest, |rest, _| skip(rest))?;
    skip(rest).filter(|rest| rest.is_empty()).map(drop)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// The bytes after a text that has its length before it.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = number(bytes)?;
    rest.get(usize::try_from(length).ok()?..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key of OpenSSH's form with nothing in it that is a secret.
    fn openssh() -> String {
        let mut bytes = MAGIC.to_vec();
        for part in [b"none".as_slice(), b"none", b""] {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
        bytes.extend(1_u32.to_be_bytes());
        for length in [51_u8, 136] {
            bytes.extend(u32::from(length).to_be_bytes());
            bytes.extend(0..length);
        }
        wrapped(OPENSSH, &STANDARD.encode(bytes))
    }

    fn wrapped(label: &str, encoded: &str) -> String {
        let lines: Vec<_> =
            encoded.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{BEGIN}{label}{DASHES}\n{}\n{END}{label}{DASHES}\n", lines.join("\n"))
    }

    fn mended(text: &str) -> (String, bool) {
        let (value, is_mended) = with_last_newline(Value::new(text.into()));
        (String::from_utf8(value.into_exposed()).unwrap(), is_mended)
    }

    #[test]
    fn a_key_is_given_its_last_newline_and_nothing_else_is_touched() {
        let key = openssh();
        assert_eq!(fault(&key), None);
        assert_eq!(mended(&key), (key.clone(), false));
        assert_eq!(mended(key.trim_end()), (key.clone(), true));
        let chain = wrapped("CERTIFICATE", "AAAA") + &wrapped("CERTIFICATE", "BBBB");
        assert_eq!(mended(chain.trim_end()), (chain.clone(), true));
        let armour = format!("{OF_PGP}MESSAGE-----\n\nAAAA\n=BBBB\n-----END PGP MESSAGE-----");
        assert!(!begins(&armour) && begins(&key) && !mended(&armour).1);
        for other in
            ["", "token", "-----BEGIN x", &key.replace('\n', ""), &key.replace('\n', "\r\n")]
        {
            assert!(!mended(other).1, "{other}");
        }
    }

    #[test]
    fn each_kind_of_damage_to_a_key_is_named() {
        let key = openssh();
        let (start, end) = key.split_at(150);
        let cut = format!("{start}{}", end.split_at(80).1);
        for (text, word) in [
            (key.replace('\n', ""), "are gone"),
            (key.replace('\n', " "), "become spaces"),
            (key.replace('\n', "\\n"), "line breaks"),
            (key.replace('\n', "\r\n"), "CR LF"),
            (format!("\n{key}"), "before its first line"),
            (key.lines().map(|line| format!("  {line}\n")).collect(), "indented"),
            (key.split_at(200).0.to_owned(), "cut off"),
            (cut, "missing or changed"),
            (format!("\"{key}\""), "in quotes"),
            (wrapped("PRIVATE KEY", "AAAA").replace('\n', "\n  "), "indented"),
        ] {
            let found = fault(&text);
            assert!(found.is_some_and(|found| found.contains(word)), "{word}: {found:?}");
        }
        for fine in [
            wrapped("RSA PRIVATE KEY", "AAAA").replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1),
            format!("Bag Attributes\n    friendlyName: x\n{}", wrapped("CERTIFICATE", "AAAA")),
            wrapped("CERTIFICATE", "AAAA").replace('\n', "\r\n"),
            "no key".to_owned(),
        ] {
            assert_eq!(fault(&fine), None, "{fine}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_checked_and_grows_by_a_newline_at_most(
            parts in prop::collection::vec(
                prop_oneof!["-----BEGIN A-----", "-----END A-----", "-----", "[A-Za-z =\\\\\"é]{0,5}", "\n", "\r"],
                0..12,
            ),
        ) {
            let text = parts.concat();
            let (after, is_mended) = mended(&text);
            let newline = if is_mended { "\n" } else { "" };
            prop_assert_eq!(after, format!("{text}{newline}"));
        }
    }
}
