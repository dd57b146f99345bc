//! The secret parts of a value: all of it, or the secret members of a document.
//!
//! Words, short numbers and the lines of a manifest appear in every log by accident. A masked part must be hard to
//! guess.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

use super::keys::{names_a_login, names_a_secret};
use super::logins;
use super::pem::{self, SecretBlock};

/// The shortest masked part, in bytes. Shorter ones match by accident.
pub const LEAST_BYTES: usize = 6;
/// The shortest value that is masked in an answer, in bytes: there also words and numbers are masked.
pub const LEAST_IN_ANSWERS: usize = 3;
/// The longest word, in letters.
const LONGEST_WORD: usize = 12;
/// The most digits of a number that counts something.
const LONGEST_NUMBER: usize = 9;
/// The shortest text that can look random.
const LEAST_RANDOM: usize = 16;

/// The parts of a value to mask.
#[derive(Default)]
pub struct SecretParts {
    /// Masked in every encoding.
    pub secrets: BTreeSet<Vec<u8>>,
    /// Masked only as they are.
    pub lines: BTreeSet<Vec<u8>>,
    /// Masked as Base64 in lines of any length: the content of PEM blocks.
    pub encoded: BTreeSet<Vec<u8>>,
    /// Why some part is not masked.
    pub unmasked: Option<Unmasked>,
}

/// Why something is not masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmasked {
    /// The value has fewer than [`LEAST_BYTES`].
    Short,
    /// The value is a word, a short number or one repeated character.
    Common,
    /// Some lines or members are short or common.
    Parts,
}

impl SecretParts {
    /// Finds the secret parts of a value.
    pub fn of(value: &[u8]) -> Self {
        let mut parts = Self { unmasked: unfit(value.trim_ascii()), ..Self::default() };
        if parts.unmasked.is_some() {
            return parts;
        }
        let text = std::str::from_utf8(value).unwrap_or_default();
        let is_document = parts.member(text, false);
        let is_one_setting = !text.trim().contains(['\n', '{']);
        if !is_document || is_one_setting || parts.secrets.is_empty() {
            parts.whole(value);
        }
        if let Some(password) = logins::password(text.trim()) {
            parts.member(password, true);
        }
        parts
    }

    /// Adds a text without structure, and its lines.
    fn whole(&mut self, text: &[u8]) {
        self.secrets.insert(text.to_vec());
        // As $(cat FILE) in a shell.
        self.secrets.insert(text.trim_ascii_end().to_vec());
        self.decoded(text);
        let lines = || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let filled: Vec<&[u8]> = lines().filter(|line| !line.is_empty()).collect();
        if filled.len() < 2 {
            return;
        }
        // As an unquoted variable in a shell, and as a key is often stored in one line.
        for between in [b" ".as_slice(), b""] {
            self.lines.insert(filled.join(between));
        }
        // The last line of a key may be short, and binary data has no lines.
        let has_odd_lines =
            filled.iter().any(|line| pem::is_boundary(line)) || std::str::from_utf8(text).is_err();
        for line in filled {
            match unfit(line) {
                None if pem::is_public_boundary(line) => {}
                None => drop(self.lines.insert(line.to_vec())),
                Some(_) if has_odd_lines => {}
                Some(_) => self.unmasked = Some(Unmasked::Parts),
            }
        }
    }

    /// Adds the content of Base64, which programs decode and print.
    fn decoded(&mut self, text: &[u8]) {
        let joined: Vec<u8> =
            text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = STANDARD.decode(joined).ok();
        let Some(decoded) = decoded.filter(|decoded| std::str::from_utf8(decoded).is_ok()) else {
            return;
        };
        // A login, as in Docker's configuration.
        let password = decoded.iter().position(|byte| *byte == b':').map(|colon| colon + 1);
        let password = password.and_then(|start| decoded.get(start..)).unwrap_or_default();
        for decoded in [&decoded, password] {
            let Self { secrets, lines, encoded, .. } = Self::of(decoded);
            self.secrets.extend(secrets);
            self.lines.extend(lines);
            self.encoded.extend(encoded);
        }
    }

    /// Adds the secret parts of a member or of a whole document, by their names or because they look random. Returns
    /// whether it has members itself.
    fn member(&mut self, text: &str, is_secret: bool) -> bool {
        if let Some(document) = document(text) {
            self.json(&document, is_secret);
            self.escaped(text);
            self.written(text);
            // A secret text may look like a document by accident.
            if is_secret && !text.trim().contains('\n') && unfit(text.trim().as_bytes()).is_none() {
                self.whole(text.trim().as_bytes());
            }
            return true;
        }
        let (blocks, rest) = pem::blocks(text);
        for block in blocks.iter().filter(|block| !block.is_public) {
            let SecretBlock { text, .. } = block;
            self.whole(text.as_bytes());
            self.encoded.extend(pem::content(text));
        }
        let has_pairs = self.lines_of(&rest, is_secret);
        if !blocks.is_empty() || has_pairs {
            // Other lines, such as those of a folded text.
            let is_secret = |line: &&str| !has_pairs || (pair(line).is_none() && is_random(line));
            let lines = rest.iter().copied().filter(is_secret).map(|line| line.trim().as_bytes());
            self.lines.extend(lines.filter(|line| unfit(line).is_none()).map(<[u8]>::to_vec));
            return true;
        }
        let text = text.trim();
        if is_public(text) {
            return false;
        }
        if !is_secret && text.contains('\n') {
            for line in text.lines() {
                self.member(line, false);
            }
            return false;
        }
        self.settings(text);
        let is_address = text.contains("://");
        let is_itself =
            (is_secret && !is_address) || text.split(['/', '?', '&', '=']).any(is_random);
        match unfit(text.as_bytes()) {
            None if is_itself => self.whole(text.as_bytes()),
            // A number with a secret name is not a count.
            Some(_) if is_secret && is_long_number(text) => self.whole(text.as_bytes()),
            Some(_) if is_itself && !text.is_empty() => self.unmasked = Some(Unmasked::Parts),
            _ => {}
        }
        false
    }

    /// Adds the members in the lines of an INI or .env file. Returns whether there are any.
    fn lines_of(&mut self, lines: &[&str], is_secret: bool) -> bool {
        let (mut has_pairs, mut section, mut is_last) = (false, false, false);
        for line in lines {
            let trimmed = line.trim();
            let head = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            if let Some(head) = head {
                (section, is_last) = (names_a_secret(head), false);
            } else if let Some(password) = logins::pgpass_password(trimmed) {
                // A secret text may look like such a line by accident.
                (has_pairs, is_last) = (has_pairs || !is_secret, false);
                self.member(password, true);
                self.member(&logins::unescaped(password), true);
            } else if let Some((name, text)) = pair(line) {
                is_last = is_secret || section || names_a_secret(name);
                has_pairs = true;
                self.member(text, is_last);
                let password = text.split_once(':').filter(|_| names_a_login(name));
                if let Some((_, password)) = password.filter(|(_, rest)| !rest.starts_with("//")) {
                    self.member(password, true);
                }
            } else if is_last && line.starts_with([' ', '\t']) {
                // The line continues a value.
                self.member(trimmed, true);
            }
        }
        has_pairs
    }

    /// Adds the secret texts of a document.
    fn json(&mut self, part: &Json, is_secret: bool) {
        match part {
            Json::String(text) => drop(self.member(text, is_secret)),
            Json::Number(number) if is_secret && is_long_number(&number.to_string()) => {
                self.whole(number.to_string().as_bytes());
            }
            Json::Array(items) => items.iter().for_each(|item| self.json(item, is_secret)),
            Json::Object(map) => {
                for (name, part) in map {
                    self.json(part, is_secret || names_a_secret(name));
                }
            }
            _ => {}
        }
    }

    /// Adds secrets in the escaped form of a JSON document.
    fn escaped(&mut self, document: &str) {
        let contains = |text: &str, secret: &[u8]| {
            text.as_bytes().windows(secret.len().max(1)).any(|part| part == secret)
        };
        for literal in literals(document).filter(|literal| literal.contains('\\')) {
            let Ok(text) = serde_json::from_str::<String>(&format!("\"{literal}\"")) else {
                continue;
            };
            let is_hidden =
                |secret: &Vec<u8>| contains(&text, secret) && !contains(literal, secret);
            if self.secrets.iter().any(is_hidden) {
                self.lines.insert(literal.as_bytes().to_vec());
            }
        }
    }

    /// Adds the lines of secrets that a document folds or indents.
    fn written(&mut self, document: &str) {
        let texts: Vec<&str> =
            self.secrets.iter().filter_map(|secret| std::str::from_utf8(secret).ok()).collect();
        let lines = document.lines().map(str::trim).filter(|line| unfit(line.as_bytes()).is_none());
        let is_part =
            |line: &&str| texts.iter().any(|text| text.len() > line.len() && text.contains(line));
        let parts: Vec<Vec<u8>> =
            lines.filter(is_part).map(|line| line.as_bytes().to_vec()).collect();
        self.lines.extend(parts);
    }

    /// Adds the password of an address, and secret settings in it or in a connection string.
    fn settings(&mut self, text: &str) {
        let authority = text
            .split_once("://")
            .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let login = authority.and_then(|authority| Some(authority.rsplit_once('@')?.0));
        let password = login.and_then(|login| Some(login.split_once(':')?.1));
        let words = text.split(|c: char| c.is_whitespace() || "?&;,{}[]".contains(c));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let settings = words.iter().filter_map(|word| word.split_once('='));
        // Pairs of YAML in one line, and of .netrc.
        let named = words.iter().zip(words.iter().skip(1)).filter_map(|(name, value)| {
            let name = name.strip_suffix(':').or_else(|| (*name == "password").then_some(name))?;
            Some((name, *value))
        });
        let secrets = settings.chain(named).filter(|(name, _)| names_a_secret(name));
        let secrets = secrets.map(|(_, value)| value.trim_matches(['"', '\'']));
        let is_left = |text: &&str| {
            !text.is_empty() && !is_long_number(text) && unfit(text.as_bytes()).is_some()
        };
        if password.filter(is_left).is_some() {
            self.unmasked = Some(Unmasked::Parts);
        }
        for secret in password.into_iter().chain(secrets) {
            let decoded = percent_decode_str(secret).decode_utf8_lossy();
            for secret in [secret, decoded.as_ref()] {
                if unfit(secret.as_bytes()).is_none() || is_long_number(secret) {
                    self.secrets.insert(secret.as_bytes().to_vec());
                }
            }
        }
    }
}

/// Why a text would match by accident. None if it can be masked.
fn unfit(text: &[u8]) -> Option<Unmasked> {
    let (first, rest) = text.split_first().unwrap_or((&0, &[]));
    let is_word = text.len() <= LONGEST_WORD
        && text.iter().all(u8::is_ascii_alphabetic)
        && (rest.iter().all(u8::is_ascii_lowercase) || text.iter().all(u8::is_ascii_uppercase));
    let is_number = text.len() <= LONGEST_NUMBER && text.iter().all(u8::is_ascii_digit);
    let is_ruler = rest.iter().all(|byte| byte == first);
    match text.len() {
        0..LEAST_BYTES => Some(Unmasked::Short),
        _ if is_word || is_number || is_ruler => Some(Unmasked::Common),
        _ => None,
    }
}

/// The texts within the quotes of a JSON document.
fn literals(document: &str) -> impl Iterator<Item = &str> {
    let mut rest = document;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once('"')?;
        let mut is_escaped = false;
        let end = behind.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        })?;
        let (literal, behind) = behind.split_at_checked(end)?;
        rest = behind.get(1..)?;
        Some(literal)
    })
}

/// Whether a member is a public PEM block, as it is or in Base64 as in a kubeconfig.
fn is_public(text: &str) -> bool {
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (blocks, rest) = pem::blocks(decoded.as_deref().unwrap_or(text));
    let is_empty = rest.iter().all(|line| line.trim().is_empty());
    is_empty && !blocks.is_empty() && blocks.iter().all(|block| block.is_public)
}

/// Whether a text is a number of so many digits that a secret name makes it a secret.
fn is_long_number(text: &str) -> bool {
    text.len() >= LEAST_BYTES && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text as JSON or YAML. None if it has no members.
fn document(text: &str) -> Option<Json> {
    let has_members = |document: &Json| document.is_object() || document.is_array();
    if let Some(document) = serde_json::from_str(text).ok().filter(has_members) {
        return Some(document);
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Json>(&mut bytes, options);
    let documents: Vec<Json> = documents.collect::<Result<_, _>>().ok()?;
    documents.iter().any(has_members).then_some(Json::Array(documents))
}

/// Whether a text looks random: letters and digits alternate.
fn is_random(text: &str) -> bool {
    let text = text.trim();
    let class = |byte: &u8| match byte {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.~".contains(&byte);
    let classes: Vec<u8> = text.as_bytes().iter().filter_map(class).collect();
    let turns = classes.windows(2).filter(|pair| pair.first() != pair.last()).count();
    text.len() >= LEAST_RANDOM && text.bytes().all(is_token) && turns * 4 >= text.len()
}

/// The name and value in a line of YAML, of an INI file or of a .env file.
fn pair(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("- ").or_else(|| line.strip_prefix("export ")).unwrap_or(line);
    let at = line.find([':', '='])?;
    let (name, rest) = line.split_at_checked(at)?;
    let is_yaml = rest.starts_with(':');
    let value = rest.get(1..)?;
    let written = name.trim();
    let name = written.trim_matches(['"', '\'']);
    // Quoted names of TOML may have spaces.
    let signs: &[u8] = if name.len() < written.len() { b"_-. " } else { b"_-." };
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte));
    // Base64 ends with =, and a login is USER:PASSWORD. Properties have no space after the colon.
    let is_pair = match is_yaml {
        true if names_a_secret(name) && !value.starts_with("//") => true,
        true => value.is_empty() || value.starts_with(char::is_whitespace),
        false => !value.trim_matches('=').is_empty(),
    };
    let value = value.trim().trim_end_matches(',').trim_matches(['"', '\'']);
    (is_name && is_pair).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &str) -> Vec<String> {
        let parts = SecretParts::of(value.as_bytes());
        parts.secrets.iter().map(|secret| String::from_utf8(secret.clone()).unwrap()).collect()
    }

    #[test]
    fn secret_members_of_a_document_are_masked() {
        let pem = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADAN\\n-----END PRIVATE KEY-----\\n";
        for (document, secret) in [
            (r#"{"name": "main", "password": "foobar99"}"#, "foobar99"),
            (r#"{"name": "main", "login": {"token": ["foobar99"]}}"#, "foobar99"),
            ("user: bob\npassword: foobar99\n", "foobar99"),
            ("users:\n- name: u\n  user:\n    token: \"abcdef123456\"\n", "abcdef123456"),
            ("[default]\naws_secret_access_key = sEcr3tValue1\n", "sEcr3tValue1"),
            ("A=1\nexport DB_PASSWORD='hunter22x'\n", "hunter22x"),
            (r#"{"dsn": "postgres://u:hunter22x@h/d"}"#, "hunter22x"),
            ("url: https://h/?user=u&api_key=hunter22x\nname: main\n", "hunter22x"),
            ("dsn: host=h password=hunter22x\nname: main\n", "hunter22x"),
            ("A=1\nB=8d2f0b1c9e7a4f63\n", "8d2f0b1c9e7a4f63"),
            ("users:\n- user: {name: main, token: hunter22x}\n", "hunter22x"),
            (r#"{"auths": {"r.example": {"auth": "dXNlcjpodW50ZXIyMng="}}}"#, "hunter22x"),
            ("name: main\npassword:\n  old: hunter22x\n", "hunter22x"),
            ("name: main\ntokens:\n- - hunter22x\n", "hunter22x"),
            ("name: main\nsecret: |\n  hunter22x\n  second-line\n", "hunter22x\nsecond-line"),
            ("name: main\nsecret: >-\n  hunter22x\n  second-line\n", "hunter22x second-line"),
            ("name: main\n---\n{deep: {pw: \"hunter22x\"}}\n", "hunter22x"),
            ("name: main\npin: 123456\n", "123456"),
            ("name: main\nsessionCookie: 0123456\n", "0123456"),
            (r#"{"name": "main", "refresh": "hunter22x"}"#, "hunter22x"),
            (r#"{"name": "main", "pin": 123456}"#, "123456"),
            ("[main]\nname = main\n[secrets]\nvalue = hunter22x\n", "hunter22x"),
            ("[a]\npassword = first-line\n  hunter22x\nname = main\n", "hunter22x"),
            ("user = \"u:hunter22x\"\nurl = \"https://main.example\"\n", "hunter22x"),
            ("dsn: https://h/?name=main&pin=123456\nname: main\n", "123456"),
        ] {
            let found = secrets(document);
            assert!(found.iter().any(|found| found == secret), "{document}: {found:?}");
            assert!(!found.iter().any(|found| found.contains("main")), "{document}: {found:?}");
        }
        let folded = SecretParts::of(b"name: main\nsecret: >-\n  hunter22x\n  second-line\n");
        assert!(folded.lines.contains(b"second-line".as_slice()));
        let escaped = SecretParts::of(br#"{"name": "main", "password": "f\u006f\u006fbar99"}"#);
        assert!(escaped.lines.contains(br"f\u006f\u006fbar99".as_slice()));
        let netrc = secrets("machine main\n  login u\n  password hunter22x\n");
        assert!(netrc.contains(&"hunter22x".to_owned()), "{netrc:?}");
        let key = format!(r#"{{"anything": "{pem}", "client_email": "a@b.example"}}"#);
        assert!(SecretParts::of(key.as_bytes()).lines.contains(b"MIIEvQIBADAN".as_slice()));
    }

    #[test]
    fn common_texts_are_not_masked() {
        for (value, why) in [
            ("12345", Unmasked::Short),
            ("postgres", Unmasked::Common),
            ("Production", Unmasked::Common),
            ("123456", Unmasked::Common),
            ("--------", Unmasked::Common),
            ("12345\n67890\n", Unmasked::Parts),
        ] {
            assert_eq!(SecretParts::of(value.as_bytes()).unmasked, Some(why), "{value}");
        }
        let counted = "spinner: 100000000\nrefresh_interval: 300\nmapping: {size: 123456}\nshipping: Standard\n";
        assert!(secrets(counted).iter().all(|secret| secret.trim() == counted.trim()));
        for value in ["hunter22", "correct-horse", "abcdefghijklmnop", "123456789012"] {
            assert_eq!(secrets(value), [value]);
        }
        let kubeconfig = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    server: https://k.example\n  name: c\n\
                          users:\n- name: u\n  user:\n    token: abcdef123456\n";
        assert_eq!(secrets(kubeconfig), ["abcdef123456"]);
        assert!(SecretParts::of(kubeconfig.as_bytes()).lines.is_empty());
        let block = "-----BEGIN CERTIFICATE-----\nMIIDATCCAemgAwIB\n-----END CERTIFICATE-----\n";
        let authority =
            format!("{kubeconfig}certificate-authority-data: {}\n", STANDARD.encode(block));
        assert_eq!(secrets(&authority), ["abcdef123456"]);
    }

    #[test]
    fn the_key_beside_a_certificate_is_masked() {
        let block = |label: &str, line: &str| {
            format!("-----BEGIN {label}-----\n{line}\n-----END {label}-----\n")
        };
        let both =
            block("CERTIFICATE", "MIIDATCCAemgAwIB") + &block("EC PRIVATE KEY", "MHcCAQEEIK9z");
        let parts = SecretParts::of(both.as_bytes());
        assert!(parts.lines.contains(b"MHcCAQEEIK9z".as_slice()));
        assert!(!parts.lines.contains(b"MIIDATCCAemgAwIB".as_slice()));
        assert!(!parts.lines.contains(b"-----BEGIN CERTIFICATE-----".as_slice()));
    }
}
